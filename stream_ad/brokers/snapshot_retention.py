"""Which snapshots are kept, which of them a shard may be replayed from, and how far the journal must reach back.

The same on every broker. Numbers rise with time, and so do positions inside a line; what begins a new line
(``base.Commit.lineage_reason``) does not follow from what was before, so that no replay leads across.
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
"""A damaged snapshot falls back to the one before."""


def for_replay(
    kept: Sequence[KeptSnapshot], committed: InputOffsets, older_than: int | None = None
) -> list[KeptSnapshot]:
    """Those that a shard may be replayed from, the newest first.

    Args:
        kept: All of the shard, by rising number.
        committed: Whatever claims to have seen more, or less than nothing, is damaged.
        older_than: See ``base.Broker.load``.
    """
    line = [one for one in reversed(kept) if one.line == kept[-1].line][:KEPT_FOR_REPLAY]
    return [
        one
        for one in line
        if 0 <= one.positions.events <= committed.events
        and 0 <= one.positions.labels <= committed.labels
        and (older_than is None or one.number < older_than)
    ]


def superseded(kept: Sequence[KeptSnapshot], settings: Settings) -> list[KeptSnapshot]:
    """Those that can go: neither needed for a replay, nor the model before the current line, nor of the history.

    Args:
        kept: All of the shard, by rising number.
        settings: ``worker.snapshot_history`` and its interval.
    """
    worker = settings.worker
    needed = {one.number for one in kept[-KEPT_FOR_REPLAY:]}
    needed |= {one.number for one in [one for one in kept if one.line != kept[-1].line][-1:]}
    spaced: list[KeptSnapshot] = []
    for one in kept[:-KEPT_FOR_REPLAY]:
        if not spaced or one.saved_ms - spaced[-1].saved_ms >= worker.snapshot_history_interval_seconds * 1000:
            spaced.append(one)
    needed |= {one.number for one in spaced[max(0, len(spaced) - worker.snapshot_history) :]}
    return [one for one in kept if one.number not in needed]


def journal_floor(kept: Sequence[KeptSnapshot]) -> InputOffsets | None:
    """Marks at or before it are not needed any more; None while all are, so that a first snapshot may be lost too.

    Args:
        kept: All of the shard, by rising number.
    """
    newest = kept[-1]
    line = [one for one in kept if one.line == newest.line]
    if len(line) >= KEPT_FOR_REPLAY:
        return line[-KEPT_FOR_REPLAY].positions
    return newest.positions if newest.line or newest.number > 1 else None


def must_rebuild(shard: int, kept: Sequence[KeptSnapshot], oldest: InputOffsets) -> bool:
    """How a shard goes on of which no snapshot can be used.

    Args:
        shard: Its number.
        kept: All of it, by rising number.
        oldest: The oldest offsets kept of its inputs.

    Returns:
        True when it must go through its topics from their beginning; False when its journal still reaches back to
        where the shard began.

    Raises:
        StateError: The topics do not reach back.
    """
    if not kept or (kept[-1].line == 0 and kept[-1].number == 1):
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
    """Refuse to read on from an offset that is not there.

    Args:
        shard: Its number.
        topic: Of one side.
        wanted: The next offset to read.
        bounds: The oldest offset kept, and the next one to be written.

    Raises:
        LostRecordsError: It lies before the one or after the other.
    """
    oldest, end = bounds
    if oldest <= wanted <= end:
        return
    why = "the topic was made anew" if wanted > end else "retention has deleted what was before"
    raise LostRecordsError(
        f"{topic}[{shard}] has no offset {wanted} any more: it holds {oldest} to {end}; {why}.",
        shard=shard,
        hint="Set broker.on_lost_records=continue to go on with the oldest records kept, and count what is missing; "
        f"`stream-ad snapshots reset {shard} --at oldest` does so with a new model.",
    )


def no_such_snapshot(shard: int, number: int, kept: Sequence[KeptSnapshot]) -> StateError:
    """What to raise where there is no snapshot of this number."""
    there = ", ".join(str(one.number) for one in kept) or "none"
    return StateError(
        f"Shard {shard} has no snapshot {number}; there are: {there}.", hint="`stream-ad snapshots list` shows them."
    )


def refuse_newest(shard: int, number: int, kept: Sequence[KeptSnapshot]) -> None:
    """Raise StateError unless this snapshot is kept and is not the newest one."""
    if number not in {one.number for one in kept}:
        raise no_such_snapshot(shard, number, kept)
    if number == max(one.number for one in kept):
        raise StateError(
            f"Snapshot {number} of shard {shard} is its newest; the next start needs it.",
            hint=f"Begin with another one first: `stream-ad snapshots restore {shard} NUMBER`, or "
            f"`stream-ad snapshots reset {shard}` for a new model.",
        )


def damaged_data(shard: int, number: int) -> DamagedStateError:
    """What to raise where the data of a snapshot is not what was written."""
    return DamagedStateError(
        f"Snapshot {number} of shard {shard} is damaged: its data is not what was written.",
        hint="`stream-ad snapshots list` shows the others.",
    )


def next_number(kept: Sequence[KeptSnapshot]) -> int:
    """Of the next snapshot of a shard; ``kept``: all of it, by rising number."""
    return kept[-1].number + 1 if kept else 1


def following(
    kept: Sequence[KeptSnapshot], *, positions: InputOffsets, lineage_reason: str, saved_ms: int, size_bytes: int
) -> KeptSnapshot:
    """The next snapshot of a shard, as it is kept."""
    number = next_number(kept)
    line = number if lineage_reason else kept[-1].line if kept else 0
    return KeptSnapshot(number, positions, line, lineage_reason, saved_ms, size_bytes)
