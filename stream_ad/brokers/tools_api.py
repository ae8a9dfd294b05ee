"""The contract between a broker and tools, the demo and people: inputs, outputs, snapshots and topics.

What workers need of a broker: see ``worker_api``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stream_ad.brokers.worker_api import InputOffsets, InputTopic, KeptSnapshot
    from stream_ad.records.columns import OutRecord
    from stream_ad.util.findings import Finding


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """One topic as it should be and, where it exists, as it is."""

    topic: str
    role: str  # "events", "labels", "scores", "incidents", "dead_letters" or "state"
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)
    exists: bool = False
    problem: str = ""  # why the existing topic cannot be used; "" where it can
    note: str = ""  # what its operator should know, for example what its retention means


class Producer(Protocol):
    """A writer of input records: for ``replay``, ``simulate``, ``demo`` and tests.

    Any number of producers may run beside workers.
    """

    def send(self, side: InputTopic, records: Sequence[OutRecord]) -> None:
        """Append records in order; a record's key chooses its shard (``partition_for``).

        Records may wait in memory until ``flush`` or ``close``.
        """

    def flush(self) -> None:
        """Return once everything sent is durable, each record once.

        Raises:
            BrokerError: It could not be written.
        """

    def close(self) -> None:
        """Flush, then free all resources."""


class Reader(Protocol):
    """A reader of committed output records, from the oldest kept: for commands that show them, ``demo`` and tests.

    Every method raises TopicError where there is no such topic. ``seek_to_time`` and ``seek_to_newest`` are for a topic
    that has not been read yet.
    """

    def read(self, topic: str, *, timeout_s: float = 0.0) -> list[tuple[bytes | None, bytes | None]]:
        """Return the records (key, value) of a topic that are new since the last call, over all partitions.

        Args:
            topic: A topic that the settings name.
            timeout_s: Seconds to wait for the first record when there is none.
        """

    def read_records(self, topic: str, *, timeout_s: float = 0.0, limit: int | None = None) -> list[OutRecord]:
        """Return what ``read`` would, with times and headers; both share one position.

        Args:
            topic: As for ``read``.
            timeout_s: As for ``read``.
            limit: Most records of each partition, so that a long topic can be read in parts; None for no limit. No
                record at all is returned only at the end of what is committed now.
        """

    def seek_to_time(self, topic: str, time_ms: int) -> None:
        """Begin each partition with its first record of this record time or later.

        Args:
            topic: As for ``read``.
            time_ms: Milliseconds since the epoch. Records behind the first may be older.
        """

    def seek_to_newest(self, topic: str, count: int) -> None:
        """Begin each partition so near to its end that the newest ``count`` records of the topic are not left out.

        Where transactions were aborted, there may be fewer.
        """

    def close(self) -> None:
        """Free all resources."""


class Snapshots(Protocol):
    """The snapshots that are kept of an application's shards, for people; workers do not use this.

    Methods that change something raise ShardBusyError while a worker owns the shard.
    """

    def kept(self, shard: int) -> list[KeptSnapshot]:
        """Return all snapshots of a shard, newest first, damaged ones included."""

    def read(self, shard: int, number: int) -> bytes:
        """Return the data of a snapshot.

        Raises:
            StateError: There is no such snapshot, or it is damaged.
        """

    def positions(self, shard: int) -> InputOffsets | None:
        """Return the committed offsets; None before the first commit."""

    def bounds(self, shard: int) -> tuple[InputOffsets, InputOffsets]:
        """Return the oldest offsets kept of a shard's inputs, and the next offsets to be written."""

    def start_lineage(self, shard: int, data: bytes, *, positions: InputOffsets, lineage_reason: str) -> KeptSnapshot:
        """Save data as the newest snapshot, from which the next worker resumes at these offsets.

        Args:
            shard: The shard's number.
            data: The snapshot.
            positions: The offsets from which the shard continues.
            lineage_reason: Why the snapshot starts a new lineage; not empty.
        """

    def delete(self, shard: int, number: int) -> None:
        """Delete a snapshot for good.

        Raises:
            StateError: There is no such snapshot, or it is the newest one, which the next start needs.
        """

    def close(self) -> None:
        """Free all resources."""


class Admin(Protocol):
    """The topics of a broker."""

    def plan(self) -> list[TopicPlan]:
        """Return every topic as it should be and as it is; changes nothing."""

    def apply(self) -> list[TopicPlan]:
        """Create missing topics, and return the plan carried out. Existing topics are never changed."""

    def examine(self) -> Iterator[Finding]:
        """Yield what a worker will find: connection, versions, rights, topics, clock, disk. Changes nothing.

        Raises:
            BrokerError: The broker cannot be reached at all.
        """

    def ping(self) -> None:
        """Raise BrokerError with the reason when the broker cannot be reached."""

    def close(self) -> None:
        """Free all resources."""
