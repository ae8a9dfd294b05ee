"""What a broker has for tools, demo and people beside the workers' part (base): inputs, outputs, snapshots, topics."""

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
    """One topic as it should be and as it is."""

    topic: str
    role: str  # "events", "labels", …
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)
    exists: bool = False
    problem: str = ""  # why the existing topic cannot be used; "" when it can
    note: str = ""  # what its operator should know, for example what its retention means


class Producer(Protocol):
    """Writes input records: for ``replay``, ``simulate``, ``demo`` and tests; any number may run beside workers."""

    def send(self, side: InputTopic, records: Sequence[OutRecord]) -> None:
        """Append records, in order; a record's key chooses its shard (``partition_for``).

        They may wait in memory until ``flush`` or ``close``.
        """

    def flush(self) -> None:
        """Return once everything sent is durable, each record once, or raise BrokerError."""

    def close(self) -> None: ...


class Reader(Protocol):
    """Reads committed output records from the beginning: for ``demo``, tests and tools."""

    def read(self, topic: str, *, timeout_s: float = 0.0) -> list[tuple[bytes | None, bytes | None]]:
        """New records (key, value) of a topic since the last call, over all partitions.

        Args:
            topic: One that the settings name.
            timeout_s: How long to wait for the first one when there is none.

        Raises:
            TopicError: There is no such topic.
        """

    def read_records(self, topic: str, *, timeout_s: float = 0.0) -> list[OutRecord]:
        """The same with times and headers; it shares its position with ``read``."""

    def close(self) -> None: ...


class Snapshots(Protocol):
    """What is kept of an application's shards, for people; the worker has no use for it.

    Whatever changes something is refused while a worker has the shard (ShardBusyError).
    """

    def kept(self, shard: int) -> list[KeptSnapshot]:
        """All of a shard, the newest first, damaged ones included."""

    def read(self, shard: int, number: int) -> bytes:
        """The data of one; StateError when it is not there, or not whole."""

    def positions(self, shard: int) -> InputOffsets | None:
        """As last committed; None before the first commit."""

    def bounds(self, shard: int) -> tuple[InputOffsets, InputOffsets]:
        """The oldest offsets kept, and the next ones to be written."""

    def start_lineage(self, shard: int, data: bytes, *, positions: InputOffsets, lineage_reason: str) -> KeptSnapshot:
        """Save data as the newest snapshot; the next worker goes on with it from these positions."""

    def delete(self, shard: int, number: int) -> None:
        """Delete one for good; StateError for the newest one, which the next start needs."""

    def close(self) -> None: ...


class Admin(Protocol):
    """Topics of a broker."""

    def plan(self) -> list[TopicPlan]:
        """What ``apply`` would do."""

    def apply(self) -> list[TopicPlan]:
        """Create what is missing; never changes an existing topic. Returns the plan carried out."""

    def examine(self) -> Iterator[Finding]:
        """What a worker will find: connection, versions, rights, topics, clock, disk; changes nothing.

        Raises:
            BrokerError: It cannot be reached at all.
        """

    def ping(self) -> None:
        """Raise BrokerError with a clear reason when the broker cannot be reached."""

    def close(self) -> None: ...
