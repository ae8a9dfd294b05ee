"""Restore an older model, or start with a new one, while no worker owns the shard.

1. Build the model: from the older snapshot, or a new one.
2. Choose the offsets to resume at (`ResumeAt`).
3. Copy the open incidents of the newest snapshot into the model, so that they will be closed.
4. Write the model as the first snapshot of a new lineage. Older snapshots stay, as the way back.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from stream_ad.detector.row_store import NonsenseError
from stream_ad.errors import SettingsError, StateError
from stream_ad.shard.shard import Shard
from stream_ad.shard.snapshot_format import metadata, read_header

if TYPE_CHECKING:
    from stream_ad.brokers.tools_api import Snapshots
    from stream_ad.brokers.worker_api import InputOffsets, KeptSnapshot
    from stream_ad.settings import Settings


class ResumeAt(StrEnum):
    """Where a shard resumes."""

    committed = "committed"
    """After the last published result."""
    oldest = "oldest"
    """At the oldest records kept: everything published since then is published again."""
    newest = "newest"
    """After the newest record: unread records are skipped."""


def require_shard(settings: Settings, shard: int) -> None:
    """Check the number of a shard.

    Raises:
        SettingsError: There is no such shard.
    """
    if not 0 <= shard < settings.topics.partitions:
        raise SettingsError(
            f"There is no shard {shard}: topics.partitions is {settings.topics.partitions}.",
            hint=f"Shards are numbered from 0 to {settings.topics.partitions - 1}.",
        )


def restore(snapshots: Snapshots, settings: Settings, shard: int, number: int, resume_at: ResumeAt) -> KeptSnapshot:
    """Make the model of an older snapshot the newest one; nothing that was published changes.

    Raises:
        ShardBusyError: A worker owns the shard.
        StateError: There is no such snapshot, or it cannot be used; UnfitStateError where it does not fit the settings.
    """
    data = snapshots.read(shard, number)
    old = Shard.restore(data, settings.detector_options, incidents=settings.incidents)
    return _begin(snapshots, shard, old, resume_at, f"restored from {number}")


def reset(snapshots: Snapshots, settings: Settings, shard: int, resume_at: ResumeAt) -> KeptSnapshot:
    """Make a new model the newest one; nothing that was published changes, and older snapshots stay.

    Raises:
        ShardBusyError: A worker owns the shard.
        StateError: ``resume_at`` is ``committed``, and the committed offsets are missing or deleted.
    """
    new = Shard(settings.detector_options, incidents=settings.incidents)
    return _begin(snapshots, shard, new, resume_at, "reset")


def _begin(snapshots: Snapshots, shard: int, model: Shard, resume_at: ResumeAt, lineage_reason: str) -> KeptSnapshot:
    positions = _positions(snapshots, shard, resume_at)
    _take_over_incidents(snapshots, shard, model)
    return snapshots.start_lineage(shard, model.snapshot(), positions=positions, lineage_reason=lineage_reason)


def _positions(snapshots: Snapshots, shard: int, resume_at: ResumeAt) -> InputOffsets:
    oldest, ends = snapshots.bounds(shard)
    if resume_at is not ResumeAt.committed:
        return oldest if resume_at is ResumeAt.oldest else ends
    committed = snapshots.positions(shard)
    if committed is None:
        raise StateError(
            f"The committed offsets of shard {shard} are missing.",
            hint="Say where to resume: --at oldest, or --at newest.",
        )
    for topic in ("events", "labels"):
        at, first, end = (int(getattr(offsets, topic)) for offsets in (committed, oldest, ends))
        if not first <= at <= end:
            raise StateError(
                f"Shard {shard} had reached offset {at} of its {topic}, which now hold {first} to {end}.",
                hint="Say where to resume: --at oldest, or --at newest.",
            )
    return committed


def _take_over_incidents(snapshots: Snapshots, shard: int, model: Shard) -> None:
    """Copy the open incidents of the newest snapshot: they were published as open, and must be closed some day."""
    for newest in snapshots.kept(shard)[:1]:
        try:
            open_now = read_header(metadata(snapshots.read(shard, newest.number)))["incidents"]
        except (StateError, NonsenseError):
            return  # a damaged snapshot says nothing about them
        model.incidents.load(open_now)
