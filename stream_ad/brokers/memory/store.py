"""What a broker in memory stores, shared by all that it hands out."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from stream_ad.brokers.snapshot_retention import following, for_replay, journal_floor, superseded
from stream_ad.brokers.worker_api import InputOffsets, Snapshot
from stream_ad.errors import BrokerError, TopicError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ad.brokers.worker_api import Commit, KeptSnapshot, SnapshotChunk
    from stream_ad.records.columns import OutRecord
    from stream_ad.settings import Settings, TopicSettings

Point = Literal["poll", "load", "commit_before", "commit_after", "send", "flush"]
"""Where it can be made to fail."""
ROLES = ("events", "labels", "scores", "incidents", "dead_letters")
"""Topics that it keeps; the state stands beside them."""


class Clock(Protocol):
    """What passes in the place of waiting."""

    def advance(self, seconds: float) -> None: ...


@dataclass(slots=True)
class ShardState:
    """What is kept of one shard for one application."""

    epoch: int = 0
    positions: InputOffsets | None = None  # before the first commit
    journal: list[InputOffsets] = field(default_factory=list)
    kept: list[KeptSnapshot] = field(default_factory=list)
    data: dict[int, bytes | None] = field(default_factory=dict)  # by number; None: damaged
    begun: bytes | None = None  # of a snapshot of which parts are still to come

    def newest_whole(self, older_than: int | None) -> Snapshot | None:
        usable = for_replay(self.kept, self.positions or InputOffsets(), older_than) if self.kept else []
        whole = ((one, data) for one in usable if (data := self.data[one.number]) is not None)
        return next((Snapshot(one.positions, data, one.number) for one, data in whole), None)

    def save(self, commit: Commit, settings: Settings) -> None:
        self.positions = commit.positions
        self.journal += [mark for mark in commit.step_boundaries if not self.journal or mark > self.journal[-1]]
        if (piece := commit.piece) is not None:
            self.go_on(piece, commit.lineage_reason, settings)

    def go_on(self, part: SnapshotChunk, lineage_reason: str, settings: Settings) -> None:
        """Add a part of a snapshot to those before it."""
        begun = b"" if part.start == 0 else self.begun
        if begun is None or begun != part.data[: part.start]:
            raise BrokerError("This part of a snapshot does not follow the one before.")
        self.begun = begun + part.data[part.start : part.stop]
        if part.last:
            self.add(part.positions, self.begun, lineage_reason, settings)
            self.begun = None

    def add(self, positions: InputOffsets, data: bytes, lineage_reason: str, settings: Settings) -> KeptSnapshot:
        """Keep a snapshot, and drop what is of no use beside it."""
        now_ms = int(time.time() * 1000)
        new = following(
            self.kept, positions=positions, lineage_reason=lineage_reason, saved_ms=now_ms, size_bytes=len(data)
        )
        self.kept.append(new)
        self.data[new.number] = data
        for one in superseded(self.kept, settings):
            self.drop(one)
        if lineage_reason:
            self.journal = []
        elif (floor := journal_floor(self.kept)) is not None:
            self.journal = [mark for mark in self.journal if mark > floor]
        return new

    def drop(self, one: KeptSnapshot) -> None:
        self.kept.remove(one)
        del self.data[one.number]


@dataclass(slots=True)
class Store:
    """Take ``changed`` before touching anything else."""

    clock: Clock | None
    chunk_bytes: int
    changed: threading.Condition = field(default_factory=lambda: threading.Condition(threading.RLock()))
    topics: dict[str, int] = field(default_factory=dict)  # name: partitions
    oldest: defaultdict[tuple[str, int], int] = field(
        default_factory=lambda: defaultdict(int)
    )  # records before are gone
    logs: defaultdict[tuple[str, int], list[OutRecord]] = field(default_factory=lambda: defaultdict(list))
    shards: defaultdict[tuple[str, int], ShardState] = field(default_factory=lambda: defaultdict(ShardState))
    owners: dict[tuple[str, int], object] = field(default_factory=dict)
    failures: defaultdict[Point, list[BaseException | None]] = field(default_factory=lambda: defaultdict(list))

    def make_topics(self, settings: Settings) -> None:
        """Make the settings' topics where they are missing.

        Raises:
            TopicError: One of them, or another one of this broker, has another number of partitions.
        """
        wanted = settings.topics.partitions
        with self.changed:
            other = next((count for count in self.topics.values() if count != wanted), None)
            if other is not None:
                raise TopicError(
                    f"This broker in memory was made with {other} partitions, topics.partitions is {wanted}.",
                    hint="Use one MemoryBroker for each number of partitions.",
                )
            self.topics |= dict.fromkeys((getattr(settings.topics, role) for role in ROLES), wanted)

    def reach(self, point: Point) -> None:
        """Raise what the point was told to."""
        queue = self.failures[point]
        error = queue.pop(0) if queue else None
        if error is not None:
            raise error

    def append(self, topic: str, partition: int, records: Sequence[OutRecord]) -> None:
        self.logs[topic, partition].extend(records)
        self.changed.notify_all()

    def bounds(self, topics: TopicSettings, shard: int) -> tuple[InputOffsets, InputOffsets]:
        """See ``base.Broker.bounds``."""
        inputs = [(topics.events, shard), (topics.labels, shard)]
        ends = InputOffsets(*(len(self.logs[key]) for key in inputs))
        return InputOffsets(*(self.oldest[key] for key in inputs)), ends

    def wait(self, timeout_s: float) -> None:
        """Wait for a change; with a clock of its own, time passes at once."""
        if self.clock is not None:
            self.clock.advance(timeout_s)
        elif timeout_s > 0:
            self.changed.wait(timeout_s)


def refuse_unwritable(records: Sequence[OutRecord]) -> None:
    """What a real broker refuses: anything but bytes."""
    for record in records:
        for part in (record.key, record.value):
            if part is not None and not isinstance(part, bytes):
                raise BrokerError(f"{part!r} cannot be written: keys and values are bytes or None.")
