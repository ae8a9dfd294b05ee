"""A broker in memory, for tests of what uses brokers: deterministic, without files, told when to fail.

It keeps the contract of ``base`` (the contract's tests run over it too) and can be made to fail where
real brokers fail. Users find it in ``stream_ad.testing``.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from stream_ad.brokers.base import Side, TopicPlan
from stream_ad.brokers.memory_worker import MemoryWorker, Store
from stream_ad.brokers.partitioning import partition_for
from stream_ad.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ad.brokers.base import Admin, Broker, Producer, Reader
    from stream_ad.brokers.memory_worker import Clock, Point
    from stream_ad.columns import OutRecord
    from stream_ad.settings import Settings


class MemoryBroker:
    """A whole broker in memory; hands out workers' brokers, producers, readers and admins.

    Any number of threads may use what it hands out. A worker that comes later takes every shard over
    as it loads them.

    Args:
        clock: Advanced by the timeout whenever a poll or read finds nothing, in the place of waiting.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._store = Store(clock)

    def worker(self, settings: Settings) -> Broker:
        return MemoryWorker(self._store, settings)

    def producer(self, settings: Settings) -> Producer:
        return _Producer(self._store, settings)

    def reader(self, settings: Settings) -> Reader:
        return _Reader(self._store, settings)

    def admin(self, settings: Settings) -> Admin:
        return _Admin(settings)

    def records(self, topic: str) -> list[OutRecord]:
        """Everything a topic holds, partition after partition."""
        with self._store.changed:
            logs = self._store.logs
            return [record for key in sorted(logs) if key[0] == topic for record in logs[key]]

    def fail(self, point: Point, *, at: int = 1, error: BaseException | None = None) -> None:
        """Make the ``at``-th call of a point, counted from now, fail once.

        Args:
            point: ``commit_before`` fails with nothing written, ``commit_after`` with all written and nobody told.
            at: 1 is the next call.
            error: What is raised; a BrokerError unless told otherwise.
        """
        with self._store.changed:
            queue = self._store.failures[point]
            queue.extend([None] * (at - len(queue)))
            queue[at - 1] = error or BrokerError(f"The broker in memory was told to fail at {point}.")

    def damage_snapshot(self, application_id: str, shard: int) -> None:
        """Lose the shard's newest snapshot, as if its data had not arrived whole."""
        with self._store.changed:
            self._store.shards[application_id, shard].snapshots.pop()


class _Producer:
    """See ``brokers.base.Producer``."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._topics = settings.topics

    def send(self, side: Side, records: Sequence[OutRecord]) -> None:
        topic = self._topics.events if side is Side.EVENTS else self._topics.labels
        with self._store.changed:
            self._store.reach("send")
            for record in records:
                self._store.append(topic, partition_for(record.key, self._topics.partitions), [record])

    def flush(self) -> None:
        self._store.reach("flush")

    def close(self) -> None:
        """Nothing is kept open."""


class _Reader:
    """See ``base.Reader``."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._partitions = settings.topics.partitions
        self._next: defaultdict[tuple[str, int], int] = defaultdict(int)

    def read(self, topic: str, *, timeout_s: float = 0.0) -> list[tuple[bytes | None, bytes | None]]:
        return [(record.key, record.value) for record in self.read_records(topic, timeout_s=timeout_s)]

    def read_records(self, topic: str, *, timeout_s: float = 0.0) -> list[OutRecord]:
        with self._store.changed:
            records = self._new(topic)
            if not records:
                self._store.wait(timeout_s)
                records = self._new(topic)
            return records

    def _new(self, topic: str) -> list[OutRecord]:
        new: list[OutRecord] = []
        for key in ((topic, partition) for partition in range(self._partitions)):
            log = self._store.logs[key]
            new += log[self._next[key] :]
            self._next[key] = len(log)
        return new

    def close(self) -> None:
        """Nothing is kept open."""


class _Admin:
    """See ``base.Admin``. Topics of this broker exist by being named."""

    def __init__(self, settings: Settings) -> None:
        self._topics = settings.topics

    def plan(self) -> list[TopicPlan]:
        roles = ("events", "labels", "scores", "incidents", "dead_letters")
        return [TopicPlan(getattr(self._topics, role), role, self._topics.partitions, exists=True) for role in roles]

    def apply(self) -> list[TopicPlan]:
        return self.plan()

    def ping(self) -> None:
        """Always there."""

    def close(self) -> None:
        """Nothing is kept open."""
