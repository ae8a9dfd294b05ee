"""Glitches among the first readings of a feature, and origins that follow the readings.

A sensor that starts up sends -9999, 65535 or the largest double now and then. One such reading in the mean and
variance of a hundred hides everything after it for tens of thousands of events. At each learn point of the warm-up:

1. Readings far outside the range of nearly all kept readings are found (``_find_bounds``).
2. They are treated as missing: nothing learns them.
3. The EWMAs that the next events are derived from are replayed without them (``_forget``).
4. A rare state of a machine may look the same at first: until the first readings are complete, readings set aside at
   one learn point are put back and examined again at the next (``Screened``).

It fails when glitches are more than a quarter of the first readings, or more than four at one end of them: they are
then taken for part of the usual range.

A reading is kept, scaled and learned as its distance from an origin (``TemporalFeatures.shift``), since float32 keeps
the digits of small numbers only. The origin of a new feature is 0; at learn points it moves to the readings, and
later follows them when they have wandered off so far that their changes would be rounded away. Everything that is
measured from the origin moves with it (``move_origin``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.features.scaler import CLIP_AFTER
from stream_ad.detector.features.temporal import MOST
from stream_ad.detector.feedback.label_head import MOST_GATE
from stream_ad.kernels.jit import Arrays, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.detector.sensor_state import SensorState

HELD = 256  # latest readings that are examined
FEW = 5  # readings below which a glitch cannot be recognised, and nothing is learned in the warm-up
MOST_EACH_SIDE = 4  # readings ignored at each end of the range; of fewer than 17 readings, at most a quarter
ENOUGH, REACH, REACH_OF_FEW = 16, 4.0, 10.0  # a glitch is farther out than 4 ranges of the others, 10 of fewer than 16
REACH_OF_CONSTANT = 100.0  # where the others do not vary, a glitch is farther out than 100 times their size
OFF_CENTRE = 64.0  # ranges that the first readings may be away from their origin
ROUNDING = 2.0**-20  # a range below this share of the distance is rounding: eight steps of a float32
WHOLE = 2.0**24  # whole numbers up to this one are exact in float32
WANDERED = 2.0**-34  # share of its squared distance from the origin below which a variance will be rounded away soon
ROUNDED = 2.0**-44  # share below which it is nothing but rounding
DISTANCES = (0, 1, 3, 4)  # figures of an EWMA checkpoint that are measured from the origin: level, last, both bounds


@dataclass(slots=True)
class Screened:
    """Glitches found at one learn point, for its sensors (A,) and their latest events (A, B)."""

    spoiled: NDArray[np.bool_]  # (A, B) events whose scores were raised by a glitch
    put_aside: list[tuple[int, int, NDArray[np.int64], NDArray[np.float32], float]] = field(default_factory=list)
    """Readings that count again after this learn point: row, feature, slots (K,), values (K,), origin."""

    def put_back(self, state: SensorState, rows: NDArray[np.int64]) -> None:
        """Restore the readings of the rows (A,) that were set aside."""
        wanted = set(rows.tolist())
        for row, feature, slots, values, origin in self.put_aside:
            if row in wanted:
                shift_back(values, float(state.temporal.shift[row, feature]) - origin)
                state.pending.readings[row, slots, feature] = values
        self.put_aside = [entry for entry in self.put_aside if entry[0] not in wanted]


def screen(
    state: SensorState, rows: NDArray[np.int64], age: NDArray[np.int64], warm: NDArray[np.bool_]
) -> Screened | None:
    """Remove glitches from the kept readings, and let origins follow the readings.

    Args:
        state: State of the detector.
        rows: (A,) sensors at their learn point.
        age: (A,) events of each sensor so far, or since its last outage.
        warm: (A,) whether each sensor is in its warm-up.

    Returns:
        What was found; None if no sensor needs screening, as nearly always after the warm-up.
    """
    temporal, pending, batch = state.temporal, state.pending, state.batch
    due = np.empty(len(rows), np.bool_)
    figures = temporal.shift, temporal.last, temporal.gate_var, temporal.gate_jump, state.scaler.count
    if not _due(rows, warm, figures, due):
        return None
    most = state.options.learning.warmup_events
    screened = Screened(np.zeros((len(rows), batch), np.bool_))
    screening = np.flatnonzero(due)
    shape = len(screening), state.features
    bounds, by = np.empty((2, *shape)), np.zeros(shape)
    few, lost, outside = (np.zeros(shape, np.bool_) for _ in range(3))
    first = np.maximum(pending.count[rows[screening]] - min(HELD, pending.capacity), 0)
    first = np.maximum(first, state.outage.began[rows[screening]])
    _find_bounds(
        rows[screening],
        (warm[screening], first, pending.count, batch),
        (*figures, temporal.jump),
        pending.readings,
        (bounds, by, few, lost, outside),
    )
    for a in np.flatnonzero((by != 0).any(axis=1) | (few | lost | outside).any(axis=1)).tolist():
        row = int(rows[screening[a]])
        complete = not warm[screening[a]] or age[screening[a]] > min(most, HELD) - batch
        event_numbers = np.arange(first[a], pending.count[row])
        for feature in np.flatnonzero(few[a] | lost[a] | outside[a]).tolist():
            readings = pending.readings[row, event_numbers % pending.kept_readings, feature]
            out = (readings < bounds[0, a, feature]) | (readings > bounds[1, a, feature])
            if few[a, feature] or lost[a, feature]:
                out = ~np.isnan(readings)
            slots = event_numbers[out] % pending.kept_readings
            new = event_numbers[out & (event_numbers >= state.seen[row])]
            if not lost[a, feature] and (few[a, feature] or not complete):
                screened.put_aside.append((row, feature, slots, readings[out], float(temporal.shift[row, feature])))
            pending.readings[row, slots, feature] = np.nan
            if len(new) and not few[a, feature]:
                screened.spoiled[screening[a]] |= _spoiled(state, row, new)
                _forget(state, row, feature, int(new[0]))
        for feature in np.flatnonzero(by[a]).tolist():
            move_origin(state, row, feature, float(by[a, feature]))
    return screened


def _spoiled(state: SensorState, row: int, glitches: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return (B,) whether the score of each of the latest events of a sensor was raised by glitches (K,)."""
    latest: NDArray[np.int64] = state.pending.latest(np.array([row]), state.batch)[0]
    if state.temporal.open_share[row] < MOST_GATE:  # each event is scored by itself
        return np.isin(latest, glitches)
    return latest >= glitches[0]


