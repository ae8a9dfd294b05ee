"""The contract between a worker and a broker: poll, load, seek, commit.

A broker reads the two inputs of a shard in offset order, writes everything that follows from them in one atomic step,
and returns what was written when a worker starts or takes a shard over. The life of a shard on a broker:

1. ``poll`` changes ``assigned``: the shard belongs to this worker.
2. ``load`` takes the shard over, so that every commit of an earlier owner fails from then on, and returns its
   ``ShardCheckpoint``: the newest snapshot, the journal of step boundaries since it, and the committed offsets.
3. The worker restores the snapshot, calls ``seek`` with the snapshot's offsets, and replays the records up to the
   committed offsets, cut at the boundaries of the journal. It publishes nothing of the replay.
4. From the committed offsets on, each step ends with one ``commit`` (or ``begin`` and ``CommitHandle.wait``): outputs,
   offsets, step boundaries and, now and then, a snapshot or a chunk of one, all of it or nothing.
5. After an error of a commit its outcome may be unknown: the worker drops the shard's state and continues with step 2.

Tools, the demo and people need more than that: see ``tools_api``.

Deliberately not part of the contract: what a record means (codec), how events and labels are merged (shard), what a
snapshot contains (shard), retries of a failed commit (the worker loads the shard again and replays).
Nothing outside a broker's own package knows which broker runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from stream_ad.brokers.commit_handle import CommitHandle
    from stream_ad.records.columns import OutRecord, RawRecords


SNAPSHOT_CHUNK_BYTES = 512 * 1024
"""Bytes of a snapshot that are written with one commit: they cost a small disk, or Kafka, some milliseconds."""


class InputTopic(Enum):
    """The two inputs of a shard."""

    EVENTS = "events"
    LABELS = "labels"


@dataclass(frozen=True, slots=True, order=True)
class InputOffsets:
    """The next offset to read of each input of a shard."""

    events: int = 0
    labels: int = 0

    def of(self, side: InputTopic) -> int:
        """Return the offset of one input."""
        return self.events if side is InputTopic.EVENTS else self.labels


@dataclass(frozen=True, slots=True, eq=False)
class Fetched:
    """What one poll returned for one input of one shard."""

    records: RawRecords
    drained: bool
    """True when, at the time of the poll, the broker held no record of this input beyond these."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """The whole state of a shard and the offsets up to which it has read."""

    positions: InputOffsets
    data: bytes
    number: int = 0
    """Increases with every snapshot of the shard, from 1."""


@dataclass(frozen=True, slots=True, eq=False)
class SnapshotChunk:
    """The bytes of a snapshot that are written with one commit.

    A large snapshot written with a single commit would delay the scores of that commit. So it is written in chunks:

    1. The first chunk (``start`` 0) is written with the commit that left the state behind; ``positions`` are the
       offsets of that commit.
    2. Each later commit of the shard carries the chunk that follows, with the same ``positions`` and ``data``.
    3. The commit that carries the last chunk completes the snapshot. Only then does it count, and only then is what it
       supersedes dropped.
    4. A chunk with ``start`` 0, or a whole snapshot, that comes before the last chunk abandons the incomplete snapshot.
    """

    positions: InputOffsets
    """The offsets of the commit that left this state behind, with which the first chunk was written."""
    data: bytes
    """The whole snapshot."""
    start: int
    """The first byte of the chunk in ``data``."""
    stop: int
    """One beyond the last byte of the chunk in ``data``."""

    @property
    def last(self) -> bool:
        """Whether this chunk completes the snapshot."""
        return self.stop == len(self.data)


@dataclass(frozen=True, slots=True)
class KeptSnapshot:
    """The description of a snapshot that a broker keeps, without its data."""

    number: int
    positions: InputOffsets
    lineage: int = 0
    """Number of the snapshot that started its lineage (see ``Commit.lineage_reason``); 0 for a shard's first one."""
    lineage_reason: str = ""
    """``Commit.lineage_reason`` of its commit; set only for the first snapshot of a lineage."""
    saved_ms: int = 0
    """Milliseconds since the epoch; 0 where the time was not recorded."""
    size_bytes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class ShardCheckpoint:
    """What the broker holds of a shard: where to resume."""

    positions: InputOffsets
    """The committed offsets: everything before them has been published. Before the first commit: the oldest offsets
    that the broker keeps."""
    snapshot: Snapshot | None = None
    """The newest snapshot of the current lineage whose data is complete and undamaged."""
    journal: tuple[InputOffsets, ...] = ()
    """The offsets where a replay from the snapshot must cut: all ``Commit.step_boundaries`` since the snapshot, in the
    order in which they were committed, without those at or before the snapshot's positions. Increasing; may end before
    ``positions``. Without a snapshot, the first boundary is where the shard began.
    """
    rebuild: bool = False
    """True where no snapshot can be used and the journal does not reach back, but both topics do: everything can be
    processed again from ``InputOffsets(0, 0)``, merged by record time alone.
    """


