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

    def read_records(self, topic: str, *, timeout_s: float = 0.0) -> list[OutRecord]:
        """See ``Reader.read_records``."""
        with self._store.changed:
            if topic not in self._store.topics:
                raise TopicError(
                    f"There is no topic {topic} in this broker in memory.",
                    hint="Check the names in the section topics.",
                )
            records = self._new(topic)
            if not records:
                self._store.wait(timeout_s)
                records = self._new(topic)
            return records

    def _new(self, topic: str) -> list[OutRecord]:
        new: list[OutRecord] = []
        for key in ((topic, partition) for partition in range(self._store.topics[topic])):
            log = self._store.logs[key]
            new += log[self._next[key] :]
            self._next[key] = len(log)
        return new

    def close(self) -> None:
        """Do nothing: nothing is kept open."""
