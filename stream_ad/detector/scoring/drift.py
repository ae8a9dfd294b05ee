"""Change detection on the score stream: the Page-Hinkley test (E. S. Page, Biometrika 1954).

It is fed one value per learn batch, the mean rank of the batch's scores among the sensor's
calibration scores: ranks, because raw scores have heavy tails. The detector adapts to a change
within some batches, so the test must see it in few values; ADWIN, which needs some fifteen, does
not.

The numbers are those of ``river.drift.PageHinkley`` with ``min_instances=10`` and ``delta=0.05``, which says drift
at the same values. That keeps a Python object for each sensor: its calls took a twentieth of the detector's time,
and what a snapshot would have to hold of it is all that it was fed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.row_store import ColumnSpec, SensorTable
from stream_ad.kernels.jit import Arrays, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIRST_VALUES = 10
TOLERANCE = 0.05  # shifts of the mean rank up to this are no change
KEPT = 1 - 1e-4  # of each sum, at the next value


class Drift(SensorTable):
    """One test per sensor, of changes up and down; it starts anew once it has said so."""

    count: NDArray[np.int64]  # (S,) values since the start
    mean: NDArray[np.float64]  # (S,) of them
    up: NDArray[np.float64]  # (S,) sum of what they are above the mean, less the tolerance
    least: NDArray[np.float64]  # (S,) the least that it was
    down: NDArray[np.float64]  # (S,) the same, plus the tolerance
    most: NDArray[np.float64]  # (S,) the most that it was

    def __init__(self, features: int, *, threshold: float) -> None:
        figures = dict.fromkeys(("mean", "up", "least", "down", "most"), ColumnSpec((), np.float64))
        super().__init__(features, {"count": ColumnSpec((), np.int64), **figures})
        self.threshold = threshold

    def update(self, rows: NDArray[np.int64], values: NDArray[np.float64]) -> int:
        """Feed one value per sensor; returns how many sensors have just changed.

        Args:
            rows: (A,) different sensors.
            values: (A,) between 0 and 1; NaN feeds nothing.
        """
        sums = self.up, self.least, self.down, self.most
        return _update(rows, values, self.threshold, self.count, self.mean, sums)


@kernel
def _update(
    rows: NDArray[np.int64],
    values: NDArray[np.float64],
    threshold: float,
    count: NDArray[np.int64],
    mean: NDArray[np.float64],
    sums: Arrays,
) -> int:
    up, least, down, most = sums
    changed = 0
    for a in range(len(rows)):
        s, value = rows[a], values[a]
        if np.isnan(value):
            continue
        count[s] += 1
        mean[s] += (1 / count[s]) * (value - mean[s])
        deviation = value - mean[s]
        up[s] = KEPT * up[s] + deviation - TOLERANCE
        down[s] = KEPT * down[s] + deviation + TOLERANCE
        least[s] = up[s] if count[s] == 1 else min(least[s], up[s])
        most[s] = down[s] if count[s] == 1 else max(most[s], down[s])
        if count[s] >= FIRST_VALUES and max(up[s] - least[s], most[s] - down[s]) > threshold:
            changed += 1
            count[s] = 0
            mean[s] = up[s] = down[s] = 0
    return changed
