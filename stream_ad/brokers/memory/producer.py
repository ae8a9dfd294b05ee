"""The producer of input records of the broker in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ad.brokers.memory.store import Store, refuse_unwritable
from stream_ad.brokers.partitioner import partition_for
from stream_ad.brokers.worker_api import InputTopic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ad.records.columns import OutRecord
    from stream_ad.settings import Settings


class MemoryProducer:
    """See ``tools_api.Producer``."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._topics = settings.topics
        store.make_topics(settings)

    def send(self, side: InputTopic, records: Sequence[OutRecord]) -> None:
        """See ``Producer.send``."""
        topic = self._topics.events if side is InputTopic.EVENTS else self._topics.labels
        with self._store.changed:
            self._store.reach("send")
            refuse_unwritable(records)
            for record in records:
                self._store.append(topic, partition_for(record.key, self._topics.partitions), [record])

    def flush(self) -> None:
        """See ``Producer.flush``."""
        self._store.reach("flush")

    def close(self) -> None:
        """Do nothing: nothing is kept open."""
