"""The client kafka-python, as ``kafka_clients.Client``."""

from stream_ad.brokers.kafka_batches import open_producer
from stream_ad.brokers.kafka_consumer import open_consumer

__all__ = ["open_consumer", "open_producer"]
