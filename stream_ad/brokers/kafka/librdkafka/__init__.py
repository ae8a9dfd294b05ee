"""The client librdkafka through confluent-kafka; see ``client_api.Client``."""

from stream_ad.brokers.kafka.librdkafka.consumer import open_consumer
from stream_ad.brokers.kafka.librdkafka.producer import open_producer

__all__ = ["open_consumer", "open_producer"]
