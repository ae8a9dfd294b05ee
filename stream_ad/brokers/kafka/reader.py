"""The reader of output topics on Kafka."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kafka.errors import KafkaError

from stream_ad.brokers.kafka.connection import errors
from stream_ad.brokers.kafka.hanging_transactions import MARK_HEADER
from stream_ad.brokers.kafka.partition_reader import PartitionReader
from stream_ad.errors import BrokerError
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

    def read_records(self, topic: str, *, timeout_s: float = 0.0, limit: int | None = None) -> list[OutRecord]:
        """See ``Reader.read_records``."""
        records: list[Any] = []
        with errors(self._settings, f"reading {topic}"):
            try:
                records.extend(self._reader(topic).read(timeout_s=timeout_s, limit=limit))
            except (KafkaError, BrokerError):
                if not records:  # else they would be lost; the next call raises it again
                    raise
        records.sort(key=lambda record: (record.partition, record.offset))
        return [OutRecord(record.key, record.value, record.timestamp, _headers(record)) for record in records]

    def seek_to_time(self, topic: str, time_ms: int) -> None:
        """See ``Reader.seek_to_time``."""
        with errors(self._settings, f"looking up a time in {topic}"):
            self._reader(topic).seek_to_time(time_ms)

    def seek_to_newest(self, topic: str, count: int) -> None:
        """See ``Reader.seek_to_newest``."""
        with errors(self._settings, f"looking up the end of {topic}"):
            self._reader(topic).seek_to_newest(count)

    def _reader(self, topic: str) -> PartitionReader:
        if topic not in self._readers:
            self._readers[topic] = PartitionReader(self._settings, topic)
        return self._readers[topic]

    def close(self) -> None:
        """See ``Reader.close``."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()


def _headers(record: Any) -> tuple[tuple[str, bytes], ...]:
    """Return the headers of a record without the commit marker."""
    return tuple((name, value) for name, value in record.headers or () if name != MARK_HEADER)