def _forget(state: SensorState, row: int, feature: int, glitch: int) -> None:
    """Replay the EWMAs of a feature from the block of a glitch on, and reset its smoothed errors."""
    temporal, pending, block = state.temporal, state.pending, state.batch
    stop, blocks = int(pending.count[row]), pending.ewma_checkpoints.shape[1]
    for begin in range(glitch // block * block, stop, block):
        memory = temporal.remember(row, min(begin + block, stop) - 1, pending.readings, pending.ewma_checkpoints)[
            :, feature
        ]
        if begin + block < stop:
            pending.ewma_checkpoints[row, (begin + block) // block % blocks, :3, feature] = memory
    temporal.level[row, feature], temporal.last[row, feature], temporal.jump[row, feature] = memory
    state.scoring.smooth[row, feature + state.features * np.arange(3)] = 0
    state.linear_residuals.smooth[row, feature] = 0


def move_origin(state: SensorState, row: int, feature: int, by: float) -> None:
    """Move the origin of one feature of a sensor by ``by``; what is known of the feature is unchanged, to rounding."""
    temporal, scaler, pending = state.temporal, state.scaler, state.pending
    temporal.shift[row, feature] += by
    temporal.level[row, feature] -= by
    temporal.last[row, feature] -= by
    if temporal.gate_count[row, feature] > 0:  # without a mean, 0 must stay exactly 0
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


def shift_back(readings: NDArray[np.float32], by: float, chosen: NDArray[np.bool_] | None = None) -> None:
    """Subtract the move of the origin from kept readings, in place.

    A reading that float32 cannot distinguish from the new origin becomes exactly 0: a constant stays constant.

    Args:
        readings: (R,) readings as distances from the old origin.
        by: Move of the origin.
        chosen: (R,) readings that are meant, all by default.
    """
    on_it = readings == np.float32(by)
    moved = np.where(on_it, 0, readings.astype(np.float64) - by)
    readings[:] = moved if chosen is None else np.where(chosen, moved, readings)


@kernel
def _due(rows: NDArray[np.int64], warm: NDArray[np.bool_], figures: Arrays, due: NDArray[np.bool_]) -> bool:
    """Mark in ``due`` (A,) the sensors with young features or features that have wandered off; return if any is."""
    shift, last, gate_var, gate_jump, count = figures
    any_due = False
    for a in range(len(rows)):
        s = rows[a]
        due[a] = warm[a]
        for f in range(shift.shape[1]):
            young = count[s, f] < CLIP_AFTER and not np.isnan(shift[s, f])
            due[a] |= young or _wandered(last[s, f], gate_var[s, f], gate_jump[s, f])
        any_due |= due[a]
    return any_due


@kernel
def _wandered(last: float, var: float, jump: float) -> bool:
    """Return whether a reading is so far from its origin that float32 will soon round its changes away.

    Where they are rounded away already, moving the origin would not help: what is known of the feature is rounding.
    """
    square = last * last
    return min(var, jump) < WANDERED * square and var >= ROUNDED * square


@kernel
def _find_bounds(
    rows: NDArray[np.int64],
    events: tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64], int],
    figures: Arrays,
    kept: NDArray[np.float32],
    out: Arrays,
) -> None:
    """Find the bounds outside which readings are glitches, and the moves of their origins.

    Args:
        rows: (A,) sensors.
        events: (A,) whether in warm-up; (A,) number of the first event to examine; (S,) of the next event; events of
            a batch.
        figures: (S, F) each: shift, last reading, variance and mean squared jump of the gate, events of the scaler,
            average jump.
        kept: (S, R, F) ring of readings.
        out: Filled, (A, F) each: the bounds (2, A, F); moves of the origin; whether there are too few readings;
            whether all are rounding; whether one is outside the bounds.
    """
    warm, first, count, batch = events
    shift, last, gate_var, gate_jump, learned, jump = figures
    bounds, by, few, lost, outside = out
    least, largest = np.empty(MOST_EACH_SIDE + 1), np.empty(MOST_EACH_SIDE + 1)
    for a in range(len(rows)):
        s = rows[a]
        for f in range(shift.shape[1]):
            bounds[0, a, f], bounds[1, a, f] = -np.inf, np.inf
            young = warm[a] or learned[s, f] < CLIP_AFTER
            wandered = _wandered(last[s, f], gate_var[s, f], gate_jump[s, f])
            if np.isnan(shift[s, f]) or not (young or wandered):
                continue
            begin = first[a] if young else max(first[a], count[s] - batch)
            number = _ends(kept, (s, f), (begin, count[s]), least, largest)
            if number < FEW:
                few[a, f] = young
                continue
            aside = min((number - 1) // 4, MOST_EACH_SIDE)
            low, high = least[aside], largest[aside]
            spread = high - low
            centre = low + spread / 2
            if not young:
                by[a, f] = centre
                continue
            reach = (REACH if number >= ENOUGH else REACH_OF_FEW) * spread
            if spread == 0:
                reach = REACH_OF_CONSTANT * max(1.0, abs(shift[s, f] + centre))
            bounds[0, a, f], bounds[1, a, f] = low - reach, high + reach
            outside[a, f] = least[0] < low - reach or largest[0] > high + reach
            if OFF_CENTRE * spread < abs(centre) < MOST / 2:
                # The origin of a constant is its exact value: its float32 would leave a difference in every reading.
                exact = spread == 0 and np.float32(last[s, f]) == np.float32(centre)
                by[a, f] = last[s, f] if exact else centre
                rough = spread < ROUNDING * abs(centre) and (spread > 0 or abs(centre) >= WHOLE)
                lost[a, f] = rough and jump[s, f] != 0


@kernel
def _ends(
    kept: NDArray[np.float32],
    at: tuple[int, int],
    event_numbers: tuple[int, int],
    least: NDArray[np.float64],
    largest: NDArray[np.float64],
) -> int:
    """Fill in the smallest and the largest readings (K,) of a range of events, outermost first.

    Returns:
        The number of readings that are not missing.
    """
    s, f = at
    least[:], largest[:] = np.inf, -np.inf
    number, end = 0, len(least) - 1
    for event_number in range(event_numbers[0], event_numbers[1]):
        x = np.float64(kept[s, event_number % kept.shape[1], f])
        if np.isnan(x):
            continue
        number += 1
        if x < least[end]:
            k = end
            while k > 0 and x < least[k - 1]:
                least[k] = least[k - 1]
                k -= 1
            least[k] = x
        if x > largest[end]:
            k = end
            while k > 0 and x > largest[k - 1]:
                largest[k] = largest[k - 1]
                k -= 1
            largest[k] = x
    return number
