"""The contract between the program and a broker: poll, commit, load.

In it: reading the two inputs of a shard in offset order, writing everything that follows from them
in one atomic step, giving back what was written when a worker starts or takes over. What tools and people need
beside that: see ``tools``.

Deliberately not in it: what a record means (codec), how events and labels are merged (inbox), what
a snapshot contains (shard), retries of a failed commit (the worker reopens the shard and replays).
Nothing outside a broker's own module knows which broker runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from stream_ad.brokers.commit_handle import CommitHandle
    from stream_ad.records.columns import OutRecord, RawRecords


PART_BYTES = 512 * 1024
"""Of a snapshot along with a commit: some milliseconds of a small disk, and of a Kafka."""


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
    """What one poll brought for one input of one shard."""

    records: RawRecords
    drained: bool
    """True when, at the time of the poll, the broker held no record of this input beyond these."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A shard's whole state and the positions it has seen."""

    positions: InputOffsets
    data: bytes
    number: int = 0
    """Rises with every snapshot of the shard, from 1."""


@dataclass(frozen=True, slots=True, eq=False)
class SnapshotChunk:
    """A piece of a snapshot that goes along with a commit: a large one would hold the scores of a single commit up."""

    positions: InputOffsets
    """Those of the commit that left this state behind, with which the first piece went."""
    data: bytes
    """The whole snapshot."""
    start: int
    stop: int

    @property
    def last(self) -> bool:
        """Whether nothing is left of the snapshot."""
        return self.stop == len(self.data)


@dataclass(frozen=True, slots=True)
class KeptSnapshot:
    """What a broker knows of a snapshot that it keeps, without its data."""

    number: int
    positions: InputOffsets
    line: int = 0
    """Number of the snapshot that began its line (see ``Commit.lineage_reason``); 0 for the shard's first line."""
    lineage_reason: str = ""
    """As in its commit: of the first one of a line only."""
    saved_ms: int = 0
    """Milliseconds since the epoch; 0 where nobody has written it down."""
    size_bytes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class ShardCheckpoint:
    """What the broker holds of a shard."""

    positions: InputOffsets
    """As last committed: everything before them has been published. Before the first commit: the
    oldest offsets that the broker keeps."""
    snapshot: Snapshot | None = None
    """The newest one of the current line whose data arrived whole."""
    journal: tuple[InputOffsets, ...] = ()
    """Where a replay from the snapshot must cut: all ``Commit.step_boundaries`` since it, in the order they were
    committed, without those at or before the snapshot's positions. Rising; may end before ``positions``. As
    long as there is no snapshot, the first one is where the shard began.
    """
    rebuild: bool = False
    """No snapshot can be used and the journal does not reach back, but both topics do: from ``InputOffsets(0, 0)`` on
    everything can be gone through again, merged by record time alone.
    """


@dataclass(frozen=True, slots=True, eq=False)
class Commit:
    """Everything that one step of a shard leaves behind; written whole or not at all."""

    shard: int
    positions: InputOffsets
    scores: Sequence[OutRecord] = ()
    incidents: Sequence[OutRecord] = ()
    dead_letters: Sequence[OutRecord] = ()
    step_boundaries: tuple[InputOffsets, ...] = ()
    """What the journal must keep of this step, in order; it has one mark at most before and one after the step.

    Within a step events and labels are merged by record time; between steps the earlier step comes
    first, whatever the record times. So a step that read labels is known by both its ends: the
    positions before it (left out where this worker's last mark says the same; another worker's may
    be repeated) and the positions after it. A step that read events only needs no mark: however a run of events is cut,
    it is the same run. Hence between two neighbouring cuts of a replay (snapshot, journal,
    ``ShardCheckpoint.positions``) stand either events alone, or exactly one step. The very first step of a
    shard marks the positions before it in any case: there a replay without a snapshot begins.
    """
    snapshot: bytes | None = None
    """State after this step; once committed, marks at or before ``positions`` are no longer needed."""
    lineage_reason: str = ""
    """Says why the snapshot does not follow from the one before and the records between, "" where it does. It
    begins a new line: what was kept before it stays for people to go back to, and is never replayed from.
    """
    part: SnapshotChunk | None = None
    """The next piece of a snapshot that goes along with several commits of a shard, one after the other. With the last
    one it is a snapshot like any other, at the positions of the first; until then, and where a whole one comes in
    between, it is nothing.
    """

    @property
    def piece(self) -> SnapshotChunk | None:
        """What of a snapshot goes along: its part, or all of it as one."""
        if self.snapshot is not None:
            return SnapshotChunk(self.positions, self.snapshot, 0, len(self.snapshot))
        return self.part

    @property
    def completed_snapshot_offsets(self) -> InputOffsets | None:
        """Those of the snapshot that is whole with this commit; None where there is none."""
        piece = self.piece
        return piece.positions if piece is not None and piece.last else None


