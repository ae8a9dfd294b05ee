"""The content of a broker in memory, shared by the workers, producers and readers that it creates."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from stream_ad.brokers.snapshot_retention import for_replay, journal_floor, next_snapshot, superseded
from stream_ad.brokers.worker_api import InputOffsets, Snapshot
from stream_ad.errors import BrokerError, TopicError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ad.brokers.worker_api import Commit, KeptSnapshot, SnapshotChunk
    from stream_ad.records.columns import OutRecord
    from stream_ad.settings import Settings, TopicSettings

Point = Literal["poll", "load", "commit_before", "commit_after", "send", "flush"]
"""The calls that can be made to fail."""
ROLES = ("events", "labels", "scores", "incidents", "dead_letters")
"""Roles of the topics; the state is kept beside them."""


class Clock(Protocol):
    """A clock that is advanced instead of waiting."""

    def advance(self, seconds: float) -> None:
        """Let time pass."""


@dataclass(slots=True)
class ShardState:
    """The state of one shard of one application."""

    epoch: int = 0
    positions: InputOffsets | None = None  # None before the first commit
    journal: list[InputOffsets] = field(default_factory=list)
    kept: list[KeptSnapshot] = field(default_factory=list)
    data: dict[int, bytes | None] = field(default_factory=dict)  # by number; None: damaged
    partial_snapshot: bytes | None = None  # the chunks so far of an incomplete snapshot

    def newest_whole(self, older_than: int | None) -> Snapshot | None:
        """Return the newest undamaged snapshot that a replay may begin with; None where there is none."""
        usable = for_replay(self.kept, self.positions or InputOffsets(), older_than) if self.kept else []
        whole = ((kept, data) for kept in usable if (data := self.data[kept.number]) is not None)
        return next((Snapshot(kept.positions, data, kept.number) for kept, data in whole), None)

    def save(self, commit: Commit, settings: Settings) -> None:
        """Apply the offsets, step boundaries and snapshot of a commit."""
        self.positions = commit.positions
        last = self.journal[-1] if self.journal else None
        self.journal += [boundary for boundary in commit.step_boundaries if last is None or boundary > last]
        if (chunk := commit.chunk_to_write) is not None:
            self.add_chunk(chunk, commit.lineage_reason, settings)

    def add_chunk(self, chunk: SnapshotChunk, lineage_reason: str, settings: Settings) -> None:
        """Add a chunk of a snapshot; with the last one, keep the snapshot.

        Raises:
            BrokerError: The chunk does not follow the previous one.
        """
        begun = b"" if chunk.start == 0 else self.partial_snapshot
        if begun is None or begun != chunk.data[: chunk.start]:
            raise BrokerError("This chunk of a snapshot does not follow the previous one.")
        self.partial_snapshot = begun + chunk.data[chunk.start : chunk.stop]
        if chunk.last:
            self.add(chunk.positions, self.partial_snapshot, lineage_reason, settings)
            self.partial_snapshot = None

    def add(self, positions: InputOffsets, data: bytes, lineage_reason: str, settings: Settings) -> KeptSnapshot:
        """Keep a snapshot, and drop what it supersedes."""
        now_ms = int(time.time() * 1000)
        new = next_snapshot(
            self.kept, positions=positions, lineage_reason=lineage_reason, saved_ms=now_ms, size_bytes=len(data)
        )
        self.kept.append(new)
        self.data[new.number] = data
        for old in superseded(self.kept, settings):
            self.drop(old)
        if lineage_reason:
            self.journal = []
        elif (floor := journal_floor(self.kept)) is not None:
            self.journal = [boundary for boundary in self.journal if boundary > floor]
        return new

    def drop(self, snapshot: KeptSnapshot) -> None:
        """Delete a snapshot."""
        self.kept.remove(snapshot)
        del self.data[snapshot.number]


@dataclass(slots=True)
class Store:
    """Everything that the broker holds. Acquire ``changed`` before using anything else."""

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
        """Create the settings' topics where they are missing.

        Raises:
            TopicError: A topic of this broker has another number of partitions.
        """
        wanted = settings.topics.partitions
        with self.changed:
            other = next((count for count in self.topics.values() if count != wanted), None)
            if other is not None:
                raise TopicError(
                    f"This broker in memory was created with {other} partitions, topics.partitions is {wanted}.",
                    hint="Use one MemoryBroker for each number of partitions.",
                )
            self.topics |= dict.fromkeys((getattr(settings.topics, role) for role in ROLES), wanted)

    def reach(self, point: Point) -> None:
        """Raise the error that ``MemoryBroker.fail`` has set for this call of the point."""
        queue = self.failures[point]
        error = queue.pop(0) if queue else None
        if error is not None:
            raise error

    def append(self, topic: str, partition: int, records: Sequence[OutRecord]) -> None:
        """Append records to a partition, and wake those that wait."""
        self.logs[topic, partition].extend(records)
        self.changed.notify_all()

    def bounds(self, topics: TopicSettings, shard: int) -> tuple[InputOffsets, InputOffsets]:
        """Return the oldest offsets kept and the next offsets to be written; see ``worker_api.Broker.bounds``."""
        inputs = [(topics.events, shard), (topics.labels, shard)]
        ends = InputOffsets(*(len(self.logs[key]) for key in inputs))
        return InputOffsets(*(self.oldest[key] for key in inputs)), ends

    def wait(self, timeout_s: float) -> None:
        """Wait for a change; with a clock, advance it instead."""
        if self.clock is not None:
            self.clock.advance(timeout_s)
        elif timeout_s > 0:
            self.changed.wait(timeout_s)


def refuse_unwritable(records: Sequence[OutRecord]) -> None:
    """Raise BrokerError for keys and values that a real broker refuses: anything but bytes or None."""
    for record in records:
        for content in (record.key, record.value):
            if content is not None and not isinstance(content, bytes):
                raise BrokerError(f"{content!r} cannot be written: keys and values are bytes or None.")