@dataclass(frozen=True, slots=True, eq=False)
class Commit:
    """Everything that one step of a shard leaves behind; written as a whole or not at all."""

    shard: int
    positions: InputOffsets
    scores: Sequence[OutRecord] = ()
    incidents: Sequence[OutRecord] = ()
    dead_letters: Sequence[OutRecord] = ()
    step_boundaries: tuple[InputOffsets, ...] = ()
    """What the journal must keep of this step, in order: at most one boundary before the step and one after it.

    Within a step, events and labels are merged by record time; between steps, the earlier step comes first, whatever
    the record times. So a step that read labels is recorded by both its ends:

    1. the offsets before the step, left out where the last boundary of this worker equals them (a boundary of another
       worker may be repeated);
    2. the offsets after the step.

    A step that read only events needs no boundary: however a run of events is cut, it is the same run. Hence, between
    two neighbouring cuts of a replay (snapshot, journal, ``ShardCheckpoint.positions``), there are either events alone
    or exactly one step. The very first step of a shard records the offsets before it in any case: a replay without a
    snapshot begins there.
    """
    snapshot: bytes | None = None
    """The state after this step; once committed, boundaries at or before ``positions`` are no longer needed."""
    lineage_reason: str = ""
    """Why the snapshot does not follow from the previous one and the records between; "" where it does. A reason starts
    a new lineage: what was kept before it remains for people to go back to, and is never replayed from.
    """
    chunk: SnapshotChunk | None = None
    """The next chunk of a snapshot that is written with several commits; see ``SnapshotChunk``."""

    @property
    def chunk_to_write(self) -> SnapshotChunk | None:
        """The snapshot bytes of this commit: ``chunk``, or all of ``snapshot`` as one chunk; None without any."""
        if self.snapshot is not None:
            return SnapshotChunk(self.positions, self.snapshot, 0, len(self.snapshot))
        return self.chunk

    @property
    def completed_snapshot_offsets(self) -> InputOffsets | None:
        """The offsets of the snapshot that this commit completes; None where it completes none."""
        chunk = self.chunk_to_write
        return chunk.positions if chunk is not None and chunk.last else None


class Broker(Protocol):
    """A worker's connection to its inputs, outputs and state. One per worker; not safe to share between threads."""

    @property
    def chunk_bytes(self) -> int:
        """Maximum bytes of a snapshot written with one commit of a live shard; constant per broker."""

    def assigned(self) -> frozenset[int]:
        """Return the shards that this worker owns since the last poll. Their inputs arrive only after ``seek``."""

    def poll(
        self, *, timeout_s: float, max_records: int, paused: Collection[tuple[int, InputTopic]] = ()
    ) -> dict[int, dict[InputTopic, Fetched]]:
        """Return the next records of the owned shards, at most about ``max_records`` in all.

        Args:
            timeout_s: Seconds to wait when there is nothing to read.
            max_records: Limit over all shards and both inputs.
            paused: Inputs (shard and topic) not to read this time, because they are ahead of the shard's other input.

        Returns:
            For every owned shard that has been positioned with ``seek``, both inputs (a paused input is empty and not
            drained).

        Raises:
            BrokerError: The broker was unreachable for longer than ``broker.give_up_seconds``.
            LostRecordsError: The next records of a shard are gone; the shard must be loaded again.
        """

    def load(self, shard: int, *, older_than: int | None = None) -> ShardCheckpoint:
        """Take a shard over, so that commits of an earlier owner fail from now on, and return what was committed.

        Args:
            shard: An owned shard.
            older_than: Ignore snapshots with this number or a higher one: they could not be restored.

        Raises:
            StateError: There were snapshots, none can be used, and the topics do not reach back to their beginning.
        """

    def seek(self, shard: int, positions: InputOffsets) -> None:
        """Continue reading a shard's inputs from these offsets.

        Raises:
            LostRecordsError: Records from there on are gone: retention deleted them, or a topic was recreated.
        """

    def bounds(self, shard: int) -> tuple[InputOffsets, InputOffsets]:
        """Return the oldest offsets kept of an owned shard's inputs, and the next offsets to be written."""

    def commit(self, commit: Commit) -> None:
        """Write everything in one atomic step, or nothing.

        Raises:
            FencedError: Another worker owns the shard now.
            BrokerError: The commit failed, or its outcome is unknown: drop the shard's state in memory, ``load`` the
                shard again and continue from what that returns.
        """

    def begin(self, commit: Commit) -> CommitHandle:
        """Start an asynchronous ``commit``, whose errors are raised here or by ``CommitHandle.wait``.

        The shard's next step may be computed meanwhile; if the commit fails, all of it is dropped.
        """

    def lag(self) -> dict[int, dict[InputTopic, int]]:
        """Return the number of offsets not yet read, by owned shard and input.

        On Kafka, transaction markers have offsets, too.
        """

    def close(self) -> None:
        """Leave the group and free all resources; a second call does nothing."""


@runtime_checkable
class Awaiting(Protocol):
    """An addition to ``Broker`` where another process can keep single shards from a worker for a while."""

    def awaited(self) -> Mapping[int, str]:
        """Return the shards that become this worker's as soon as they are free, with a description of their owner."""
