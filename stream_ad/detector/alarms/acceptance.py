"""Acceptance: unrest that nobody labels as a fault, and that does not end, is taken for a new normal.

Unrest begins when half of a sensor's latest events are far from what is usual (one in a thousand is as far), and ends
when less than a quarter are.
It is accepted after four label horizons, or one and a half times the longest unrest that ended by itself if that is
longer, and not before ``alarms.accept_after`` of event time. Events are counted, not incidents: what is learned must
not depend on the budget.

It fails on a fault that nobody labels for so long: it is learned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.row_store import ColumnSpec, SensorTable
from stream_ad.kernels.jit import Arrays, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.detector.feedback.event_buffer import EventBuffer

RESTLESS, STILL_RESTLESS = 0.5, 0.25  # decayed share of events far from usual: unrest begins, unrest lasts
RESTLESS_RATE = 0.125  # of the share, per learn batch
SEEN_LATE = 4  # learn batches that the share needs to tell that unrest has begun
HORIZONS = 4  # label horizons that unrest lasts before it is accepted
LONGER = 1.5  # times the longest unrest that ended by itself
LONGEST = 2  # times ``HORIZONS``, beyond which such unrest counts no longer
CALM = -1  # first event of a sensor that is not in unrest


class Acceptance(SensorTable):
    """Unrest of each sensor."""

    share: NDArray[np.float32]  # (S,) decayed share of events far from usual
    since: NDArray[np.int64]  # (S,) number of the first event of the present unrest, -1 for none
    since_time: NDArray[np.int64]  # (S,) its time, ns
    longest: NDArray[np.int64]  # (S,) events of the longest unrest that ended by itself

    def __init__(self, features: int, *, horizon_events: int, least_ns: int) -> None:
        whole = ColumnSpec((), np.int64)
        super().__init__(
            features,
            {
                "share": ColumnSpec((), np.float32),
                "since": ColumnSpec((), np.int64, CALM),
                "since_time": whole,
                "longest": whole,
            },
        )
        self.horizon_events, self.least_ns = horizon_events, least_ns

    def update(
        self, rows: NDArray[np.int64], pending: EventBuffer, far: NDArray[np.int32], batch: int
    ) -> NDArray[np.int64]:
        """Take in the latest batch of events, and return (K,) the sensors whose unrest is to be accepted.

        Args:
            rows: (A,) different sensors at their learn point.
            pending: Holds their events.
            far: (S,) events since the last learn point that were far from usual; set to 0.
            batch: Number of events since the last learn point.
        """
        due = np.zeros(len(rows), np.bool_)
        rings = pending.count, pending.newest_time, pending.last_anomaly, far, pending.times
        figures = self.share, self.since, self.since_time, self.longest
        _update(rows, batch, (self.horizon_events, self.least_ns), rings, figures, due)
        return rows[due]

    def accept(self, rows: NDArray[np.int64]) -> None:
        """End the unrest of the sensors (A,)."""
        self.since[rows], self.share[rows] = CALM, 0


@kernel
def _update(
    rows: NDArray[np.int64],
    batch: int,
    bounds: tuple[int, int],
    rings: Arrays,
    figures: Arrays,
    due: NDArray[np.bool_],
) -> None:
    count, newest_time, last_anomaly, far, times = rings
    share, since, since_time, longest = figures
    horizon, least_ns = bounds
    capacity = times.shape[1]
    for a in range(len(rows)):
        s = rows[a]
        share[s] += np.float32(RESTLESS_RATE * (min(far[s] / batch, 1.0) - share[s]))
        far[s] = 0
        if since[s] < 0:
            if share[s] >= RESTLESS:
                since[s] = max(0, count[s] - SEEN_LATE * batch)
                since_time[s] = times[s, since[s] % capacity]
        elif share[s] < STILL_RESTLESS:
            longest[s] = max(longest[s], count[s] - since[s])
            since[s] = CALM
        if since[s] >= 0 and last_anomaly[s] < since[s]:
            needed = max(HORIZONS * horizon, LONGER * min(longest[s], LONGEST * HORIZONS * horizon))
            due[a] = count[s] - since[s] >= needed and newest_time[s] - since_time[s] >= least_ns
