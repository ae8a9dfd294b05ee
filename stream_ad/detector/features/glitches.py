"""Glitches among the first readings of a feature, before anything is known that they could be held against.

A sensor that starts up sends -9999, 65535 or the largest double now and then. One such reading in a mean and
variance of a hundred hides all that follows for tens of thousands of events. What stands far outside the range of
nearly all readings held so far is therefore learned by nothing, as if it were missing, and the memory that the next
events are derived from is gone through again without it. A rare state of a machine may look the same at first:
until the first readings are complete, what was left out of one learn point is looked at again at the next.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.features.origin import move_origin, shift_back
from stream_ad.detector.features.scaler import CLIP_AFTER
from stream_ad.detector.features.temporal import MOST
from stream_ad.detector.feedback.label_head import MOST_GATE
from stream_ad.kernels.jit import Arrays, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.detector.sensor_state import SensorState

HELD = 256  # latest readings that are looked at
FEW = 5  # readings, below which nothing can be told apart, and nothing is learned in the warm-up
MOST_EACH_SIDE = 4  # readings that are set aside at each end; with fewer than 17, a quarter of them at the most
ENOUGH, REACH, REACH_OF_FEW = 16, 4.0, 10.0  # times the range of the others, beyond which one is a glitch
REACH_OF_CONSTANT = 100.0  # times its size, where the others do not vary at all
OFF_CENTRE = 64.0  # times the range, that the first readings may be away from their origin
ROUNDING = 2.0**-20  # eight steps of a float32: a range below it is rounding
WHOLE = 2.0**24  # up to here, whole numbers are exact
WANDERED = 2.0**-34  # of its squared distance from the origin: a variance below it is rounded away soon
ROUNDED = 2.0**-44  # and below this one it is nothing but rounding


@dataclass(slots=True)
class Screened:
    """What was found at one learn point, for sensors (A,) of it with events (A, B)."""

    spoiled: NDArray[np.bool_]  # (A, B) latest events whose scores tell of a glitch
    put_aside: list[tuple[int, int, NDArray[np.int64], NDArray[np.float32], float]] = field(default_factory=list)
    """Readings that count again after this learn point: row, feature, slots, values, origin."""

    def put_back(self, state: SensorState, rows: NDArray[np.int64]) -> None:
        """Let the readings of these rows that were put aside stand where they stood."""
        wanted = set(rows.tolist())
        for row, feature, slots, values, origin in self.put_aside:
            if row in wanted:
                shift_back(values, float(state.temporal.shift[row, feature]) - origin)
                state.pending.readings[row, slots, feature] = values
        self.put_aside = [entry for entry in self.put_aside if entry[0] not in wanted]


def screen(
    state: SensorState, rows: NDArray[np.int64], age: NDArray[np.int64], warm: NDArray[np.bool_]
) -> Screened | None:
    """Take glitches out of what some sensors have kept, and let their origins follow the readings.

    Returns nothing where all is well known, as it nearly always is.

    Args:
        state: Of the detector.
        rows: (A,) sensors at their learn point.
        age: (A,) their events so far, or since the last outage.
        warm: (A,) whether they are in the warm-up.
    """
    temporal, pending, batch = state.temporal, state.pending, state.batch
    due = np.empty(len(rows), np.bool_)
    known = temporal.shift, temporal.last, temporal.gate_var, temporal.gate_jump, state.scaler.count
    if not _due(rows, warm, known, due):
        return None
    most = state.options.learning.warmup_events
    screened = Screened(np.zeros((len(rows), batch), np.bool_))
    some = np.flatnonzero(due)
    shape = len(some), state.features
    bounds, by = np.empty((2, *shape)), np.zeros(shape)
    few, lost, outside = (np.zeros(shape, np.bool_) for _ in range(3))
    first = np.maximum(pending.count[rows[some]] - min(HELD, pending.capacity), 0)
    first = np.maximum(first, state.outage.began[rows[some]])
    _find_bounds(
        rows[some],
        (warm[some], first, pending.count, batch),
        (*known, temporal.jump),
        pending.readings,
        (bounds, by, few, lost, outside),
    )
    for a in np.flatnonzero((by != 0).any(axis=1) | (few | lost | outside).any(axis=1)).tolist():
        row = int(rows[some[a]])
        complete = not warm[some[a]] or age[some[a]] > min(most, HELD) - batch
        places = np.arange(first[a], pending.count[row])
        for feature in np.flatnonzero(few[a] | lost[a] | outside[a]).tolist():
            readings = pending.readings[row, places % pending.kept_readings, feature]
            out = (readings < bounds[0, a, feature]) | (readings > bounds[1, a, feature])
            if few[a, feature] or lost[a, feature]:
                out = ~np.isnan(readings)
            slots, new = places[out] % pending.kept_readings, places[out & (places >= state.seen[row])]
            if not lost[a, feature] and (few[a, feature] or not complete):
                screened.put_aside.append((row, feature, slots, readings[out], float(temporal.shift[row, feature])))
            pending.readings[row, slots, feature] = np.nan
            if len(new) and not few[a, feature]:
                screened.spoiled[some[a]] |= _spoiled(state, row, new)
                _forget(state, row, feature, int(new[0]))
        for feature in np.flatnonzero(by[a]).tolist():
            move_origin(state, row, feature, float(by[a, feature]))
    return screened


def _spoiled(state: SensorState, row: int, glitches: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(B,) which of a sensor's latest events were scored as they were because of glitches."""
    latest: NDArray[np.int64] = state.pending.latest(np.array([row]), state.batch)[0]
    if state.temporal.open_share[row] < MOST_GATE:  # each event is scored by itself
        return np.isin(latest, glitches)
    return latest >= glitches[0]


