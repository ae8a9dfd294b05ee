"""Running scaling of each sensor's derived inputs, from events taken as normal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.rows import Column, Rows, derived_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCALE_SD = 8.0  # this many standard deviations span the unit interval: ±4 sd
REACH = 1.5  # scaled values are kept to .5 ± this for the score: 12 sd
WINDOW = 20_000


class Scaler(Rows):
    """Mean and variance with forgetting; maps ±4 sd to [0, 1]. Missing stays missing."""

    count: NDArray[np.float64]  # (S, d) events behind the figures
    mean: NDArray[np.float64]  # (S, d)
    var: NDArray[np.float64]  # (S, d)

    def __init__(self, features: int) -> None:
        column = Column((derived_size(features),), np.float64, 0.0, "derived")
        super().__init__(features, {"count": column, "mean": column, "var": column})

    def deviation(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """(A, d) standard deviations, floored at what float32 can tell apart from the mean."""
        return np.sqrt(self.var[rows] + (1e-6 * self.mean[rows]) ** 2 + 1e-18)

    def scale(self, rows: NDArray[np.int64], derived: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scaled values, .5 at the mean, within [-1, 2]; NaN where missing, .5 before anything is known.

        Args:
            rows: (A,) sensors.
            derived: (A, d) or (A, B, d).
        """
        mean, sd, known = self.mean[rows], self.deviation(rows), self.count[rows] > 0
        if derived.ndim == 3:
            mean, sd, known = mean[:, None], sd[:, None], known[:, None]
        z = np.where(known, (derived - mean) / sd, derived * 0.0)
        return np.clip(0.5 + z / SCALE_SD, 0.5 - REACH, 0.5 + REACH).astype(np.float32)

    def unscale(self, rows: NDArray[np.int64], scaled: NDArray[np.float32]) -> NDArray[np.float64]:
        """The inverse of ``scale`` for (A, d)."""
        return self.mean[rows] + (scaled.astype(np.float64) - 0.5) * SCALE_SD * self.deviation(rows)

    def update(self, rows: NDArray[np.int64], derived: NDArray[np.float32], weight: NDArray[np.float64]) -> None:
        """Learn one batch of events taken as normal.

        Args:
            rows: (A,) different sensors.
            derived: (A, B, d), NaN where missing.
            weight: (A, B) 1 where the event counts, else 0.
        """
        used = ~np.isnan(derived) & (weight[..., None] > 0)
        number = used.sum(axis=1)  # (A, d)
        x = np.where(used, derived, 0.0).astype(np.float64)
        mean = x.sum(axis=1) / np.maximum(number, 1)
        var = np.where(used, (x - mean[:, None]) ** 2, 0.0).sum(axis=1) / np.maximum(number, 1)
        count = self.count[rows]
        rate = np.where(number > 0, np.maximum(number / np.maximum(count + number, 1), number / WINDOW), 0.0)
        rate = np.minimum(rate, 1.0)
        delta = mean - self.mean[rows]
        self.mean[rows] += rate * delta
        self.var[rows] = (1 - rate) * (self.var[rows] + rate * delta**2) + rate * var
        self.count[rows] = count + number

    def forget(self, rows: NDArray[np.int64], most: float) -> None:
        """Let what comes weigh as if no more than ``most`` events had been seen."""
        self.count[rows] = np.minimum(self.count[rows], most)
