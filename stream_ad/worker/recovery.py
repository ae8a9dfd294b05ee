"""From what a broker has stored to a shard in memory: which state it goes on with, and from where.

The newest snapshot as a rule. A damaged one gives way to the one before, and where none is left the shard goes
through its topics from their beginning. Settings that give models of another shape start a new one. Records that
are gone are stepped over where ``broker.on_lost_records`` says so. Whatever is not the rule is said loudly.
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
    """A shard as it goes into its replay."""

    shard: Shard
    stored: ShardCheckpoint
    start: InputOffsets
    source: str
    """One of ``telemetry.metrics.RESTORE_SOURCES``."""
    lineage_reason: str = ""
    """See ``Commit.lineage_reason``: not empty where the first snapshot from here on begins a new line."""
    unmarked: bool = False
    """The journal does not reach back to the start: the replay merges by record time alone."""
    lost: tuple[tuple[InputTopic, int], ...] = ()
    """Offsets of each side that nobody will ever read."""


def load_state(
    number: int, broker: Broker, settings: Settings, options: DetectorOptions, make: type[Shard]
) -> LoadedState:
    """Load a shard and position it where its replay begins.

    Raises:
        BrokerError: The broker does not give it.
        LostRecordsError: Records are gone, and ``broker.on_lost_records`` is stop.
        StateError: Nothing that is stored can be used, or it is of another format.
    """
    state = _restored(number, broker, settings, options, make)
    try:
        if state.start != state.stored.positions:
            broker.seek(number, state.stored.positions)
        broker.seek(number, state.start)
    except LostRecordsError as error:
        if settings.broker.on_lost_records == "stop":
            raise
        state = _without_the_lost(state, broker.bounds(number))
        broker.seek(number, state.start)
        _log.error(
            "records are gone; going on with the oldest kept",
            shard=number,
            reason=error.what,
            lost={side.value: count for side, count in state.lost},
            go_on=str(state.stored.positions),
        )
    return state


def _restored(
    number: int, broker: Broker, settings: Settings, options: DetectorOptions, make: type[Shard]
) -> LoadedState:
    quiet, older = settings.incidents.quiet_events, None
    while True:
        stored = broker.load(number, older_than=older)
        if (snapshot := stored.snapshot) is None:
            return _without_snapshot(number, stored, make(options, quiet_events=quiet))
        try:
            shard = make.restore(snapshot.data, options, quiet_events=quiet)
        except DamagedStateError as error:
            _log.error(
                "a snapshot cannot be used; trying the one before",
                shard=number, snapshot=snapshot.number, error=str(error),
            )  # fmt: skip
            older = snapshot.number
        except UnfitStateError as error:
            _log.error(
                "the settings do not fit the snapshot: a NEW MODEL starts, and learns anew",
                shard=number, kept_snapshot=snapshot.number, error=str(error),
            )  # fmt: skip
            shard = make(options, quiet_events=quiet)
            fresh = ShardCheckpoint(stored.positions)
            lineage_reason = f"new model: snapshot {snapshot.number} did not fit the settings"
            return LoadedState(shard, fresh, fresh.positions, "new_model", lineage_reason)
        else:
            source = "snapshot" if older is None else "older_snapshot"
            return LoadedState(shard, stored, snapshot.positions, source)


def _without_snapshot(number: int, stored: ShardCheckpoint, shard: Shard) -> LoadedState:
    if stored.rebuild:
        _log.error(
            "no snapshot can be used; learning anew from the beginning of the topics",
            shard=number, positions=stored.positions,
        )  # fmt: skip
        lineage_reason = "rebuilt from the beginning of the topics"
        return LoadedState(shard, stored, InputOffsets(), "beginning", lineage_reason, unmarked=True)
    start = stored.journal[0] if stored.journal else stored.positions
    return LoadedState(shard, stored, start, "nothing")


def _without_the_lost(state: LoadedState, bounds: tuple[InputOffsets, InputOffsets]) -> LoadedState:
    """The same state, set to what can still be read."""
    starts, ends, lost = [], [], []
    for side in InputTopic:
        oldest, end, start, committed = (
            int(getattr(one, side.value)) for one in (*bounds, state.start, state.stored.positions)
        )
        here = committed if oldest <= committed <= end else oldest
        ends.append(here)
        starts.append(min(here, max(start, oldest)))
        lost.append((side, max(0, here - committed)))
    return replace(
        state,
        stored=ShardCheckpoint(InputOffsets(*ends)),
        start=InputOffsets(*starts),
        lineage_reason=state.lineage_reason or "records were lost",
        unmarked=True,
        lost=tuple(lost),
    )
