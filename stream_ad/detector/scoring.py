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
SQUARE_CAP = np.float32(100)
SMOOTH_RATE = 0.15
SMOOTH_SCALE = (2 - SMOOTH_RATE) / SMOOTH_RATE  # gives the smoothed error of white noise variance 1
FLOOR = 0.01
UNKNOWN_VARIANCE = 1 / SCALE_SD**2  # of a scaled value itself, before any error was seen


class Scoring(Rows):
    """How large each input's error usually is, and the smoothed error."""

    error_count: NDArray[np.float64]  # (S, d)
    error_var: NDArray[np.float64]  # (S, d) mean squared error on events taken as normal
    variance: NDArray[np.float64]  # (S, d) the same with its floor: what errors are divided by
    smooth: NDArray[np.float32]  # (S, d) EWMA of the normalised error

    def __init__(self, features: int) -> None:
        shape = (derived_size(features),)
        column = Column(shape, np.float64, 0.0, "derived")
        unknown = Column(shape, np.float64, UNKNOWN_VARIANCE, "derived")
        smooth = Column(shape, np.float32, 0.0, "derived")
        super().__init__(features, {"error_count": column, "error_var": column, "variance": unknown, "smooth": smooth})

    def score(
        self,
        rows: NDArray[np.int64],
        scaled: NDArray[np.float32],
        observed: NDArray[np.bool_],
        rebuilt: NDArray[np.float32],
        weights: NDArray[np.float32],
        openness: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Score the next events of some sensors; moves their smoothed errors on.

        S = log(Q + (1 - g) Z + .01) + g log(M + .01), with Q the capped mean square of the
        normalised errors, Z that of the standardised values, M that of the smoothed errors and g
        the openness of the temporal context: tables get Q + Z, time series Q · M.

        Args:
            rows: (A,) different sensors.
            scaled: (T, A, d) as ``Scaler.scale`` gave it.
            observed: (T, A, d) false where missing or past the sensor's last event.
            rebuilt: (T, A, d) the autoencoder's output.
            weights: (A, d) of the inputs.
            openness: (A,) of the context.

        Returns:
            (T, A) log scores; what each input adds to Q + (1 - g) Z and to M, (T, A, d) each (see ``shares``).
        """
        error = scaled - rebuilt
        error *= (1 / np.sqrt(self.variance[rows])).astype(np.float32)
        smooth = ewma_scan(error, observed * np.float32(SMOOTH_RATE), self.smooth[rows])
        self.smooth[rows] = smooth[-1]
        weight = weights * observed
        weight /= np.maximum(weight.sum(axis=2), np.float32(1e-12))[..., None]
        z = scaled - np.float32(0.5)
        z *= z
        z *= np.float32(SCALE_SD**2)
        np.minimum(z, SQUARE_CAP, out=z)
        z *= (1 - openness).astype(np.float32)[:, None]
        error *= error
        z += np.minimum(error, SQUARE_CAP, out=error)
        z *= weight
        smooth *= smooth
        smooth *= np.float32(SMOOTH_SCALE)
        np.minimum(smooth, SQUARE_CAP, out=smooth)
        smooth *= weight
        log_score = np.log(z.sum(axis=2).astype(np.float64) + FLOOR)
        log_score += openness * np.log(smooth.sum(axis=2).astype(np.float64) + FLOOR)
        return log_score, (z, smooth)

    def update(self, rows: NDArray[np.int64], error: NDArray[np.float32], used: NDArray[np.bool_]) -> None:
        """Learn how large errors are, from events taken as normal and before the model has learned them.

        Args:
            rows: (A,) different sensors.
            error: (A, B, d) scaled value minus reconstruction.
            used: (A, B, d) where it was observed and the event counts.
        """
        count = self.error_count[rows]
        cap = np.where(count >= ERROR_CAP_AFTER, 9 * self.error_var[rows], np.inf)
        square = np.minimum(error * error, cap[:, None].astype(np.float32), dtype=np.float32)
        number = used.sum(axis=1)
        mean = (square * used).sum(axis=1) / np.maximum(number, 1)
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


def shares(
    parts: tuple[NDArray[np.float32], NDArray[np.float32]], openness: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(K, d) how much each input adds to K scores: of each of the two sums its part, the second times the openness."""
    first, second = (part.astype(np.float64) for part in parts)
    out = first / np.maximum(first.sum(axis=1, keepdims=True), 1e-12)
    out += openness[:, None] * second / np.maximum(second.sum(axis=1, keepdims=True), 1e-12)
    return out
