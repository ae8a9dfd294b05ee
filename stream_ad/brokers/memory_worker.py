"""The part of the broker in memory that workers see, and what it stores."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from stream_ad.brokers.base import Fetched, Positions, Side, Snapshot, Stored
from stream_ad.columns import OutRecord, RawRecords
from stream_ad.errors import BrokerError, FencedError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from stream_ad.brokers.base import Commit
    from stream_ad.settings import Settings

Point = Literal["poll", "load", "commit_before", "commit_after", "send", "flush"]
"""Where it can be made to fail."""
_KEPT_SNAPSHOTS = 3


class Clock(Protocol):
    """What passes in the place of waiting."""

    def advance(self, seconds: float) -> None: ...


@dataclass(slots=True)
class ShardState:
    """What the broker keeps of one shard for one application."""

    epoch: int = 0
    positions: Positions = field(default_factory=Positions)
    journal: list[Positions] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)


@dataclass(slots=True)
class Store:
    """What all endpoints share; take ``changed`` before touching anything else."""

    clock: Clock | None
    changed: threading.Condition = field(default_factory=lambda: threading.Condition(threading.RLock()))
    logs: defaultdict[tuple[str, int], list[OutRecord]] = field(default_factory=lambda: defaultdict(list))
    shards: defaultdict[tuple[str, int], ShardState] = field(default_factory=lambda: defaultdict(ShardState))
    failures: defaultdict[Point, list[BaseException | None]] = field(default_factory=lambda: defaultdict(list))

    def reach(self, point: Point) -> None:
        """Raise what the point was told to."""
        queue = self.failures[point]
        error = queue.pop(0) if queue else None
        if error is not None:
            raise error

    def append(self, topic: str, partition: int, records: Sequence[OutRecord]) -> None:
        self.logs[topic, partition].extend(records)
        self.changed.notify_all()

    def wait(self, timeout_s: float) -> None:
        """Wait for a change; with a clock of its own, time passes at once."""
        if self.clock is not None:
            self.clock.advance(timeout_s)
        elif timeout_s > 0:
            self.changed.wait(timeout_s)


class MemoryWorker:
    """See ``brokers.base.Broker``."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._application = settings.application_id
        self._topics = settings.topics
        self._owned = set(range(settings.topics.partitions))
        self._epochs: dict[int, int] = {}
        self._next: dict[tuple[int, Side], int] = {}

    def assigned(self) -> frozenset[int]:
        return frozenset(self._owned)

    def poll(
        self, *, timeout_s: float, max_records: int, hold: Collection[tuple[int, Side]] = ()
    ) -> dict[int, dict[Side, Fetched]]:
        with self._store.changed:
            self._store.reach("poll")
            fetched = self._read(max_records, hold)
            if not any(len(one.records) for sides in fetched.values() for one in sides.values()):
                self._store.wait(timeout_s)
                fetched = self._read(max_records, hold)
            return fetched

    def _read(self, max_records: int, hold: Collection[tuple[int, Side]]) -> dict[int, dict[Side, Fetched]]:
        share = max(1, max_records // max(1, len(self._next)))
        fetched: dict[int, dict[Side, Fetched]] = {}
        for (shard, side), start in self._next.items():
            topic = self._topic(side)
            log = self._store.logs[topic, shard]
            held = (shard, side) in hold
            some = [] if held else log[start : start + share]
            self._next[shard, side] = start + len(some)
            records = RawRecords(
                topic,
                shard,
                np.arange(start, start + len(some), dtype=np.int64),
                np.array([record.time_ms for record in some], dtype=np.int64),
                [record.key for record in some],
                [record.value for record in some],
            )
            fetched.setdefault(shard, {})[side] = Fetched(records, not held and start + len(some) == len(log))
        return fetched

    def load(self, shard: int) -> Stored:
        with self._store.changed:
            self._must_own(shard)
            self._store.reach("load")
            state = self._store.shards[self._application, shard]
            state.epoch += 1
            self._epochs[shard] = state.epoch
            snapshot = state.snapshots[-1] if state.snapshots else None
            journal = state.journal if snapshot is None else [m for m in state.journal if m > snapshot.positions]
            return Stored(state.positions, snapshot, tuple(journal))

    def seek(self, shard: int, positions: Positions) -> None:
        with self._store.changed:
            self._must_own(shard)
            for side in Side:
                offset, topic = getattr(positions, side.value), self._topic(side)
                if not 0 <= offset <= len(self._store.logs[topic, shard]):
                    raise BrokerError(f"{topic}[{shard}] has no offset {offset}.")
                self._next[shard, side] = offset

    def commit(self, commit: Commit) -> None:
        store, shard = self._store, commit.shard
        with store.changed:
            if shard not in self._epochs:
                raise BrokerError(f"Shard {shard} was not loaded.", hint="Load it before the first commit.")
            state = store.shards[self._application, shard]
            if state.epoch != self._epochs[shard]:
                self._drop(shard)
                raise FencedError(f"Shard {shard} of {self._application} belongs to another worker now.")
            store.reach("commit_before")
            store.append(self._topics.scores, shard, commit.scores)
            store.append(self._topics.incidents, shard, commit.incidents)
            store.append(self._topics.dead_letters, shard, commit.dead_letters)
            state.positions = commit.positions
            state.journal += [mark for mark in commit.marks if not state.journal or mark > state.journal[-1]]
            if commit.snapshot is not None:
                state.snapshots = [*state.snapshots, Snapshot(commit.positions, commit.snapshot)][-_KEPT_SNAPSHOTS:]
                state.journal = [mark for mark in state.journal if mark > state.snapshots[0].positions]
            store.reach("commit_after")

    def lag(self) -> dict[int, dict[Side, int]]:
        with self._store.changed:
            return {
                shard: {
                    side: len(self._store.logs[self._topic(side), shard]) - self._position(shard, side) for side in Side
                }
                for shard in self._owned
            }

    def close(self) -> None:
        for shard in tuple(self._owned):
            self._drop(shard)

    def _position(self, shard: int, side: Side) -> int:
        committed = self._store.shards[self._application, shard].positions
        return self._next.get((shard, side), int(getattr(committed, side.value)))

    def _topic(self, side: Side) -> str:
        return self._topics.events if side is Side.EVENTS else self._topics.labels

    def _must_own(self, shard: int) -> None:
        if shard not in self._owned:
            raise BrokerError(f"Shard {shard} is not owned by this worker.", hint="Owned ones: see assigned().")

    def _drop(self, shard: int) -> None:
        self._owned.discard(shard)
        self._epochs.pop(shard, None)
        for side in Side:
            self._next.pop((shard, side), None)
