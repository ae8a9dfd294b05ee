"""Sensors that come back after an outage: what was learned before it may be out of date.

An outage is a silence that is longer than a given number of the sensor's usual intervals, longer than an hour, and
twice as long as any silence before: a machine that rests every night or weekend does not cause one each time. The
events after an outage are learned at once, as in the warm-up, and the threshold is reset, since the first labels of
the new state are far away.

It fails on a change during a short outage, which stays an alarm until it is labelled, and on a sensor that comes back
broken, whose fault is learned as normal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.row_store import ColumnSpec, SensorTable
from stream_ad.kernels.jit import Arrays, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_NS = 3600 * 10**9  # machines hardly change within an hour, however often the sensor speaks
TIMES_LONGEST = 2  # times the longest silence so far
PACE_EVENTS = 256.0  # events that the average interval looks back


class Outage(SensorTable):
    """When a sensor was last heard, and which event was the first after its last outage."""

    heard: NDArray[np.int64]  # (S,) newest event time, ns
    pace: NDArray[np.float64]  # (S,) average interval between events, ns
    longest: NDArray[np.int64]  # (S,) longest silence so far, ns
    began: NDArray[np.int64]  # (S,) number of the first event after the last outage, 0 before any outage

    def __init__(self, features: int, *, intervals: int) -> None:
        whole = ColumnSpec((), np.int64)
        super().__init__(
            features, {"heard": whole, "pace": ColumnSpec((), np.float64), "longest": whole, "began": whole}
        )
        self.intervals = intervals

    def arrive(
        self, rows: NDArray[np.int64], event_numbers: NDArray[np.int64], times: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return (K,) the indices of those of the next N events that are the first after an outage.

        Args:
            rows: (N,) sensors, in the order of arrival.
            event_numbers: (N,) number of each event among those of its sensor.
            times: (N,) event times, ns.
        """
        first = np.zeros(len(rows), np.bool_)
        if self.intervals:
            _arrive(
                rows, event_numbers, times, self.intervals, (self.heard, self.pace, self.longest, self.began), first
            )
        return np.flatnonzero(first)


@kernel
def _arrive(
    rows: NDArray[np.int64],
    event_numbers: NDArray[np.int64],
    times: NDArray[np.int64],
    intervals: int,
    figures: Arrays,
    first: NDArray[np.bool_],
) -> None:
    heard, pace, longest, began = figures
    for n in range(len(rows)):
        s = rows[n]
        if event_numbers[n] > 0:
            silence = max(times[n] - heard[s], np.int64(0))
            settled = event_numbers[n] - began[s] > intervals
            if settled and silence >= max(LEAST_NS, TIMES_LONGEST * longest[s]) and silence > intervals * pace[s]:
                first[n] = True
                began[s] = event_numbers[n]
            else:
                pace[s] += (silence - pace[s]) / min(np.float64(event_numbers[n]), PACE_EVENTS)
            longest[s] = max(longest[s], silence)
        heard[s] = max(heard[s], times[n])
