"""Retention of snapshots: which are kept, which a shard may be replayed from, how far the journal reaches back.

The rules are the same on every broker. Numbers increase with time, and so do offsets within a lineage; a snapshot that
starts a new lineage (``worker_api.Commit.lineage_reason``) does not follow from what was before, so no replay crosses
its beginning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ad.brokers.worker_api import KeptSnapshot
from stream_ad.errors import DamagedStateError, LostRecordsError, StateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ad.brokers.worker_api import InputOffsets
    from stream_ad.settings import Settings

KEPT_FOR_REPLAY = 2
"""The newest snapshot, and the previous one in case the newest turns out to be damaged."""


def for_replay(
    kept: Sequence[KeptSnapshot], committed: InputOffsets, older_than: int | None = None
) -> list[KeptSnapshot]:
    """Return the snapshots that a shard may be replayed from, newest first.

    Args:
        kept: All snapshots of the shard, by increasing number; at least one.
        committed: The committed offsets. A snapshot that claims to be ahead of them, or at a negative offset, is
            damaged.
        older_than: See ``worker_api.Broker.load``.
    """
    lineage = [snapshot for snapshot in reversed(kept) if snapshot.lineage == kept[-1].lineage][:KEPT_FOR_REPLAY]
    return [
        snapshot
        for snapshot in lineage
        if 0 <= snapshot.positions.events <= committed.events
        and 0 <= snapshot.positions.labels <= committed.labels
        and (older_than is None or snapshot.number < older_than)
    ]


def superseded(kept: Sequence[KeptSnapshot], settings: Settings) -> list[KeptSnapshot]:
    """Return the snapshots that can be dropped.

    Kept are those that a replay may need, the last one before the current lineage, and the history, which takes the
    first snapshot of each interval.

    Args:
        kept: All snapshots of the shard, by increasing number; at least one.
        settings: ``worker.snapshot_history`` and its interval.
    """
    worker = settings.worker
    needed = {snapshot.number for snapshot in kept[-KEPT_FOR_REPLAY:]}
    earlier_lineages = [snapshot for snapshot in kept if snapshot.lineage != kept[-1].lineage]
    needed |= {snapshot.number for snapshot in earlier_lineages[-1:]}
    spaced: list[KeptSnapshot] = []
    for snapshot in kept[:-KEPT_FOR_REPLAY]:
        if not spaced or snapshot.saved_ms - spaced[-1].saved_ms >= worker.snapshot_history_interval_seconds * 1000:
            spaced.append(snapshot)
    needed |= {snapshot.number for snapshot in spaced[max(0, len(spaced) - worker.snapshot_history) :]}
    return [snapshot for snapshot in kept if snapshot.number not in needed]


def journal_floor(kept: Sequence[KeptSnapshot]) -> InputOffsets | None:
    """Return the offsets at or before which the journal's step boundaries are no longer needed.

    Args:
        kept: All snapshots of the shard, by increasing number; at least one.

    Returns:
        None while all boundaries are needed, so that even the first snapshot may be lost.
    """
    newest = kept[-1]
    lineage = [snapshot for snapshot in kept if snapshot.lineage == newest.lineage]
    if len(lineage) >= KEPT_FOR_REPLAY:
        return lineage[-KEPT_FOR_REPLAY].positions
    return newest.positions if newest.lineage or newest.number > 1 else None


def must_rebuild(shard: int, kept: Sequence[KeptSnapshot], oldest: InputOffsets) -> bool:
    """Decide how to resume a shard that has no usable snapshot.

    Args:
        shard: The shard's number.
        kept: All snapshots of the shard, by increasing number.
        oldest: The oldest offsets kept of its inputs.

    Returns:
        True when the shard must process its topics from their beginning; False when its journal still reaches back to
        where the shard began.

    Raises:
        StateError: The topics do not reach back to their beginning.
    """
    if not kept or (kept[-1].lineage == 0 and kept[-1].number == 1):
        return False
    if oldest.events == oldest.labels == 0:
        return True
    raise StateError(
        f"No snapshot of shard {shard} can be used, and its topics do not reach back to their beginning any more: "
        f"they hold events from offset {oldest.events}, labels from {oldest.labels}.",
        hint=f"`stream-ad snapshots list` shows what is kept. `stream-ad snapshots restore {shard} NUMBER` goes on "
        f"with an older model, `stream-ad snapshots reset {shard}` with a new one.",
    )


def require_offset(shard: int, topic: str, wanted: int, bounds: tuple[int, int]) -> None:
    """Refuse to continue reading from an offset that is not there.

    Args:
        shard: The shard's number.
        topic: Name of one of its input topics.
        wanted: The next offset to read.
        bounds: The oldest offset kept, and the next one to be written.

    Raises:
        LostRecordsError: The wanted offset lies outside the bounds.
    """
    oldest, end = bounds
    if oldest <= wanted <= end:
        return
    why = "the topic was recreated" if wanted > end else "retention has deleted what was before"
    raise LostRecordsError(
        f"{topic}[{shard}] has no offset {wanted} any more: it holds {oldest} to {end}; {why}.",
        shard=shard,
        hint="Set broker.on_lost_records=continue to go on with the oldest records kept, and count what is missing; "
        f"`stream-ad snapshots reset {shard} --at oldest` does so with a new model.",
    )


def no_such_snapshot(shard: int, number: int, kept: Sequence[KeptSnapshot]) -> StateError:
    """Return the error for a snapshot number that is not kept."""
    numbers = ", ".join(str(snapshot.number) for snapshot in kept) or "none"
    return StateError(
        f"Shard {shard} has no snapshot {number}; there are: {numbers}.", hint="`stream-ad snapshots list` shows them."
    )


def refuse_newest(shard: int, number: int, kept: Sequence[KeptSnapshot]) -> None:
    """Raise StateError unless this snapshot is kept and is not the newest one."""
    numbers = {snapshot.number for snapshot in kept}
    if number not in numbers:
        raise no_such_snapshot(shard, number, kept)
    if number == max(numbers):
        raise StateError(
            f"Snapshot {number} of shard {shard} is its newest; the next start needs it.",
            hint=f"Begin with another one first: `stream-ad snapshots restore {shard} NUMBER`, or "
            f"`stream-ad snapshots reset {shard}` for a new model.",
        )


def damaged_data(shard: int, number: int) -> DamagedStateError:
    """Return the error for a snapshot whose data differs from what was written."""
    return DamagedStateError(
        f"Snapshot {number} of shard {shard} is damaged: its data is not what was written.",
        hint="`stream-ad snapshots list` shows the others.",
    )


def next_number(kept: Sequence[KeptSnapshot]) -> int:
    """Return the number of a shard's next snapshot.

    Args:
        kept: All snapshots of the shard, by increasing number.
    """
    return kept[-1].number + 1 if kept else 1


def next_snapshot(
    kept: Sequence[KeptSnapshot], *, positions: InputOffsets, lineage_reason: str, saved_ms: int, size_bytes: int
) -> KeptSnapshot:
    """Return the description of a shard's next snapshot, with its number and lineage.

    Args:
        kept: All snapshots of the shard, by increasing number.
        positions: The offsets up to which the state has read.
        lineage_reason: See ``worker_api.Commit.lineage_reason``.
        saved_ms: Milliseconds since the epoch.
        size_bytes: Size of the data.
    """
    number = next_number(kept)
    lineage = number if lineage_reason else kept[-1].lineage if kept else 0
    return KeptSnapshot(number, positions, lineage, lineage_reason, saved_ms, size_bytes)
