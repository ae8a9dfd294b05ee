"""When a sensor last showed each of its features: a feature not shown for long makes room for a new one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.row_store import ColumnSpec, SensorTable
from stream_ad.kernels.jit import Arrays, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.detector.feedback.event_buffer import EventBuffer

BEFORE = -1  # the number of the last event that showed a feature, before there is one
TIMES_LONGEST = 4  # times the longest pause so far: a feature that comes once an hour is not gone after an hour


class LastShown(SensorTable):
    """Last appearance and longest pause of each feature, in events of the sensor.

    Both are read from the ring of readings, one learn batch at a time; they are up to date after ``scan``.
    """

    scanned: NDArray[np.int64]  # (S,) events before this number have been scanned
    last: NDArray[np.int64]  # (S, F) number of the newest scanned event that showed the feature, -1 for none
    longest: NDArray[np.int64]  # (S, F) largest number of events between two appearances

    def __init__(self, features: int) -> None:
        wide = (features,)
        super().__init__(
            features,
            {
                "scanned": ColumnSpec((), np.int64),
                "last": ColumnSpec(wide, np.int64, BEFORE, "features"),
                "longest": ColumnSpec(wide, np.int64, 0, "features"),
            },
        )

    def scan(self, rows: NDArray[np.int64], pending: EventBuffer) -> None:
        """Scan the events that arrived since the last scan.

        Args:
            rows: (A,) different sensors.
            pending: Keeps their events.
        """
        _scan(rows, pending.count, pending.readings, (self.scanned, self.last, self.longest))

    def gone(self, row: int, patience: int) -> NDArray[np.bool_]:
        """Return (F,) whether each feature has been absent for too long.

        A feature is gone when it was last shown more than ``patience`` events ago, and longer ago than four times
        its longest pause.
        """
        silent = self.scanned[row] - 1 - self.last[row]
        gone: NDArray[np.bool_] = (silent > patience) & (silent > TIMES_LONGEST * self.longest[row])
        return gone

    def mark_shown(self, row: int, features: NDArray[np.int64]) -> None:
        """Count features (K,) that the next event of a sensor names for the first time as shown by it, even as null."""
        self.last[row, features] = self.scanned[row]

    def estimate(self, pending: EventBuffer) -> None:
        """Estimate the table for a snapshot that lacks it.

        ``scan`` then finds what the kept readings show; a feature that they do not show may pause for as long as
        they reach back.
        """
        self.append(pending.size)
        kept, used = pending.kept_readings, slice(self.size)
        self.last[used] = (np.maximum(pending.count[used] - kept, 0) - 1)[:, None]
        self.longest[used] = kept


@kernel
def _scan(rows: NDArray[np.int64], count: NDArray[np.int64], readings: NDArray[np.float32], figures: Arrays) -> None:
    scanned, last, longest = figures
    kept = readings.shape[1]
    for a in range(len(rows)):
        s = rows[a]
        for event_number in range(max(scanned[s], count[s] - kept, np.int64(0)), count[s]):
            slot = event_number % kept
            for f in range(readings.shape[2]):
                if not np.isnan(readings[s, slot, f]):
                    if last[s, f] >= 0:
                        longest[s, f] = max(longest[s, f], event_number - last[s, f])
                    last[s, f] = event_number
        scanned[s] = count[s]
