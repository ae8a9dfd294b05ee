"""A worker's broker in memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from stream_ad.brokers.commit_handle import CompletedCommit
from stream_ad.brokers.memory.store import refuse_unwritable
from stream_ad.brokers.snapshot_retention import must_rebuild, require_offset
from stream_ad.brokers.worker_api import Fetched, InputOffsets, InputTopic, ShardCheckpoint
from stream_ad.errors import BrokerError, FencedError, ShardBusyError
from stream_ad.records.columns import RawRecords

if TYPE_CHECKING:
    from collections.abc import Collection

    from stream_ad.brokers.memory.store import Store
    from stream_ad.brokers.worker_api import Commit
    from stream_ad.settings import Settings

Input = tuple[int, InputTopic]


class MemoryWorker:
    """See ``worker_api.Broker``."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._application = settings.application_id
        self._topics = settings.topics
        self._epochs: dict[int, int] = {}
        self._next: dict[Input, int] = {}
        self._reported_drained: set[Input] = set()
        store.make_topics(settings)
        shards = range(settings.topics.partitions)
        with store.changed:
            self._owned = {shard for shard in shards if (self._application, shard) not in store.owners}
            if not self._owned:
                raise ShardBusyError(
                    f"All shards of {self._application} in this broker in memory are held by process {os.getpid()}.",
                    hint="Close the worker before, or call MemoryBroker.abandon_workers() as if it were dead.",
                )
            store.owners |= {(self._application, shard): self for shard in self._owned}

    @property
    def chunk_bytes(self) -> int:
        """See ``Broker.chunk_bytes``."""
        return self._store.chunk_bytes

    def assigned(self) -> frozenset[int]:
        """See ``Broker.assigned``."""
        return frozenset(self._owned)

    def poll(
        self, *, timeout_s: float, max_records: int, paused: Collection[tuple[int, InputTopic]] = ()
    ) -> dict[int, dict[InputTopic, Fetched]]:
        """See ``Broker.poll``."""
        with self._store.changed:
            self._store.reach("poll")
            fetched = self._read(max_records, paused)
            if fetched and not self._news(fetched):
                self._store.wait(timeout_s)
                fetched = self._read(max_records, paused)
            self._reported_drained = _drained(fetched)
            return fetched

    def _news(self, fetched: dict[int, dict[InputTopic, Fetched]]) -> bool:
        """Return whether there is anything to report: a record, or an input that has newly drained."""
        return bool(_drained(fetched) - self._reported_drained) or any(
            len(batch.records) for sides in fetched.values() for batch in sides.values()
        )

    def _read(
        self, max_records: int, paused: Collection[tuple[int, InputTopic]]
    ) -> dict[int, dict[InputTopic, Fetched]]:
        share = max(1, max_records // max(1, len(self._next)))
        fetched: dict[int, dict[InputTopic, Fetched]] = {}
        for (shard, side), start in self._next.items():
            topic = self._topic(side)
            log = self._store.logs[topic, shard]
            require_offset(shard, topic, start, (self._store.oldest[topic, shard], len(log)))
            is_paused = (shard, side) in paused
            batch = [] if is_paused else log[start : start + share]
            records = RawRecords(
                topic,
                shard,
                np.arange(start, start + len(batch), dtype=np.int64),
                np.array([record.time_ms for record in batch], dtype=np.int64),
                [record.key for record in batch],
                [record.value for record in batch],
            )
            fetched.setdefault(shard, {})[side] = Fetched(records, not is_paused and start + len(batch) == len(log))
        for shard, sides in fetched.items():  # only after all were read: an error would otherwise lose records
            for side, fetched_input in sides.items():
                self._next[shard, side] += len(fetched_input.records)
        return fetched

    def load(self, shard: int, *, older_than: int | None = None) -> ShardCheckpoint:
        """See ``Broker.load``."""
        with self._store.changed:
            self._must_own(shard)
            self._store.reach("load")
            state = self._store.shards[self._application, shard]
            state.epoch += 1
            state.partial_snapshot = None
            self._epochs[shard] = state.epoch
            oldest, _ = self.bounds(shard)
            committed = state.positions or oldest
            snapshot = state.newest_whole(older_than)
            if snapshot is None and must_rebuild(shard, state.kept, oldest):
                return ShardCheckpoint(committed, rebuild=True)
            journal = (boundary for boundary in state.journal if snapshot is None or boundary > snapshot.positions)
            return ShardCheckpoint(committed, snapshot, tuple(journal))

    def seek(self, shard: int, positions: InputOffsets) -> None:
        """See ``Broker.seek``."""
        with self._store.changed:
            self._must_own(shard)
            oldest, ends = self.bounds(shard)
            for side in InputTopic:
                require_offset(shard, self._topic(side), positions.of(side), (oldest.of(side), ends.of(side)))
                self._next[shard, side] = int(positions.of(side))
                self._reported_drained.discard((shard, side))

    def bounds(self, shard: int) -> tuple[InputOffsets, InputOffsets]:
        """See ``Broker.bounds``."""
        return self._store.bounds(self._topics, shard)

    def commit(self, commit: Commit) -> None:
        """See ``Broker.commit``."""
        store, shard = self._store, commit.shard
        with store.changed:
            if shard not in self._epochs:
                raise BrokerError(f"Shard {shard} was not loaded.", hint="Load it before the first commit.")
            state = store.shards[self._application, shard]
            if state.epoch != self._epochs[shard]:
                self._drop(shard)
                raise FencedError(f"Shard {shard} of {self._application} belongs to another worker now.")
            store.reach("commit_before")
            outputs = {
                self._topics.scores: commit.scores,
                self._topics.incidents: commit.incidents,
                self._topics.dead_letters: commit.dead_letters,
            }
            for records in outputs.values():
                refuse_unwritable(records)
            for topic, records in outputs.items():
                store.append(topic, shard, records)
            state.save(commit, self._settings)
            store.reach("commit_after")

    def begin(self, commit: Commit) -> CompletedCommit:
        """See ``Broker.begin``."""
        self.commit(commit)
        return CompletedCommit()

    def lag(self) -> dict[int, dict[InputTopic, int]]:
        """See ``Broker.lag``."""
        with self._store.changed:
            return {
                shard: {
                    side: len(self._store.logs[self._topic(side), shard]) - self._position(shard, side)
                    for side in InputTopic
                }
                for shard in self._owned
            }

    def close(self) -> None:
        """See ``Broker.close``."""
        with self._store.changed:
            for shard in tuple(self._owned):
                self._drop(shard)

    def _position(self, shard: int, side: InputTopic) -> int:
        committed = self._store.shards[self._application, shard].positions or InputOffsets()
        return self._next.get((shard, side), committed.of(side))

    def _topic(self, side: InputTopic) -> str:
        return self._topics.events if side is InputTopic.EVENTS else self._topics.labels

    def _must_own(self, shard: int) -> None:
        if shard not in self._owned:
            raise BrokerError(
                f"Shard {shard} is not owned by this worker.", hint="assigned() returns the owned shards."
            )

    def _drop(self, shard: int) -> None:
        self._owned.discard(shard)
        if self._store.owners.get((self._application, shard)) is self:
            del self._store.owners[self._application, shard]
        self._epochs.pop(shard, None)
        for side in InputTopic:
            self._next.pop((shard, side), None)


def _drained(fetched: dict[int, dict[InputTopic, Fetched]]) -> set[Input]:
    return {(shard, side) for shard, sides in fetched.items() for side, batch in sides.items() if batch.drained}
