"""A broker in memory, for tests of code that uses brokers: deterministic, without files, failing on demand.

It fulfils the contract of ``worker_api`` and ``tools_api`` (the contract's tests include it) and can be made to fail
where real brokers fail. Public in ``stream_ad.testing``.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from stream_ad.brokers.memory.snapshots import MemorySnapshots
from stream_ad.brokers.memory.store import ROLES, Store, refuse_unwritable
from stream_ad.brokers.memory.worker_broker import MemoryWorker
from stream_ad.brokers.partitioner import partition_for
from stream_ad.brokers.tools_api import TopicPlan
from stream_ad.brokers.worker_api import SNAPSHOT_CHUNK_BYTES, InputTopic
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
    """A complete broker in memory, which creates workers' brokers, producers, readers, admins and snapshots.

    They may be used by any number of threads. Topics are created when settings name them. As on the embedded broker,
    one worker of an application runs at a time.

    Args:
        clock: Advanced by the timeout whenever a poll or read finds nothing, instead of waiting.
        chunk_bytes: Maximum bytes of a snapshot that workers write with one commit.
    """

    def __init__(self, *, clock: Clock | None = None, chunk_bytes: int = SNAPSHOT_CHUNK_BYTES) -> None:
        self._store = Store(clock, chunk_bytes)

    def worker(self, settings: Settings) -> Broker:
        """Open a worker's broker; see ``brokers.open_broker``."""
        return MemoryWorker(self._store, settings)

    def producer(self, settings: Settings) -> Producer:
        """Open a producer of input records."""
        return _Producer(self._store, settings)

    def reader(self, settings: Settings) -> Reader:
        """Open a reader of output topics."""
        return _Reader(self._store, settings)

    def admin(self, settings: Settings) -> Admin:
        """Return the administration of the topics."""
        return _Admin(self._store, settings)

    def snapshots(self, settings: Settings) -> Snapshots:
        """Open the snapshots kept of the application."""
        return MemorySnapshots(self._store, settings)

    def records(self, topic: str) -> list[OutRecord]:
        """Return all records of a topic, one partition after the other."""
        with self._store.changed:
            logs = self._store.logs
            return [record for key in sorted(logs) if key[0] == topic for record in logs[key]]

    def fail(self, point: Point, *, at: int = 1, error: BaseException | None = None) -> None:
        """Make the ``at``-th call of a point, counted from now, fail once.

        Args:
            point: ``commit_before`` fails with nothing written, ``commit_after`` with everything written.
            at: Which call fails; 1 is the next one.
            error: The error to raise; a BrokerError by default.
        """
        with self._store.changed:
            queue = self._store.failures[point]
            queue.extend([None] * (at - len(queue)))
            queue[at - 1] = error or BrokerError(f"The broker in memory was told to fail at {point}.")

    def abandon_workers(self) -> None:
        """Let new workers take over all shards, as if their owners were dead or disconnected.

        The previous owners are not notified: their next commit is refused.
        """
        with self._store.changed:
            self._store.owners.clear()

    def damage_snapshot(self, application_id: str, shard: int) -> None:
        """Make the newest undamaged snapshot of a shard unreadable, as if its data had been lost."""
        with self._store.changed:
            data = self._store.shards[application_id, shard].data
            data[max(number for number, content in data.items() if content is not None)] = None

    def delete_records(self, topic: str, partition: int, *, before: int) -> None:
        """Make a partition's records before an offset unreadable for workers, as retention does."""
        with self._store.changed:
            self._store.oldest[topic, partition] = before


class _Producer:
    """See ``tools_api.Producer``."""

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
        """Do nothing: nothing is kept open."""


class _Reader:
    """See ``tools_api.Reader``."""

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
        """Do nothing: nothing is kept open."""


class _Admin:
    """See ``tools_api.Admin``."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings

    def plan(self) -> list[TopicPlan]:
        topics, made = self._settings.topics, self._store.topics
        other = next((count for count in made.values() if count != topics.partitions), None)
        problem = "" if other is None else f"This broker in memory was created with {other} partitions."
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
        """Do nothing: it is always reachable."""

    def close(self) -> None:
        """Do nothing: nothing is kept open."""
