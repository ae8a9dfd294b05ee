"""Sensors that come back after an outage: much may have changed, and all that was learned may be out of date.

An outage is a silence as long as so many of the sensor's usual intervals, an hour at least, and twice as long as any
before: what stands still every night or weekend is not taken for one each time. What follows is learned at once,
as in the warm-up, and the threshold begins anew: the first verdicts on the new state are far away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.row_store import ColumnSpec, SensorTable
from stream_ad.kernels.jit import Arrays, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_NS = 3600 * 10**9
TIMES_LONGEST = 2  # of the silences before
PACE_EVENTS = 256.0  # that the usual interval looks back


class Outage(SensorTable):
    """When a sensor was last heard, and since which event it is as it is."""

    heard: NDArray[np.int64]  # (S,) newest time, ns
    pace: NDArray[np.float64]  # (S,) average interval, ns
    longest: NDArray[np.int64]  # (S,) silence so far, ns
    began: NDArray[np.int64]  # (S,) number of the first event after the last outage; 0 before one

    def __init__(self, features: int, *, intervals: int) -> None:
        whole = ColumnSpec((), np.int64)
        super().__init__(
            features, {"heard": whole, "pace": ColumnSpec((), np.float64), "longest": whole, "began": whole}
        )
        self.intervals = intervals

    def arrive(
        self, rows: NDArray[np.int64], event_numbers: NDArray[np.int64], times: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """(K,) which of the next events, (N,) each in the order of arrival, are the first after an outage.

        Args:
            rows: Sensors.
            places: Numbers of the events among their sensor's.
            times: Event times, ns.
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
