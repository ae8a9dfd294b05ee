"""A broker in memory, for tests of code that uses brokers: deterministic, without files, failing on demand.

It fulfils the contract of ``worker_api`` and ``tools_api`` (the contract's tests include it) and can be made to fail
where real brokers fail. Public in ``stream_ad.testing``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ad.brokers.memory.admin import MemoryAdmin
from stream_ad.brokers.memory.producer import MemoryProducer
from stream_ad.brokers.memory.reader import MemoryReader
from stream_ad.brokers.memory.snapshots import MemorySnapshots
from stream_ad.brokers.memory.store import Store
from stream_ad.brokers.memory.worker_broker import MemoryWorker
from stream_ad.brokers.worker_api import SNAPSHOT_CHUNK_BYTES
from stream_ad.errors import BrokerError

if TYPE_CHECKING:
    from stream_ad.brokers.memory.store import Clock, Point
    from stream_ad.brokers.tools_api import Admin, Producer, Reader, Snapshots
    from stream_ad.brokers.worker_api import Broker
    from stream_ad.records.columns import OutRecord
    from stream_ad.settings import Settings


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
        return MemoryProducer(self._store, settings)

    def reader(self, settings: Settings) -> Reader:
        """Open a reader of output topics."""
        return MemoryReader(self._store, settings)

    def admin(self, settings: Settings) -> Admin:
        """Return the administration of the topics."""
        return MemoryAdmin(self._store, settings)

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
