"""Restore a shard: choose the snapshot to resume from, and the offsets to replay from.

The rule is the newest snapshot, and a replay from its offsets to those committed. The exceptions, each of which is
logged at ERROR:

- A damaged snapshot is skipped for the previous one.
- Where no snapshot is left, the shard learns again from the beginning of its topics.
- Where the settings give models of another shape, a new model starts from the committed offsets.
- Where records are gone, they are skipped if ``broker.on_lost_records`` allows it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from stream_ad.brokers.worker_api import InputOffsets, InputTopic, ShardCheckpoint
from stream_ad.errors import DamagedStateError, LostRecordsError, UnfitStateError

if TYPE_CHECKING:
    from stream_ad.brokers.worker_api import Broker
    from stream_ad.detector.config import DetectorOptions
    from stream_ad.settings import Settings
    from stream_ad.shard.shard import Shard

_log = structlog.get_logger("stream_ad.worker.worker")


@dataclass(frozen=True, slots=True, eq=False)
class LoadedState:
    """A shard at the beginning of its replay."""

    shard: Shard
    stored: ShardCheckpoint
    start: InputOffsets
    """Offsets at which the replay begins; it ends at ``stored.positions``."""
    source: str
    """One of ``telemetry.metrics.RESTORE_SOURCES``."""
    lineage_reason: str = ""
    """See ``Commit.lineage_reason``: not empty where the next snapshot starts a new lineage."""
    without_journal: bool = False
    """The journal does not reach back to ``start``: the replay merges by record time alone."""
    lost: tuple[tuple[InputTopic, int], ...] = ()
    """Number of lost offsets of each topic."""


def load_state(
    number: int, broker: Broker, settings: Settings, options: DetectorOptions, shard_class: type[Shard]
) -> LoadedState:
    """Load a shard, and position its inputs where its replay begins.

    1. Restore the newest usable snapshot, or create a shard without one (``_restored``).
    2. Position the inputs at the committed offsets, to check that the records from there on still exist.
    3. Position them at the start of the replay.
    4. If records are gone and may be skipped, move both to the oldest records that exist (``_without_lost_records``),
       and position the inputs again.

    Args:
        number: Number of the shard.
        broker: Where it is stored.
        settings: All settings.
        options: Settings of the detector.
        shard_class: Creates and restores shards.

    Raises:
        BrokerError: The broker does not return the stored state.
        LostRecordsError: Records are gone, and ``broker.on_lost_records`` is stop.
        StateError: No stored state can be used, or it has another format.
    """
    state = _restored(number, broker, settings, options, shard_class)
    try:
        if state.start != state.stored.positions:
            broker.seek(number, state.stored.positions)
        broker.seek(number, state.start)
    except LostRecordsError as error:
        if settings.broker.on_lost_records == "stop":
            raise
        state = _without_lost_records(state, *broker.bounds(number))
        broker.seek(number, state.start)
        _log.error(
            "records are gone; continuing with the oldest that are left",
            shard=number,
            reason=error.what,
            lost={topic.value: count for topic, count in state.lost},
            go_on=str(state.stored.positions),
        )
    return state


def _restored(
    number: int, broker: Broker, settings: Settings, options: DetectorOptions, shard_class: type[Shard]
) -> LoadedState:
    """Return the shard of the newest usable snapshot.

    1. Load the newest snapshot. Where there is none, create a shard (``_without_snapshot``).
    2. Restore the shard from it.
    3. If the snapshot is damaged, repeat with the one before it.
    4. If it does not fit the settings, create a shard that starts from the committed offsets.
    """
    incidents, expected, older_than = settings.incidents, settings.scores.expected, None
    while True:
        stored = broker.load(number, older_than=older_than)
        if (snapshot := stored.snapshot) is None:
            return _without_snapshot(number, stored, shard_class(options, incidents=incidents, expected=expected))
        try:
            shard = shard_class.restore(snapshot.data, options, incidents=incidents, expected=expected)
        except DamagedStateError as error:
            _log.error(
                "a snapshot cannot be used; trying the one before",
                shard=number, snapshot=snapshot.number, error=str(error),
            )  # fmt: skip
            older_than = snapshot.number
        except UnfitStateError as error:
            _log.error(
                "the settings do not fit the snapshot: a NEW MODEL starts, and learns from the beginning",
                shard=number, kept_snapshot=snapshot.number, error=str(error),
            )  # fmt: skip
            shard = shard_class(options, incidents=incidents, expected=expected)
            fresh = ShardCheckpoint(stored.positions)
            lineage_reason = f"new model: snapshot {snapshot.number} did not fit the settings"
            return LoadedState(shard, fresh, fresh.positions, "new_model", lineage_reason)
        else:
            source = "snapshot" if older_than is None else "older_snapshot"
            return LoadedState(shard, stored, snapshot.positions, source)


def _without_snapshot(number: int, stored: ShardCheckpoint, shard: Shard) -> LoadedState:
    """Return a new shard, which replays its journal or, where all its snapshots are unusable, its whole topics."""
    if stored.rebuild:
        _log.error(
            "no snapshot can be used; learning again from the beginning of the topics",
            shard=number, positions=stored.positions,
        )  # fmt: skip
        lineage_reason = "rebuilt from the beginning of the topics"
        return LoadedState(shard, stored, InputOffsets(), "beginning", lineage_reason, without_journal=True)
    start = stored.journal[0] if stored.journal else stored.positions
    return LoadedState(shard, stored, start, "nothing")


def _without_lost_records(state: LoadedState, oldest: InputOffsets, end: InputOffsets) -> LoadedState:
    """Return a state whose replay uses only records that exist.

    Args:
        state: The state before.
        oldest: Offsets of the oldest record of each topic.
        end: Offsets after the newest.
    """
    positions, starts, lost = [], [], []
    for topic in InputTopic:
        committed = state.stored.positions.of(topic)
        resumed = committed if oldest.of(topic) <= committed <= end.of(topic) else oldest.of(topic)
        positions.append(resumed)
        starts.append(min(resumed, max(state.start.of(topic), oldest.of(topic))))
        lost.append((topic, max(0, resumed - committed)))
    return replace(
        state,
        stored=ShardCheckpoint(InputOffsets(*positions)),
        start=InputOffsets(*starts),
        lineage_reason=state.lineage_reason or "records were lost",
        without_journal=True,
        lost=tuple(lost),
    )
