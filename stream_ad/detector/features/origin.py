"""Where the origin of a reading lies, and how it moves: float32 keeps the digits of what is near it.

A reading is kept, scaled and learned as its distance from the origin (``TemporalFeatures.shift``). The origin of a new
feature is 0; at learn points it moves to where the readings are, and after them when they have wandered off so far
that what varies of them would be rounded away. Everything that is counted from it moves along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.detector.sensor_state import SensorState

DISTANCES = (0, 1, 3, 4)  # which of a block's notes are counted from the origin: level, last value, reach of memory


def move_origin(state: SensorState, row: int, feature: int, by: float) -> None:
    """Move the origin of one feature of a sensor; all that is known of the feature stays as it is."""
    temporal, scaler, pending = state.temporal, state.scaler, state.pending
    temporal.shift[row, feature] += by
    temporal.level[row, feature] -= by
    temporal.last[row, feature] -= by
    if temporal.gate_count[row, feature] > 0:  # no mean yet: to the last digit it would not be 0 again
        temporal.gate_mean[row, feature] -= by
    if scaler.count[row, feature] > 0:
        scaler.mean[row, feature] -= by
        scaler.follow(row, feature)
    shift_back(pending.readings[row, :, feature], by)
    for figure in DISTANCES:
        pending.ewma_checkpoints[row, :, figure, feature] -= np.float32(by)
    replay = state.network.replay
    if state.shared:
        shift_back(replay.derived[0, :, feature], by, replay.sensor[0] == row)
    else:
        replay.center[row, feature] -= np.float32(by)
    if state.head.has(np.array([row]))[0]:
        rings = state.head.rings
        for ring in (rings.normal, rings.anomaly):
            shift_back(ring[state.head.side_row[row], :, feature], by)


def shift_back(readings: NDArray[np.float32], by: float, some: NDArray[np.bool_] | None = None) -> None:
    """Take the move of the origin off kept readings, in place; ``some`` says which, where not all are meant.

    What float32 could not tell from the new origin lies on it: a constant reading stays constant.
    """
    on_it = readings == np.float32(by)
    moved = np.where(on_it, 0, readings.astype(np.float64) - by)
    readings[:] = moved if some is None else np.where(some, moved, readings)
