"""The embedded broker: topics, offsets and state in one SQLite file.

Any number of processes may produce while a worker reads. A shard belongs to the worker that holds its lock
(``shard_lock``). A commit is one SQL transaction:

1. Set the offsets of the shard, provided that its epoch is still that of this worker's ``load``; else the commit is
   fenced. This refuses an earlier owner even where its lock was lost (a deleted lock file, a network disk without
   locks).
2. Append scores, incidents and dead letters.
3. Add the step boundaries to the journal.
4. Write the snapshot or its next chunk and, when that completes a snapshot, drop what it supersedes and expire records.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from stream_ad.brokers.commit_handle import CompletedCommit
from stream_ad.brokers.snapshot_retention import for_replay, must_rebuild, require_offset
from stream_ad.brokers.sqlite import state_tables as sqlite_state
from stream_ad.brokers.sqlite.database import OFFSET_BITS, OFFSET_MASK, Database
from stream_ad.brokers.sqlite.shard_lock import PROBE_S, ShardLock
from stream_ad.brokers.worker_api import Fetched, InputOffsets, InputTopic, ShardCheckpoint, Snapshot
from stream_ad.errors import BrokerError, FencedError, ShardBusyError
from stream_ad.records.columns import RawRecords

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from stream_ad.brokers.worker_api import Commit, KeptSnapshot
    from stream_ad.settings import Settings

_BUSY_RETRY_S = (0.02, 2.0)  # between attempts to take shards that another process has locked: shortest, longest
POLL_BYTES = 64 * 1024 * 1024  # of one input of a shard; bounds memory when records are huge

Input = tuple[int, InputTopic]


def share(available: dict[Input, int], budget: int) -> dict[Input, int]:
    """Divide a budget of records among inputs, so that none starves and little of it is left unused.

    Args:
        available: Number of unread records by input.
        budget: Number of records to return in all.
    """
    shares = {}
    for left, key in zip(range(len(available), 0, -1), sorted(available, key=available.__getitem__), strict=True):
        shares[key] = min(available[key], max(1, budget // left))
        budget -= shares[key]
    return shares


class SqliteBroker:
    """See ``worker_api.Broker``. Takes every shard that is free when it opens, and others once they become free.

    Raises:
        ShardBusyError: No shard is free.
    """

    def __init__(self, settings: Settings) -> None:
        self._application = settings.application_id
        self._topics = settings.topics
        self._inputs = {InputTopic.EVENTS: settings.topics.events, InputTopic.LABELS: settings.topics.labels}
        self._database = Database(settings)
        self._state = sqlite_state.StateTables(self._database, settings)
        self._locks: dict[int, ShardLock] = {}
        self._busy: dict[int, ShardLock] = {}
        self._busy_due, self._busy_pause = 0.0, _BUSY_RETRY_S[0]
        self._epochs: dict[int, int] = {}
        self._next: dict[Input, int] = {}
        self._reported_drained: set[Input] = set()
        try:
            shards = range(self._topics.partitions)
            self._busy = {shard: ShardLock(self._database.path, self._application, shard) for shard in shards}
            self._lock_free_shards()
        except BaseException:
            self.close()
            raise

    def _lock_free_shards(self) -> None:
        deadline = time.monotonic() + PROBE_S
        self._try_busy_shards()
        while not self._locks and time.monotonic() < deadline:
            time.sleep(_BUSY_RETRY_S[0])
            self._try_busy_shards()
        if not self._locks:
            raise ShardBusyError(
                f"All shards of {self._application} in {self._database.path} are held by {self._busy[0].owner()}.",
                hint="Stop that worker first, or run this one under another application_id; "
                "to share the work among several workers use broker.kind=kafka.",
            )

    def _try_busy_shards(self) -> None:
        for shard, lock in tuple(self._busy.items()):
            if lock.acquire():
                self._locks[shard] = self._busy.pop(shard)

    def awaited(self) -> dict[int, str]:
        """See ``worker_api.Awaiting``."""
        return {shard: f"locked by {lock.owner()}" for shard, lock in self._busy.items()}

    @property
    def chunk_bytes(self) -> int:
        """See ``Broker.chunk_bytes``."""
        return sqlite_state.CHUNK_BYTES

    def assigned(self) -> frozenset[int]:
        """See ``Broker.assigned``."""
        return frozenset(self._locks)

    def poll(
        self, *, timeout_s: float, max_records: int, paused: Collection[tuple[int, InputTopic]] = ()
    ) -> dict[int, dict[InputTopic, Fetched]]:
        """See ``Broker.poll``.

        Raises:
            ShardBusyError: Another worker has taken over every shard.
        """
        if not self._locks:
            raise ShardBusyError(
                f"Another worker has taken over every shard of {self._application} in {self._database.path}.",
                hint="Let only one worker run on an embedded broker, and leave its .lock files alone.",
            )
        if self._busy and time.monotonic() >= self._busy_due:
            self._try_busy_shards()
            pause, longest = self._busy_pause, _BUSY_RETRY_S[1]
            self._busy_due, self._busy_pause = time.monotonic() + pause, min(2 * pause, longest)
        deadline = time.monotonic() + timeout_s
        while True:
            version = self._database.data_version()  # read first: any later commit ends the wait below
            fetched = self._read(max_records, paused)
            drained = {(shard, side) for shard in fetched for side in InputTopic if fetched[shard][side].drained}
            news = drained - self._reported_drained or any(
                len(fetched[s][side].records) for s in fetched for side in InputTopic
            )
            if news or not fetched or not self._database.wait_for_change(version, deadline):
                self._reported_drained = drained
                return fetched

    def _read(self, max_records: int, paused: Collection[Input]) -> dict[int, dict[InputTopic, Fetched]]:
        heads = self._database.heads()
        ends = {key: heads[self._database.logs[self._inputs[key[1]], key[0]]] for key in self._next}
        shares = share({key: end - self._next[key] for key, end in ends.items() if key not in paused}, max_records)
        fetched: dict[int, dict[InputTopic, Fetched]] = {}
        for (shard, side), end in ends.items():
            records = self._records(shard, side, shares.get((shard, side), 0))
            next_offset = int(records.offsets[-1]) + 1 if len(records) else self._next[shard, side]
            drained = (shard, side) not in paused and next_offset >= end
            fetched.setdefault(shard, {})[side] = Fetched(records, drained)
        for shard, sides in fetched.items():  # only after all were read: an error would otherwise lose records
            for side, batch in sides.items():
                if len(batch.records):
                    self._next[shard, side] = int(batch.records.offsets[-1]) + 1
        return fetched

    def _records(self, shard: int, side: InputTopic, limit: int) -> RawRecords:
        topic = self._inputs[side]
        if limit == 0:
            return RawRecords.empty(topic, shard)
        base = self._database.logs[topic, shard] << OFFSET_BITS
        rows: list[tuple[int, int, bytes | None, bytes | None]] = []
        size = 0
        with self._database.errors():
            cursor = self._database.cursor(
                "SELECT id, time_ms, key, value FROM records WHERE id >= ? AND id <= ? ORDER BY id LIMIT ?",
                base | self._next[shard, side],
                base | OFFSET_MASK,
                limit,
            )
            while size < POLL_BYTES and (fetched := cursor.fetchmany(64)):
                rows += fetched
                size += sum(len(row[3]) for row in fetched if row[3] is not None)
        if not rows or rows[0][0] != base | self._next[shard, side]:
            bounds = self._database.oldest(topic, shard), self._database.heads()[base >> OFFSET_BITS]
            require_offset(shard, topic, self._next[shard, side], bounds)
        ids, times, keys, values = zip(*rows, strict=True)
        offsets = np.array(ids, dtype=np.int64) & OFFSET_MASK
        return RawRecords(topic, shard, offsets, np.array(times, dtype=np.int64), keys, values)

    def load(self, shard: int, *, older_than: int | None = None) -> ShardCheckpoint:
        """See ``Broker.load``."""
        self._must_own(shard)
        with self._database.write():
            self._epochs[shard], committed = self._state.take_over(shard)
            kept = self._state.kept(shard)
            usable = for_replay(kept, committed, older_than) if kept else []
            snapshot = self._newest_whole(shard, usable)
            step_boundaries = self._state.journal(shard)
            if committed == InputOffsets() and not kept and not step_boundaries:  # nothing was ever committed
                committed, _ = self.bounds(shard)
        if snapshot is None and must_rebuild(shard, kept, self.bounds(shard)[0]):
            return ShardCheckpoint(committed, rebuild=True)
        since = (boundary for boundary in step_boundaries if snapshot is None or boundary > snapshot.positions)
        return ShardCheckpoint(committed, snapshot, tuple(since))

    def _newest_whole(self, shard: int, usable: Sequence[KeptSnapshot]) -> Snapshot | None:
        for snapshot in usable:
            if (data := self._state.data(shard, snapshot.number)) is not None:
                return Snapshot(snapshot.positions, data, snapshot.number)
        return None

    def seek(self, shard: int, positions: InputOffsets) -> None:
        """See ``Broker.seek``."""
        self._must_own(shard)
        oldest, ends = self.bounds(shard)
        for side in InputTopic:
            require_offset(shard, self._inputs[side], positions.of(side), (oldest.of(side), ends.of(side)))
            self._next[shard, side] = int(positions.of(side))
            self._reported_drained.discard((shard, side))

    def bounds(self, shard: int) -> tuple[InputOffsets, InputOffsets]:
        """See ``Broker.bounds``."""
        return self._state.bounds(shard)

    def commit(self, commit: Commit) -> None:
        """See ``Broker.commit``."""
        if (epoch := self._epochs.get(commit.shard)) is None:
            raise BrokerError(f"Shard {commit.shard} was not loaded.", hint="Load it before the first commit.")
        with self._database.write():
            if not self._state.move(commit.shard, commit.positions, epoch):
                self._drop(commit.shard)
                raise FencedError(f"Shard {commit.shard} of {self._application} belongs to another worker now.")
            self._database.append(self._topics.scores, commit.shard, commit.scores)
            self._database.append(self._topics.incidents, commit.shard, commit.incidents)
            self._database.append(self._topics.dead_letters, commit.shard, commit.dead_letters)
            self._state.add_boundaries(commit.shard, commit.step_boundaries)
            if (chunk := commit.chunk_to_write) is not None:
                self._state.save(commit.shard, chunk, commit.lineage_reason)

    def begin(self, commit: Commit) -> CompletedCommit:
        """See ``Broker.begin``."""
        self.commit(commit)
        return CompletedCommit()

    def lag(self) -> dict[int, dict[InputTopic, int]]:
        """See ``Broker.lag``."""
        heads = self._database.heads()
        committed = self._state.all_positions()
        return {
            shard: {
                side: heads[self._database.logs[self._inputs[side], shard]]
                - self._next.get((shard, side), committed.get(shard, InputOffsets()).of(side))
                for side in InputTopic
            }
            for shard in self._locks
        }

    def close(self) -> None:
        """See ``Broker.close``."""
        for shard in tuple(self._locks):
            self._drop(shard)
        self._database.close()

    def _drop(self, shard: int) -> None:
        self._locks.pop(shard).release()
        self._epochs.pop(shard, None)
        for side in InputTopic:
            self._next.pop((shard, side), None)

    def _must_own(self, shard: int) -> None:
        if shard not in self._locks:
            raise BrokerError(
                f"Shard {shard} is not owned by this worker.", hint="assigned() returns the owned shards."
            )
