"""The anomaly score: one number per event from its reconstruction errors and residuals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.features.scaler import SCALE_SD
from stream_ad.detector.features.usual_extremes import extreme_columns, update_extremes
from stream_ad.detector.row_store import ColumnSpec, SensorTable, derived_size
from stream_ad.kernels.jit import ZERO, Arrays, kernel, rise, row_sum

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ERROR_WINDOW = 5000  # events that the error variances look back
ERROR_CAP_AFTER = 100  # events after which one event adds at most 9 variances
SQUARE_CAP = np.float32(100)  # 10 standard deviations: one input does not outweigh all others
SMOOTH_RATE = 0.15
SMOOTH_SCALE = (2 - SMOOTH_RATE) / SMOOTH_RATE  # gives the smoothed error of white noise variance 1
SMOOTH_CAP = (100 / SMOOTH_SCALE) ** 0.5  # its square then is SQUARE_CAP: a larger value would only last longer
FLOOR = 0.01  # keeps the logarithm finite
UNKNOWN_VARIANCE = 1 / SCALE_SD**2  # of a scaled input itself, before any error was seen


class Scoring(SensorTable):
    """Usual size of the reconstruction error of each input, and the smoothed error."""

    error_count: NDArray[np.float64]  # (S, d) events behind the error variances
    error_var: NDArray[np.float64]  # (S, d) mean squared error on events taken as normal
    variance: NDArray[np.float64]  # (S, d) the same with a floor
    inv_std: NDArray[np.float32]  # (S, d) factor that normalises errors: 1 / sqrt(variance)
    smooth: NDArray[np.float32]  # (S, d) EWMA of the normalised error
    fourth: NDArray[np.float32]  # (S, F) mean fourth power of the normalised error of each reading
    extreme: NDArray[np.float32]  # (S, F) usual extreme of that error

    def __init__(self, features: int) -> None:
        shape = (derived_size(features),)
        column = ColumnSpec(shape, np.float64, 0.0, "derived")
        unknown = ColumnSpec(shape, np.float64, UNKNOWN_VARIANCE, "derived")
        smooth = ColumnSpec(shape, np.float32, 0.0, "derived")
        usual = ColumnSpec(shape, np.float32, UNKNOWN_VARIANCE**-0.5, "derived")
        super().__init__(
            features,
            {
                "error_count": column,
                "error_var": column,
                "variance": unknown,
                "inv_std": usual,
                "smooth": smooth,
                **extreme_columns(features),
            },
        )

    def score(
        self,
        rows: NDArray[np.int64],
        scaled: NDArray[np.float32],
        observed: NDArray[np.bool_],
        reconstructed: NDArray[np.float32],
        gate: NDArray[np.float64],
        residuals: Sequence[NDArray[np.float32]],
        excluded: NDArray[np.bool_],
    ) -> tuple[NDArray[np.float64], tuple[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]:
        """Score the next events, and move the smoothed errors of their sensors on.

        S = log(Q + (1 - g) Z + .01) + g log(M + .01), where Q is the capped mean square of the normalised errors, Z
        that of the standardised inputs, M that of the smoothed errors, and g the mean autocorrelation gate: tables
        are scored by Q + Z, time series by Q · M. The residuals of ``LinearResiduals`` and the stillness of
        ``StuckSensor`` are added to Q and M.

        Args:
            rows: (N,) sensors, in the order of arrival.
            scaled: (N, d) scaled inputs.
            observed: (N, d) false where missing.
            reconstructed: (N, d) output of the autoencoder.
            gate: (S, F) autocorrelation gates.
            residuals: Further summands of Q and of M, (N, F) each.
            excluded: (N, F) readings that rules exclude: they add nothing. (0, F) for no rules.

        Returns:
            (N,) log scores, about -9 to 10, higher for more unusual events; summands of Q + (1 - g) Z and of M by
            input, (N, d) each (see ``shares``); errors of the readings over their usual extremes, (N, F), 0 where
            missing.
        """
        log_score = np.empty(len(rows))
        parts = np.empty_like(scaled), np.empty_like(scaled)
        relative = np.empty((len(rows), self.features), np.float32)
        figures = self.inv_std, self.smooth, self.extreme
        _score(
            rows, scaled, observed, reconstructed, (gate, *figures), excluded, log_score, (*parts, *residuals, relative)
        )
        return log_score, parts, relative

    def update(
        self,
        rows: NDArray[np.int64],
        error: NDArray[np.float32],
        observed: NDArray[np.bool_],
        used: NDArray[np.bool_],
    ) -> None:
        """Learn the usual size of errors from events taken as normal, before the model learns them.

        Args:
            rows: (A,) different sensors.
            error: (A, B, d) scaled input minus reconstruction.
            observed: (A, B, d) false where missing.
            used: (A, B) the events that count.
        """
        figures = self.error_count, self.error_var, self.variance, self.inv_std, self.fourth, self.extreme
        _update(rows, error, observed, used, figures)

    def limit_count(self, rows: NDArray[np.int64], most: float) -> None:
        """Cap the event counts of the sensors (A,) at ``most``, so that the next events weigh more."""
        self.error_count[rows] = np.minimum(self.error_count[rows], most)


def shares(parts: Sequence[NDArray[np.float32]], autocorrelation_gate: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (K, d) the share of each input in K scores: its part of Q, plus its part of M times the gate.

    Args:
        parts: Summands of Q + (1 - g) Z and of M, (K, d) each, from ``Scoring.score``.
        autocorrelation_gate: (K,) mean gate g of the sensor of each event.

    Returns:
        (K, d) shares of 0 and above, whose sum over the inputs is 1 + g.
    """
    first, second = (part.astype(np.float64) for part in parts)
    out = first / np.maximum(first.sum(axis=1, keepdims=True), 1e-12)
    out += autocorrelation_gate[:, None] * second / np.maximum(second.sum(axis=1, keepdims=True), 1e-12)
    return out


