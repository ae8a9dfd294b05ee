"""The reader of output topics of the broker in memory."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from stream_ad.errors import TopicError

if TYPE_CHECKING:
    from stream_ad.brokers.memory.store import Store
    from stream_ad.records.columns import OutRecord
    from stream_ad.settings import Settings


class MemoryReader:
    """See ``tools_api.Reader``."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        store.make_topics(settings)
        self._next: defaultdict[tuple[str, int], int] = defaultdict(int)

    def read(self, topic: str, *, timeout_s: float = 0.0) -> list[tuple[bytes | None, bytes | None]]:
        """See ``Reader.read``."""
        return [(record.key, record.value) for record in self.read_records(topic, timeout_s=timeout_s)]

    def read_records(self, topic: str, *, timeout_s: float = 0.0, limit: int | None = None) -> list[OutRecord]:
        """See ``Reader.read_records``."""
        with self._store.changed:
            records = self._new(topic, limit)
            if not records:
                self._store.wait(timeout_s)
                records = self._new(topic, limit)
            return records

    def seek_to_time(self, topic: str, time_ms: int) -> None:
        """See ``Reader.seek_to_time``."""
        with self._store.changed:
            for key in self._partitions(topic):
                log = self._store.logs[key]
                later = (offset for offset, record in enumerate(log) if record.time_ms >= time_ms)
                self._next[key] = next(later, len(log))

    def seek_to_newest(self, topic: str, count: int) -> None:
        """See ``Reader.seek_to_newest``."""
        with self._store.changed:
            for key in self._partitions(topic):
                self._next[key] = max(0, len(self._store.logs[key]) - count)

    def _partitions(self, topic: str) -> list[tuple[str, int]]:
        if topic not in self._store.topics:
            raise TopicError(
                f"There is no topic {topic} in this broker in memory.", hint="Check the names in the section topics."
            )
        return [(topic, partition) for partition in range(self._store.topics[topic])]

    def _new(self, topic: str, limit: int | None) -> list[OutRecord]:
        new: list[OutRecord] = []
        for key in self._partitions(topic):
            log, start = self._store.logs[key], self._next[key]
            self._next[key] = len(log) if limit is None else min(start + limit, len(log))
            new += log[start : self._next[key]]
        return new

    def close(self) -> None:
        """Do nothing: nothing is kept open."""
