"""Drift of the score stream: the Page-Hinkley test (E. S. Page, "Continuous inspection schemes", Biometrika 1954).

The test gets one value per learn batch, the mean rank of the scores of the batch among the calibration scores of the
sensor: ranks, because raw scores have heavy tails. The detector adapts to a change within some batches, so the test
must see it in few values; ADWIN, which needs some fifteen, does not.

It fails on changes that leave the ranks of scores alone, on changes within the first ten batches, and on changes
slower than the tolerance of .05.

The figures are those of ``river.drift.PageHinkley`` with ``min_instances=10`` and ``delta=0.05``, which reports drift
at the same values. River's class keeps a Python object per sensor: its calls took a twentieth of the detector's time,
and a snapshot would have to hold every value that it was given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.row_store import ColumnSpec, SensorTable
from stream_ad.kernels.jit import Arrays, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIRST_VALUES = 10  # values before which no drift is reported
TOLERANCE = 0.05  # shifts of the mean rank up to this are no change
KEPT = 1 - 1e-4  # share of each sum that is kept at the next value


class Drift(SensorTable):
    """One two-sided test per sensor; a test that reports drift starts again."""

    count: NDArray[np.int64]  # (S,) values since the start
    mean: NDArray[np.float64]  # (S,) their mean
    up: NDArray[np.float64]  # (S,) sum of the distances above the mean, each less the tolerance
    least: NDArray[np.float64]  # (S,) smallest value of ``up`` so far
    down: NDArray[np.float64]  # (S,) sum of the distances above the mean, each plus the tolerance
    most: NDArray[np.float64]  # (S,) largest value of ``down`` so far

    def __init__(self, features: int, *, threshold: float) -> None:
        figures = dict.fromkeys(("mean", "up", "least", "down", "most"), ColumnSpec((), np.float64))
        super().__init__(features, {"count": ColumnSpec((), np.int64), **figures})
        self.threshold = threshold

    def update(self, rows: NDArray[np.int64], values: NDArray[np.float64]) -> int:
        """Test one value per sensor, and return the number of sensors whose scores have just drifted.

        Args:
            rows: (A,) different sensors.
            values: (A,) mean ranks between 0 and 1; NaN is skipped.
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
