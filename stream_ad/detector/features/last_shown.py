"""When a sensor last showed each of its features: what it has not shown for long makes room for a new one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.row_store import ColumnSpec, SensorTable
from stream_ad.kernels.jit import Arrays, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.detector.feedback.event_buffer import EventBuffer

BEFORE = -1
TIMES_LONGEST = 4  # of the pauses before: what comes once an hour is not gone after an hour


class LastShown(SensorTable):
    """The last showing of each feature and its longest pause, in events of the sensor.

    Both are read from the ring of readings, a learn batch at a time, and up to date after ``scan``.
    """

    scanned: NDArray[np.int64]  # (S,) events before this number have been looked at
    last: NDArray[np.int64]  # (S, F) number of the newest of them that showed the feature
    longest: NDArray[np.int64]  # (S, F) the most events from one showing to the next

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
        """Take in what came since the last look.

        Args:
            rows: (A,) different sensors.
            pending: Where their events are kept.
        """
        _scan(rows, pending.count, pending.readings, (self.scanned, self.last, self.longest))

    def gone(self, row: int, patience: int) -> NDArray[np.bool_]:
        """(F,) features last shown more events ago than the patience, and than four times any pause before."""
        silent = self.scanned[row] - 1 - self.last[row]
        gone: NDArray[np.bool_] = (silent > patience) & (silent > TIMES_LONGEST * self.longest[row])
        return gone

    def mark_shown(self, row: int, features: NDArray[np.int64]) -> None:
        """Features that the next event of a sensor names for the first time count as shown by it, even as null."""
        self.last[row, features] = self.scanned[row]

    def begin(self, pending: EventBuffer) -> None:
        """Stand in for what a snapshot did not keep: readings tell, and what they do not show may pause for as long."""
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
        for place in range(max(scanned[s], count[s] - kept, np.int64(0)), count[s]):
            slot = place % kept
            for f in range(readings.shape[2]):
                if not np.isnan(readings[s, slot, f]):
                    if last[s, f] >= 0:
                        longest[s, f] = max(longest[s, f], place - last[s, f])
                    last[s, f] = place
        scanned[s] = count[s]
