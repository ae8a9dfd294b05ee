"""From reconstruction errors to one number per event."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.context import ewma_scan
from stream_ad.detector.rows import Column, Rows, derived_size
from stream_ad.detector.scaler import SCALE_SD

if TYPE_CHECKING:
    from numpy.typing import NDArray

ERROR_WINDOW = 5000
ERROR_CAP_AFTER = 100  # events, after which one event adds at most 9 variances
SQUARE_CAP = 100.0
SMOOTH_RATE = 0.15
SMOOTH_SCALE = (2 - SMOOTH_RATE) / SMOOTH_RATE  # gives the smoothed error of white noise variance 1
FLOOR = 0.01
UNKNOWN_VARIANCE = 1 / SCALE_SD**2  # of a scaled value itself, before any error was seen


class Scoring(Rows):
    """How large each input's error usually is, and the smoothed error."""

    error_count: NDArray[np.float64]  # (S, d)
    error_var: NDArray[np.float64]  # (S, d) mean squared error on events taken as normal
    variance: NDArray[np.float64]  # (S, d) the same with its floor: what errors are divided by
    smooth: NDArray[np.float64]  # (S, d) EWMA of the normalised error

    def __init__(self, features: int) -> None:
        shape = (derived_size(features),)
        column = Column(shape, np.float64, 0.0, "derived")
        unknown = Column(shape, np.float64, UNKNOWN_VARIANCE, "derived")
        super().__init__(features, {"error_count": column, "error_var": column, "variance": unknown, "smooth": column})

    def score(
        self,
        rows: NDArray[np.int64],
        scaled: NDArray[np.float32],
        rebuilt: NDArray[np.float32],
        weights: NDArray[np.float64],
        openness: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Score the next events of some sensors; moves their smoothed errors on.

        S = log(Q + (1 - g) Z + .01) + g log(M + .01), with Q the capped mean square of the
        normalised errors, Z that of the standardised values, M that of the smoothed errors and g
        the openness of the temporal context: tables get Q + Z, time series Q · M.

        Args:
            rows: (A,) different sensors.
            scaled: (T, A, d) as ``Scaler.scale`` gave it, NaN where missing or past the end.
            rebuilt: (T, A, d) the autoencoder's output.
            weights: (A, d) of the inputs.
            openness: (A,) of the context.

        Returns:
            (T, A) log scores; (T, A, d) parts.
        """
        observed = ~np.isnan(scaled)
        error = np.where(observed, scaled - rebuilt, 0.0) / np.sqrt(self.variance[rows])  # (T, A, d)
        z = np.where(observed, (scaled - 0.5) * SCALE_SD, 0.0)
        smooth = ewma_scan(error, observed * SMOOTH_RATE, self.smooth[rows])
        self.smooth[rows] = smooth[-1]
        weight = weights * observed
        total = np.maximum(weight.sum(axis=2), 1e-12)[..., None]
        weight /= total
        q = weight * np.minimum(error**2, SQUARE_CAP)
        q += (1 - openness)[None, :, None] * weight * np.minimum(z.astype(np.float64) ** 2, SQUARE_CAP)
        m = weight * np.minimum(smooth**2 * SMOOTH_SCALE, SQUARE_CAP)
        q_sum, m_sum = q.sum(axis=2), m.sum(axis=2)  # (T, A)
        log_score = np.log(q_sum + FLOOR) + openness * np.log(m_sum + FLOOR)
        parts = (
            q / np.maximum(q_sum, 1e-12)[..., None] + openness[None, :, None] * m / np.maximum(m_sum, 1e-12)[..., None]
        )
        return log_score, parts

    def update(self, rows: NDArray[np.int64], error: NDArray[np.float32], weight: NDArray[np.float64]) -> None:
        """Learn how large errors are, from events taken as normal and before the model has learned them.

        Args:
            rows: (A,) different sensors.
            error: (A, B, d) scaled value minus reconstruction, NaN where missing.
            weight: (A, B) 1 where the event counts, else 0.
        """
        used = ~np.isnan(error) & (weight[..., None] > 0)
        square = np.where(used, error, 0.0).astype(np.float64) ** 2
        count = self.error_count[rows]
        cap = np.where(count >= ERROR_CAP_AFTER, 9 * self.error_var[rows], np.inf)
        square = np.minimum(square, cap[:, None])
        number = used.sum(axis=1)
        mean = square.sum(axis=1) / np.maximum(number, 1)
        rate = np.where(number > 0, number / np.maximum(np.minimum(count + number, ERROR_WINDOW), 1), 0.0)
        self.error_var[rows] += rate * (mean - self.error_var[rows])
        self.error_count[rows] = count + number
        self._refresh(rows)

    def _refresh(self, rows: NDArray[np.int64]) -> None:
        """Floor each variance with a tenth of its sensor's median: no feature is trusted without limit."""
        known = self.error_count[rows] > 0
        var = np.where(known, self.error_var[rows], np.inf)
        number = known.sum(axis=1)
        middle = np.sort(var, axis=1)[np.arange(len(rows)), np.maximum(number - 1, 0) // 2]
        median = np.where(number > 0, middle, 0.0)
        self.variance[rows] = np.where(known, var + 0.1 * median[:, None] + 1e-8, UNKNOWN_VARIANCE)

    def forget(self, rows: NDArray[np.int64], most: float) -> None:
        """Let what comes weigh as if no more than ``most`` events had been seen."""
        self.error_count[rows] = np.minimum(self.error_count[rows], most)
