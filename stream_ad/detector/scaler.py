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
CLIP_AFTER = 100  # events, after which no reading moves the figures by more than one that is 30 sd off would
CLIP_SD = 30.0


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

    def scale(
        self, rows: NDArray[np.int64], derived: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Scaled values, .5 at the mean, within [-1, 2]; .5 where missing and before anything is known.

        Args:
            rows: (A,) sensors.
            derived: (A, k) or (A, B, k), the first k of the derived inputs, NaN where missing.

        Returns:
            The values; which of them were observed.
        """
        k = derived.shape[-1]
        mean = self.mean[rows, :k].astype(np.float32)
        slope = np.where(self.count[rows] > 0, 1 / (SCALE_SD * self.deviation(rows)), 0.0).astype(np.float32)[:, :k]
        if derived.ndim == 3:
            mean, slope = mean[:, None], slope[:, None]
        observed = derived == derived  # noqa: PLR0124 - false for NaN, at a third of the price of isnan
        with np.errstate(over="ignore"):
            scaled = derived - mean
            scaled *= slope
        scaled += np.float32(0.5)
        if not observed.all():
            scaled[~observed] = 0.5
        return np.clip(scaled, np.float32(0.5 - REACH), np.float32(0.5 + REACH), out=scaled), observed

    def unscale(self, rows: NDArray[np.int64], scaled: NDArray[np.float32]) -> NDArray[np.float64]:
        """The inverse of ``scale`` for (A, d)."""
        return self.mean[rows] + (scaled.astype(np.float64) - 0.5) * SCALE_SD * self.deviation(rows)

    def update(self, rows: NDArray[np.int64], derived: NDArray[np.float32], used: NDArray[np.bool_]) -> None:
        """Learn one batch of events taken as normal.

        Args:
            rows: (A,) different sensors.
            derived: (A, B, d), NaN where missing.
            used: (A, B) the events that count.
        """
        counted = ~np.isnan(derived) & used[..., None]
        number = counted.sum(axis=1)  # (A, d)
        before = self.count[rows]
        sd = np.where(before >= CLIP_AFTER, CLIP_SD * self.deviation(rows), np.inf)[:, None]
        x = np.where(counted, derived - self.mean[rows][:, None], 0.0)  # (A, B, d) float64
        x = np.clip(x, -sd, sd, out=x)
        offset = x.sum(axis=1) / np.maximum(number, 1)
        mean = self.mean[rows] + offset
        x -= offset[:, None]
        x *= x
        var = (x * counted).sum(axis=1) / np.maximum(number, 1)
        rate = np.where(number > 0, np.maximum(number / np.maximum(before + number, 1), number / WINDOW), 0.0)
        rate = np.minimum(rate, 1.0)
        delta = mean - self.mean[rows]
        self.mean[rows] += rate * delta
        self.var[rows] = (1 - rate) * (self.var[rows] + rate * delta**2) + rate * var
        self.count[rows] = before + number

    def forget(self, rows: NDArray[np.int64], most: float) -> None:
        """Let what comes weigh as if no more than ``most`` events had been seen."""
        self.count[rows] = np.minimum(self.count[rows], most)
