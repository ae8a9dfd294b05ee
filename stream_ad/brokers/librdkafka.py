"""The client librdkafka through confluent-kafka, as ``kafka_clients.Client``."""

from stream_ad.brokers.librdkafka_consumer import open_consumer
from stream_ad.brokers.librdkafka_producer import open_producer

__all__ = ["open_consumer", "open_producer"]
