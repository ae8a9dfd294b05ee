"""Stuck readings: a reading that repeats exactly for much longer than it ever did.

Counters stay, valves rest and levels are quantised, so each reading is compared with its own past: the longest run of
repeats among events taken as normal, and how often it moves.

It fails on a sensor that is stuck but noisy (``StuckSensor`` raises the score there), and on a reading that hardly ever
moves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector.row_store import ColumnSpec, SensorTable
from stream_ad.kernels.jit import ZERO, Arrays, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.detector.feedback.event_buffer import EventBuffer

FIRST_EVENTS = 400  # events taken as normal before a reading can be called stuck
LEAST_REPEATS, TIMES_LONGEST = 12.0, 4.0  # a stuck reading repeats more often than 12 and four times the longest run
RESTLESS = 0.9  # share of events at which a reading that never rests moves
MOVES, MOVES_OF_RESTING = 14.0, 80.0  # moves that are missing: of a reading that never rests, and of others
WINDOW = 20_000.0  # events that the share of moves looks back


class Repeats(SensorTable):
    """Repeats of each reading of each sensor: 16 bytes a reading."""

    steps: NDArray[np.int64]  # (S,) events behind the shares of moves
    repeat: NDArray[np.int32]  # (S, F) events for which a reading has not changed
    last: NDArray[np.float32]  # (S, F) latest reading
    longest: NDArray[np.float32]  # (S, F) longest run of repeats of events taken as normal
    moves: NDArray[np.float32]  # (S, F) share of normal events at which a reading changes

    def __init__(self, features: int) -> None:
        column = ColumnSpec((features,), np.float32, 0.0, "features")
        super().__init__(
            features,
            {
                "steps": ColumnSpec((), np.int64),
                "repeat": ColumnSpec((features,), np.int32, 0, "features"),
                "last": ColumnSpec((features,), np.float32, np.nan, "features"),
                "longest": column,
                "moves": column,
            },
        )

    def observe(
        self,
        rows: NDArray[np.int64],
        derived: NDArray[np.float32],
        ignore: NDArray[np.bool_],
        event_numbers: NDArray[np.int64],
        pending: EventBuffer,
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Count the repeats of the next events.

        Args:
            rows: (N,) sensors, in the order of arrival.
            derived: (N, d) derived inputs, the readings first.
            ignore: (S, F) features that never count.
            event_numbers: (N,) number of each event among those of its sensor.
            pending: Knows whether anybody has labelled the sensor lately. Where nobody has, a long run that ends by
                itself was usual.

        Returns:
            (N,) repeats over the number that makes a reading stuck, of the worst reading: 1 or above is stuck;
            (N,) that reading.
        """
        ratio, worst = np.zeros(len(rows)), np.zeros(len(rows), np.int64)
        figures = self.steps, self.repeat, self.last, self.longest, self.moves
        labels = event_numbers, pending.last_labelled, pending.capacity
        _observe(rows, derived, ignore, labels, figures, ratio, worst)
        return ratio, worst

    def learn(
        self,
        rows: NDArray[np.int64],
        event_numbers: NDArray[np.int64],
        normal: NDArray[np.bool_],
        pending: EventBuffer,
    ) -> None:
        """Learn how often readings move, and for how long they rest, from events taken as normal.

        Args:
            rows: (A,) different sensors.
            event_numbers: (A, B) numbers of events.
            normal: (A, B) whether each was learned as normal.
            pending: Holds the readings.
        """
        figures = self.steps, self.repeat, self.longest, self.moves
        _learn(rows, event_numbers, normal, (pending.readings, pending.count), figures)

    def accept(self, rows: NDArray[np.int64]) -> None:
        """Take the present runs of the sensors (A,) for usual ones."""
        self.longest[rows] = np.maximum(self.longest[rows], self.repeat[rows])


