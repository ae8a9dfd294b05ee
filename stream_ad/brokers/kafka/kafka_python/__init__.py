"""The client kafka-python, used below its API; see ``client_api.Client``."""

from stream_ad.brokers.kafka.kafka_python.consumer import open_consumer
from stream_ad.brokers.kafka.kafka_python.producer import open_producer

__all__ = ["open_consumer", "open_producer"]