def _forget(state: SensorState, row: int, feature: int, glitch: int) -> None:
    """Go through a feature's memory again from the block of a glitch on; smoothed errors begin anew."""
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


@kernel
def _due(rows: NDArray[np.int64], warm: NDArray[np.bool_], known: Arrays, due: NDArray[np.bool_]) -> bool:
    """Which sensors have features of which little is known, or that have wandered off; whether any has."""
    shift, last, gate_var, gate_jump, count = known
    some = False
    for a in range(len(rows)):
        s = rows[a]
        due[a] = warm[a]
        for f in range(shift.shape[1]):
            young = count[s, f] < CLIP_AFTER and not np.isnan(shift[s, f])
            due[a] |= young or _wandered(last[s, f], gate_var[s, f], gate_jump[s, f])
        some |= due[a]
    return some


@kernel
def _wandered(last: float, var: float, jump: float) -> bool:
    """Whether a reading is so far from its origin that float32 will soon not tell its changes apart.

    Where it does not tell them apart any more, what is known of the feature is rounding and would not be true nearer.
    """
    square = last * last
    return min(var, jump) < WANDERED * square and var >= ROUNDED * square


@kernel
def _find_bounds(
    rows: NDArray[np.int64],
    events: tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64], int],
    known: Arrays,
    kept: NDArray[np.float32],
    out: Arrays,
) -> None:
    """Between which bounds readings are no glitches, and by how much their origins are to move.

    Args:
        rows: (A,) sensors.
        events: (A,) whether in warm-up; (A,) number of the first event that is looked at; (S,) of the next one;
            events of a batch.
        known: (S, F) each.
        kept: (S, R, F) the ring of readings.
        out: Filled, (A, F) each: the bounds (2, A, F); moves of the origin; whether there are too few readings;
            whether they all are rounding; whether one is outside the bounds.
    """
    warm, first, count, batch = events
    shift, last, gate_var, gate_jump, learned, jump = known
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
                # A constant reading is constant to the last digit: its float32 is not what the next ones are off.
                exact = spread == 0 and np.float32(last[s, f]) == np.float32(centre)
                by[a, f] = last[s, f] if exact else centre
                rough = spread < ROUNDING * abs(centre) and (spread > 0 or abs(centre) >= WHOLE)
                lost[a, f] = rough and jump[s, f] != 0


@kernel
def _ends(
    kept: NDArray[np.float32],
    at: tuple[int, int],
    places: tuple[int, int],
    least: NDArray[np.float64],
    largest: NDArray[np.float64],
) -> int:
    """Fill in the least and the largest readings of some events, the outermost first; returns how many there are."""
    s, f = at
    least[:], largest[:] = np.inf, -np.inf
    number, end = 0, len(least) - 1
    for place in range(places[0], places[1]):
        x = np.float64(kept[s, place % kept.shape[1], f])
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