@kernel
def _observe(
    rows: NDArray[np.int64],
    derived: NDArray[np.float32],
    ignore: NDArray[np.bool_],
    labels: tuple[NDArray[np.int64], NDArray[np.int64], int],
    figures: Arrays,
    ratio: NDArray[np.float64],
    worst: NDArray[np.int64],
) -> None:
    steps, repeat, last, longest, moves = figures
    event_numbers, last_labelled, capacity = labels
    for n in range(len(rows)):
        s = rows[n]
        settled = steps[s] >= FIRST_EVENTS
        for k in range(repeat.shape[1]):
            x = derived[n, k]
            if np.isnan(x):
                continue
            least = LEAST_REPEATS + TIMES_LONGEST * longest[s, k]
            if x == last[s, k]:
                repeat[s, k] += 1
                missing = MOVES if moves[s, k] > RESTLESS else MOVES_OF_RESTING
                size = min(repeat[s, k] / least, repeat[s, k] * np.float64(moves[s, k]) / missing)
                if settled and size > ratio[n] and not ignore[s, k]:
                    ratio[n], worst[n] = size, k
            else:
                unlabelled = event_numbers[n] - last_labelled[s] > capacity
                if repeat[s, k] >= least and unlabelled and settled:
                    longest[s, k] = np.float32(np.sqrt(max(longest[s, k], np.float32(1)) * repeat[s, k]))
                repeat[s, k], last[s, k] = 0, x


@kernel
def _learn(
    rows: NDArray[np.int64],
    event_numbers: NDArray[np.int64],
    normal: NDArray[np.bool_],
    events: Arrays,
    figures: Arrays,
) -> None:
    readings, count = events
    steps, repeat, longest, moves = figures
    ring, features = readings.shape[1], repeat.shape[1]
    moved, seen, rests = np.empty(features, np.int32), np.empty(features, np.int32), np.empty(features, np.bool_)
    for a in range(len(rows)):
        s = rows[a]
        oldest = max(np.int64(0), count[s] - ring)
        moved[:], seen[:], rests[:] = 0, 0, False
        for b in range(event_numbers.shape[1]):
            if not normal[a, b]:
                continue
            steps[s] += 1
            at = event_numbers[a, b] % ring
            before = at - 1 if at > 0 else ring - 1
            if event_numbers[a, b] > oldest:
                for k in range(features):
                    x = readings[s, at, k]
                    same, is_known = readings[s, before, k] == x, x == x  # noqa: PLR0124 -- NaN where missing
                    seen[k] += is_known
                    moved[k] += is_known & (not same)
                    rests[k] |= same
        for k in range(features):
            if seen[k] > 0:
                moves[s, k] += np.float32(
                    min(seen[k] / min(steps[s], WINDOW), 1.0) * (moved[k] / seen[k] - moves[s, k])
                )
            for b in range(event_numbers.shape[1] if rests[k] else 0):
                if normal[a, b] and event_numbers[a, b] > oldest:
                    length = _run(readings, s, k, event_numbers[a, b], oldest, count[s], repeat[s, k], longest[s, k])
                    longest[s, k] = max(longest[s, k], np.float32(length))


@kernel
def _run(
    readings: NDArray[np.float32],
    s: int,
    k: int,
    event_number: int,
    oldest: int,
    count: int,
    repeat: int,
    longest: float,
) -> Any:
    """Return for how many events a reading has rested at an event, or 0 where not longer than for the longest run.

    Args:
        readings: (S, R, F) rings of readings.
        s: The sensor.
        k: The feature.
        event_number: Number of the event.
        oldest: Number of the oldest event in the ring.
        count: Events of the sensor so far.
        repeat: Events for which the reading has not changed by now.
        longest: Events of the longest run so far.
    """
    ring = readings.shape[1]
    x = readings[s, event_number % ring, k]
    if readings[s, (event_number - 1) % ring, k] != x:
        return ZERO
    since = count - 1 - event_number
    if repeat >= since:  # the run lasts until now
        return np.int64(repeat) - since
    far = event_number - np.int64(longest) - 1
    if far < oldest or readings[s, far % ring, k] != x:
        return ZERO
    length, before = np.int64(0), event_number - 1
    while before >= oldest and readings[s, before % ring, k] == x:
        length += 1
        before -= 1
    return length
