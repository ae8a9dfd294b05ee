"""Stuck readings: a reading that repeats exactly for much longer than it ever did.

Counters stay, valves rest and levels are quantised, so each reading is compared with its own past: the longest run of
repeats among events taken as normal, and how often it moves.

It fails on a sensor that is stuck but noisy (``StuckSensor`` raises the score there), and on a reading that hardly ever
moves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.row_store import ColumnSpec, SensorTable
from stream_ad.kernels.jit import Arrays, kernel

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
        unlabelled: NDArray[np.bool_],
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Count the repeats of the next events.

        Args:
            rows: (N,) sensors, in the order of arrival.
            derived: (N, d) derived inputs, the readings first.
            ignore: (S, F) features that never count.
            unlabelled: (N,) whether nobody has labelled the sensor lately: a long run that ends by itself was usual.

        Returns:
            (N,) repeats over the number that makes a reading stuck, of the worst reading: 1 or above is stuck;
            (N,) that reading.
        """
        ratio, worst = np.zeros(len(rows)), np.zeros(len(rows), np.int64)
        figures = self.steps, self.repeat, self.last, self.longest, self.moves
        _observe(rows, derived, ignore, unlabelled, figures, ratio, worst)
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
    unlabelled: NDArray[np.bool_],
    figures: Arrays,
    ratio: NDArray[np.float64],
    worst: NDArray[np.int64],
) -> None:
    steps, repeat, last, longest, moves = figures
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
                if unlabelled[n] and settled and repeat[s, k] >= least:
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
    ring = readings.shape[1]
    for a in range(len(rows)):
        s = rows[a]
        oldest = max(np.int64(0), count[s] - ring)
        for b in range(event_numbers.shape[1]):
            event_number = event_numbers[a, b]
            if event_number < 0 or not normal[a, b]:
                continue
            steps[s] += 1
            rate = np.float32(1 / min(np.float64(steps[s]), WINDOW))
            for k in range(repeat.shape[1]):
                x = readings[s, event_number % ring, k]
                if np.isnan(x) or event_number <= oldest:
                    continue
                same = readings[s, (event_number - 1) % ring, k] == x
                moves[s, k] += rate * ((np.float32(0) if same else np.float32(1)) - moves[s, k])
                if not same:
                    continue
                since = count[s] - 1 - event_number
                if repeat[s, k] >= since:  # the run lasts until now
                    length = np.int64(repeat[s, k]) - since
                else:
                    far = event_number - np.int64(longest[s, k]) - 1
                    if far < oldest or readings[s, far % ring, k] != x:
                        continue  # no longer than the longest
                    length, before = np.int64(0), event_number - 1
                    while before >= oldest and readings[s, before % ring, k] == x:
                        length += 1
                        before -= 1
                longest[s, k] = max(longest[s, k], np.float32(length))
