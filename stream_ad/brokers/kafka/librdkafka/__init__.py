"""The client librdkafka through confluent-kafka, as ``kafka_clients.Client``."""

from stream_ad.brokers.kafka.librdkafka.consumer import open_consumer
from stream_ad.brokers.kafka.librdkafka.producer import open_producer

__all__ = ["open_consumer", "open_producer"]
