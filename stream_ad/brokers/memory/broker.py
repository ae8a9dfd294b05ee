"""A broker in memory, for tests of what uses brokers: deterministic, without files, told when to fail.

It keeps the contract of ``base`` (the contract's tests run over it too) and can be made to fail where
real brokers fail. Users find it in ``stream_ad.testing``.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from stream_ad.brokers.memory.snapshots import MemorySnapshots
from stream_ad.brokers.memory.store import ROLES, Store, refuse_unwritable
from stream_ad.brokers.memory.worker_broker import MemoryWorker
from stream_ad.brokers.partitioner import partition_for
from stream_ad.brokers.tools_api import TopicPlan
from stream_ad.brokers.worker_api import PART_BYTES, InputTopic
from stream_ad.errors import BrokerError, TopicError
from stream_ad.util.findings import ok, problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream_ad.brokers.memory.store import Clock, Point
    from stream_ad.brokers.tools_api import Admin, Producer, Reader, Snapshots
    from stream_ad.brokers.worker_api import Broker
    from stream_ad.records.columns import OutRecord
    from stream_ad.settings import Settings
    from stream_ad.util.findings import Finding


class MemoryBroker:
    """A whole broker in memory; hands out workers' brokers, producers, readers and admins.

    Any number of threads may use what it hands out. Topics are made by being named. One worker of an
    application at a time, as on the embedded broker.

    Args:
        clock: Advanced by the timeout whenever a poll or read finds nothing, in the place of waiting.
        part_bytes: Most of a snapshot that workers shall write with one commit.
    """

    def __init__(self, *, clock: Clock | None = None, chunk_bytes: int = PART_BYTES) -> None:
        self._store = Store(clock, chunk_bytes)

    def worker(self, settings: Settings) -> Broker:
        return MemoryWorker(self._store, settings)

    def producer(self, settings: Settings) -> Producer:
        return _Producer(self._store, settings)

    def reader(self, settings: Settings) -> Reader:
        return _Reader(self._store, settings)

    def admin(self, settings: Settings) -> Admin:
        return _Admin(self._store, settings)

    def snapshots(self, settings: Settings) -> Snapshots:
        return MemorySnapshots(self._store, settings)

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

    def abandon_workers(self) -> None:
        """Let later workers take the shards over, as if those that hold them were dead, or cut off.

        The earlier ones are not told: their next commit is refused.
        """
        with self._store.changed:
            self._store.owners.clear()

    def damage_snapshot(self, application_id: str, shard: int) -> None:
        """Make the newest snapshot of a shard that is whole unreadable, as if its data had not arrived."""
        with self._store.changed:
            data = self._store.shards[application_id, shard].data
            data[max(number for number, one in data.items() if one is not None)] = None

    def delete_records(self, topic: str, partition: int, *, before: int) -> None:
        """Make a partition's records below an offset unreadable for workers, as retention does."""
        with self._store.changed:
            self._store.oldest[topic, partition] = before


class _Producer:
    """See ``brokers.tools.Producer``."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._topics = settings.topics
        store.make_topics(settings)

    def send(self, side: InputTopic, records: Sequence[OutRecord]) -> None:
        topic = self._topics.events if side is InputTopic.EVENTS else self._topics.labels
        with self._store.changed:
            self._store.reach("send")
            refuse_unwritable(records)
            for record in records:
                self._store.append(topic, partition_for(record.key, self._topics.partitions), [record])

    def flush(self) -> None:
        self._store.reach("flush")

    def close(self) -> None:
        """Nothing is kept open."""


class _Reader:
    """See ``tools.Reader``."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        store.make_topics(settings)
        self._next: defaultdict[tuple[str, int], int] = defaultdict(int)

    def read(self, topic: str, *, timeout_s: float = 0.0) -> list[tuple[bytes | None, bytes | None]]:
        return [(record.key, record.value) for record in self.read_records(topic, timeout_s=timeout_s)]

    def read_records(self, topic: str, *, timeout_s: float = 0.0) -> list[OutRecord]:
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
        """Nothing is kept open."""


class _Admin:
    """See ``tools.Admin``."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings

    def plan(self) -> list[TopicPlan]:
        topics, made = self._settings.topics, self._store.topics
        other = next((count for count in made.values() if count != topics.partitions), None)
        problem = "" if other is None else f"This broker in memory was made with {other} partitions."
        names = {role: getattr(topics, role) for role in ROLES}
        return [
            TopicPlan(name, role, topics.partitions, exists=name in made, problem=problem)
            for role, name in names.items()
        ]

    def apply(self) -> list[TopicPlan]:
        plan = self.plan()
        if not any(topic.problem for topic in plan):
            self._store.make_topics(self._settings)
        return plan

    def examine(self) -> Iterator[Finding]:
        yield ok("connection", "a broker in memory.")
        for topic in self.plan():
            if topic.problem:
                yield problem("topics", topic.problem, "Use one MemoryBroker for each number of partitions.")

    def ping(self) -> None:
        """Always there."""

    def close(self) -> None:
        """Nothing is kept open."""
