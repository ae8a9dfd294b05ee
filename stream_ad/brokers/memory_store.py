"""What a broker in memory stores, shared by all that it hands out."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from stream_ad.brokers.base import Positions, Snapshot
from stream_ad.brokers.recovery import refuse_without_snapshot
from stream_ad.errors import BrokerError, TopicError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ad.brokers.base import Commit
    from stream_ad.columns import OutRecord
    from stream_ad.settings import Settings

Point = Literal["poll", "load", "commit_before", "commit_after", "send", "flush"]
"""Where it can be made to fail."""
KEPT_SNAPSHOTS = 3
ROLES = ("events", "labels", "scores", "incidents", "dead_letters")
"""Topics that it keeps; the state stands beside them."""


class Clock(Protocol):
    """What passes in the place of waiting."""

    def advance(self, seconds: float) -> None: ...


@dataclass(slots=True)
class ShardState:
    """What is kept of one shard for one application."""

    epoch: int = 0
    positions: Positions = field(default_factory=Positions)
    journal: list[Positions] = field(default_factory=list)
    snapshots: list[Snapshot | None] = field(default_factory=list)  # None: damaged

    def newest_snapshot(self, shard: int) -> Snapshot | None:
        whole = [one for one in self.snapshots if one is not None]
        if not whole:
            refuse_without_snapshot(shard, len(self.snapshots))
        return whole[-1] if whole else None

    def save(self, commit: Commit) -> None:
        self.positions = commit.positions
        self.journal += [mark for mark in commit.marks if not self.journal or mark > self.journal[-1]]
        if commit.snapshot is None:
            return
        self.snapshots = [*self.snapshots, Snapshot(commit.positions, commit.snapshot)][-KEPT_SNAPSHOTS:]
        # a damaged snapshot falls back to the one before, a damaged only one to the shard's beginning
        if len(self.snapshots) > 1 and (oldest := self.snapshots[0]) is not None:
            self.journal = [mark for mark in self.journal if mark > oldest.positions]


@dataclass(slots=True)
class Store:
    """Take ``changed`` before touching anything else."""

    clock: Clock | None
    changed: threading.Condition = field(default_factory=lambda: threading.Condition(threading.RLock()))
    topics: dict[str, int] = field(default_factory=dict)  # name: partitions
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
