"""Both ends of a load on a broker: readings go in at one, scores come out at the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from stream_ad.brokers import open_producer, open_reader
from stream_ad.brokers.worker_api import InputTopic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ad.records.columns import OutRecord
    from stream_ad.settings import Settings


class KafkaIn:
    """Sends readings to Kafka."""

    def __init__(self, settings: Settings) -> None:
        self._producer = Producer({"bootstrap.servers": settings.broker.bootstrap_servers, "linger.ms": 2})
        self._topic = settings.topics.events

    def send(self, records: Sequence[OutRecord]) -> int:
        """Send records; return how many were accepted."""
        for sent, (key, value, time_ms, _) in enumerate(records):
            try:
                self._producer.produce(self._topic, value, key, timestamp=time_ms)
            except BufferError:  # Kafka takes no more than that
                self._producer.poll(0)
                return sent
        self._producer.poll(0)
        return len(records)

    def close(self) -> None:
        """Wait until everything is sent."""
        self._producer.flush()


class KafkaOut:
    """Reads scores of the first partition from Kafka, from the beginning."""

    def __init__(self, settings: Settings) -> None:
        servers = settings.broker.bootstrap_servers
        self._consumer = Consumer(
            {"bootstrap.servers": servers, "group.id": "reader", "isolation.level": "read_committed"}
        )
        self._consumer.assign([TopicPartition(settings.topics.scores, 0, OFFSET_BEGINNING)])

    def read(self, timeout_s: float) -> list[bytes]:
        """Return the scores committed since the last call."""
        messages = self._consumer.consume(1, timeout_s)
        messages += self._consumer.consume(10_000, 0)
        return [message.value() or b"" for message in messages if message.error() is None]

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()


class EmbeddedIn:
    """Sends readings to the embedded broker; see ``KafkaIn``."""

    def __init__(self, settings: Settings) -> None:
        self._producer = open_producer(settings)
        self.close = self._producer.close

    def send(self, records: Sequence[OutRecord]) -> int:
        """Send records; return how many were accepted, which is all."""
        if records:
            self._producer.send(InputTopic.EVENTS, records)
        return len(records)


class EmbeddedOut:
    """Reads scores from the embedded broker; see ``KafkaOut``."""

    def __init__(self, settings: Settings) -> None:
        self._reader, self._topic = open_reader(settings), settings.topics.scores
        self.close = self._reader.close

    def read(self, timeout_s: float) -> list[bytes]:
        """Return the scores committed since the last call."""
        return [value or b"" for _, value in self._reader.read(self._topic, timeout_s=timeout_s)]


def load_end(settings: Settings) -> Any:
    """Return where readings go in."""
    return KafkaIn(settings) if settings.broker.kind == "kafka" else EmbeddedIn(settings)


def score_end(settings: Settings) -> Any:
    """Return where scores come out."""
    return KafkaOut(settings) if settings.broker.kind == "kafka" else EmbeddedOut(settings)
