"""Going back to an older model, or starting with a new one, while no worker has the shard."""

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
    """Where a shard goes on."""

    committed = "committed"
    """After what was published last."""
    oldest = "oldest"
    """At the oldest records kept: what was published from there on is published again."""
    newest = "newest"
    """After the newest record: what nobody has read is left out."""


def require_shard(settings: Settings, shard: int) -> None:
    """Raise SettingsError where there is no such shard."""
    if not 0 <= shard < settings.topics.partitions:
        raise SettingsError(
            f"There is no shard {shard}: topics.partitions is {settings.topics.partitions}.",
            hint=f"Shards are numbered from 0 to {settings.topics.partitions - 1}.",
        )


def restore(snapshots: Snapshots, settings: Settings, shard: int, number: int, place: ResumeAt) -> KeptSnapshot:
    """Go on with the model of an older snapshot; nothing that was published changes.

    Raises:
        ShardBusyError: A worker has the shard.
        StateError: There is no such snapshot, or it cannot be used; UnfitStateError when other settings would do.
    """
    data = snapshots.read(shard, number)
    old = Shard.restore(data, settings.detector_options, quiet_events=settings.incidents.quiet_events)
    return _begin(snapshots, shard, old, place, f"restored from {number}")


def reset(snapshots: Snapshots, settings: Settings, shard: int, place: ResumeAt) -> KeptSnapshot:
    """Go on with a new model; nothing that was published changes, and older snapshots stay.

    Raises:
        ShardBusyError: A worker has the shard.
        StateError: Nobody knows how far the shard has come, and ``place`` says to go on from there.
    """
    new = Shard(settings.detector_options, quiet_events=settings.incidents.quiet_events)
    return _begin(snapshots, shard, new, place, "reset")


def _begin(snapshots: Snapshots, shard: int, model: Shard, place: ResumeAt, lineage_reason: str) -> KeptSnapshot:
    positions = _positions(snapshots, shard, place)
    _take_over_incidents(snapshots, shard, model)
    return snapshots.start_lineage(shard, model.snapshot(), positions=positions, lineage_reason=lineage_reason)


def _positions(snapshots: Snapshots, shard: int, place: ResumeAt) -> InputOffsets:
    oldest, ends = snapshots.bounds(shard)
    if place is not ResumeAt.committed:
        return oldest if place is ResumeAt.oldest else ends
    committed = snapshots.positions(shard)
    if committed is None:
        raise StateError(
            f"Nobody knows how far shard {shard} has come.", hint="Say where to go on: --at oldest, or --at newest."
        )
    for side in ("events", "labels"):
        if not getattr(oldest, side) <= getattr(committed, side) <= getattr(ends, side):
            raise StateError(
                f"Shard {shard} had come to offset {getattr(committed, side)} of its {side}, and they hold "
                f"{getattr(oldest, side)} to {getattr(ends, side)} now.",
                hint="Say where to go on: --at oldest, or --at newest.",
            )
    return committed


def _take_over_incidents(snapshots: Snapshots, shard: int, model: Shard) -> None:
    """Incidents that are published as open must be closed some day, whatever the model."""
    for one in snapshots.kept(shard)[:1]:
        try:
            open_now = read_header(metadata(snapshots.read(shard, one.number)))["incidents"]
        except (StateError, NonsenseError):
            return  # a damaged one says nothing about them
        model.incidents.load(open_now)