@kernel
def _score(
    rows: NDArray[np.int64],
    scaled: NDArray[np.float32],
    observed: NDArray[np.bool_],
    reconstructed: NDArray[np.float32],
    sensors: Arrays,
    excluded: NDArray[np.bool_],
    log_score: NDArray[np.float64],
    parts: Arrays,
) -> None:
    gate, inv_std, smooth, extreme = sensors
    first, second, instant, smoothed, relative = parts
    features = gate.shape[1]
    width = scaled.shape[1]
    weight, own = np.zeros(width, np.float32), np.empty((1, width), np.float32)
    weight[:features] = 1
    rate, half, whole, least = np.float32(SMOOTH_RATE), np.float32(0.5), np.float32(1), np.float32(1e-12)
    square_sd, smooth_scale, most = np.float32(SCALE_SD**2), np.float32(SMOOTH_SCALE), np.float32(SMOOTH_CAP)
    for n in range(len(rows)):
        s = rows[n]
        autocorrelation_gate = 0.0
        for f in range(features):
            autocorrelation_gate += gate[s, f]
            weight[features + f] = weight[2 * features + f] = gate[s, f]
        autocorrelation_gate /= features
        tabular = np.float32(1 - autocorrelation_gate)
        for k in range(width):
            own[0, k] = weight[k] if observed[n, k] else np.float32(0)
        part = whole / max(row_sum(own, ZERO), least)
        for k in range(width):
            share = own[0, k] * part
            error = (scaled[n, k] - reconstructed[n, k]) * inv_std[s, k]
            if observed[n, k]:
                smooth[s, k] = min(max(smooth[s, k] + rate * (error - smooth[s, k]), -most), most)
            z = scaled[n, k] - half
            first[n, k] = share * (min(error * error, SQUARE_CAP) + tabular * min(z * z * square_sd, SQUARE_CAP))
            second[n, k] = share * min(smooth[s, k] * smooth[s, k] * smooth_scale, SQUARE_CAP)
        for f in range(features):
            error = (scaled[n, f] - reconstructed[n, f]) * inv_std[s, f] / extreme[s, f]
            relative[n, f] = error if observed[n, f] else np.float32(0)
        for f in range(features):
            first[n, f] += instant[n, f]
            second[n, f] += smoothed[n, f]
        if len(excluded):
            for f in range(features):
                if excluded[n, f]:
                    relative[n, f] = 0
                    for k in (f, features + f, 2 * features + f):
                        first[n, k] = second[n, k] = 0
        log_score[n] = np.log(row_sum(first, n) + FLOOR) + autocorrelation_gate * np.log(row_sum(second, n) + FLOOR)


@kernel
def _update(
    rows: NDArray[np.int64],
    error: NDArray[np.float32],
    observed: NDArray[np.bool_],
    used: NDArray[np.bool_],
    figures: Arrays,
) -> None:
    count, var, variance, inv_std, fourth, extreme = figures
    features = fourth.shape[1]
    power = np.empty(features)
    steps, width = error.shape[1:]
    number, squares, cap, variances = np.empty(width), np.empty(width), np.empty(width), np.empty(width)
    for a in range(len(rows)):
        s = rows[a]
        number[:], squares[:], power[:] = 0, 0, 0
        for k in range(width):
            cap[k] = 9 * var[s, k] if count[s, k] >= ERROR_CAP_AFTER else np.inf
        for b in range(steps):
            if used[a, b]:
                for k in range(width):
                    if observed[a, b, k]:
                        number[k] += 1
                        square = np.float64(error[a, b, k]) ** 2
                        squares[k] += min(square, cap[k])
                for k in range(features):
                    square = np.float64(error[a, b, k]) ** 2
                    power[k] += square * square if observed[a, b, k] else 0.0
        for k in range(features):
            power[k] *= np.float64(inv_std[s, k]) ** 4
        for k in range(width):
            if number[k] > 0:
                count[s, k] += number[k]
                rate = number[k] / min(count[s, k], ERROR_WINDOW)
                var[s, k] += rate * (squares[k] / number[k] - var[s, k])
        update_extremes(s, (power, number, count[s]), fourth, extreme)
        # The median variance of the sensor, a tenth of which is added to each: no input is trusted without limit.
        n = ZERO
        for k in range(width):
            if count[s, k] > 0:
                variances[n] = var[s, k]
                n += 1
        rise(variances, n)
        median = variances[(n - 1) // 2] if n else 0.0
        for k in range(width):
            variance[s, k] = var[s, k] + 0.1 * median + 1e-8 if count[s, k] > 0 else UNKNOWN_VARIANCE
            inv_std[s, k] = 1 / np.sqrt(variance[s, k])
