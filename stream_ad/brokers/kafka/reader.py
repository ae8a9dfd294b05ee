"""The reader of output topics on Kafka."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ad.brokers.kafka.connection import errors
from stream_ad.brokers.kafka.hanging_transactions import MARK_HEADER
from stream_ad.brokers.kafka.partition_reader import PartitionReader
from stream_ad.records.columns import OutRecord

if TYPE_CHECKING:
    from stream_ad.settings import Settings


class KafkaReader:
    """See ``tools_api.Reader``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._readers: dict[str, PartitionReader] = {}

    def read(self, topic: str, *, timeout_s: float = 0.0) -> list[tuple[bytes | None, bytes | None]]:
        """See ``Reader.read``."""
        return [(record.key, record.value) for record in self.read_records(topic, timeout_s=timeout_s)]

    def read_records(self, topic: str, *, timeout_s: float = 0.0) -> list[OutRecord]:
        """See ``Reader.read_records``."""
        with errors(self._settings, f"reading {topic}"):
            if topic not in self._readers:
                self._readers[topic] = PartitionReader(self._settings, topic)
            records = sorted(
                self._readers[topic].read(timeout_s=timeout_s), key=lambda record: (record.partition, record.offset)
            )
        return [OutRecord(record.key, record.value, record.timestamp, _headers(record)) for record in records]

    def close(self) -> None:
        """See ``Reader.close``."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()


def _headers(record: Any) -> tuple[tuple[str, bytes], ...]:
    """Return the headers of a record without the commit marker."""
    return tuple((name, value) for name, value in record.headers or () if name != MARK_HEADER)