class Broker(Protocol):
    """One per worker; not safe to share between threads."""

    @property
    def chunk_bytes(self) -> int:
        """Most of a snapshot that goes along with one commit of a live shard without holding it up for long, always the
        same.
        """

    def assigned(self) -> frozenset[int]:
        """Shards that this worker owns since the last poll. Their inputs arrive only after ``seek``."""

    def poll(
        self, *, timeout_s: float, max_records: int, paused: Collection[tuple[int, InputTopic]] = ()
    ) -> dict[int, dict[InputTopic, Fetched]]:
        """Next records of the owned shards, at most about ``max_records`` in all.

        Args:
            timeout_s: How long to wait when there is nothing to read.
            max_records: Over all shards and sides.
            hold: Inputs that are ahead of their other side; they are not read this time.

        Returns:
            For every owned shard that has been positioned with ``seek``, both sides (a held side
            comes empty and not drained).

        Raises:
            BrokerError: The broker stayed away for longer than ``broker.give_up_seconds``.
            LostRecordsError: The next records of a shard are gone; it must be loaded anew.
        """

    def load(self, shard: int, *, older_than: int | None = None) -> ShardCheckpoint:
        """What was committed for the shard; takes it over, so that an earlier owner's commits fail from here on.

        Args:
            shard: An owned one.
            older_than: Snapshots of this number and above are of no use.

        Raises:
            StateError: There were snapshots, none can be used, and the topics do not reach back to their beginning.
        """

    def seek(self, shard: int, positions: InputOffsets) -> None:
        """Read on from here.

        Raises:
            LostRecordsError: Records from here on are gone: retention has deleted them, or a topic was made anew.
        """

    def bounds(self, shard: int) -> tuple[InputOffsets, InputOffsets]:
        """The oldest offsets kept of an owned shard's inputs, and the next ones to be written."""

    def commit(self, commit: Commit) -> None:
        """Write all of it in one atomic step, or nothing.

        Raises:
            FencedError: Another worker owns the shard now.
            BrokerError: It could not be written, or nobody knows whether it was: drop the shard's
                state in memory, ``load`` again and go on from what that says.
        """

    def begin(self, commit: Commit) -> CommitHandle:
        """Begin a ``commit``, whose errors may come from here or from ``CommitHandle.wait``.

        The shard's next step may be computed meanwhile: where the commit fails, all of it is dropped.
        """

    def lag(self) -> dict[int, dict[InputTopic, int]]:
        """Offsets that wait to be read, by owned shard and side: records, and on Kafka the marks of transactions."""

    def close(self) -> None:
        """Leave the group and free everything; a second call does nothing."""


@runtime_checkable
class Awaiting(Protocol):
    """What a broker has beside that where another process can hold single shards of a worker for a while."""

    def awaited(self) -> Mapping[int, str]:
        """Shards that become this worker's as soon as they are free, with who has them now."""
