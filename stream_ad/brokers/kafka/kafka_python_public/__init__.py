"""The client kafka-python over its public interface alone, as ``kafka_clients.Client``; see kafka_insides."""

from stream_ad.brokers.kafka.kafka_python_public.consumer import open_consumer
from stream_ad.brokers.kafka.kafka_python_public.producer import open_producer

__all__ = ["open_consumer", "open_producer"]
