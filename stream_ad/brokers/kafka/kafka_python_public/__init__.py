"""The client kafka-python over its public interface alone; see ``client_api.Client`` and ``private_names``."""

from stream_ad.brokers.kafka.kafka_python_public.consumer import open_consumer
from stream_ad.brokers.kafka.kafka_python_public.producer import open_producer

__all__ = ["open_consumer", "open_producer"]
