"""Residuals of each reading against a linear prediction from the other readings: broken couplings show here first.

The residual of a reading is its distance from what the other readings of the same event predict, by the inverse of
their covariance (P. C. Mahalanobis, 1936; the residuals are the rows of the precision matrix). A leak, a slipped belt
or a drifting sensor need not leave the range of any reading, and an autoencoder trained on few events reconstructs
them well enough; the residual of a pair that always moved together is large at once.

It fails on couplings that are not linear, on a fault that moves all coupled readings together, and on a table with
fewer events than features, whose covariance is mostly its shrunk diagonal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector.features.scaler import SCALE_SD
from stream_ad.detector.features.usual_extremes import extreme_columns, update_extremes
from stream_ad.detector.row_store import ColumnSpec, SensorTable
from stream_ad.kernels.jit import Arrays, kernel, rise

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOW = 5000  # events that the covariance and the usual residuals look back
FIRST_EVENTS = 64  # events before which residuals are 0
SETTLED_EVENTS, SETTLED_PER_FEATURE = 1024, 32  # events, and events per feature, after which one in STRIDE is enough
STRIDE = 4  # one event in so many is then learned
RIDGE = 0.05  # share of the variance of a standardised reading that no other reading can predict
LEAST_VARIANCE = 0.1  # floor of the variance of a standardised reading: a constant one predicts nothing
REACH = 6.0  # standard deviations at which readings are clipped
CAP_AFTER = 100  # residuals after which one event adds at most 9 variances
SQUARE_CAP = np.float32(100)  # 10 standard deviations: a larger residual is no worse
SMOOTH_RATE = 0.15
SMOOTH_SCALE = (2 - SMOOTH_RATE) / SMOOTH_RATE  # gives the smoothed residual of white noise variance 1
SMOOTH_CAP = (100 / SMOOTH_SCALE) ** 0.5  # its square then is SQUARE_CAP: a larger value would only last longer
WEIGHT = 0.5  # of the residuals beside the reconstruction errors
REFRESH_SHARE = 16  # weights are recomputed when a sixteenth of the events behind them is new
ROUNDS = 2  # passes that fill in missing readings with their predictions


class LinearResiduals(SensorTable):
    """Covariance, regression weights, usual and smoothed residuals of each sensor."""

    count: NDArray[np.int64]  # (S,) events behind the covariance
    fresh: NDArray[np.int64]  # (S,) those of them that came since the weights were computed
    covariance: NDArray[np.float64]  # (S, F, F) of the standardised readings of events taken as normal
    weights: NDArray[np.float32]  # (S, F, F) residual k is the sum over j of reading j times weight (j, k)
    residual_count: NDArray[np.int64]  # (S,) events behind the usual residuals
    squares: NDArray[np.float64]  # (S, F) mean squared residual
    inv_std: NDArray[np.float32]  # (S, F) factor that normalises residuals: 1 / sqrt(squares with a floor)
    smooth: NDArray[np.float32]  # (S, F) EWMA of the normalised residual
    fourth: NDArray[np.float32]  # (S, F) mean fourth power of the normalised residual
    extreme: NDArray[np.float32]  # (S, F) usual extreme of the normalised residual

    def __init__(self, features: int) -> None:
        number, square = ColumnSpec((), np.int64), (features, features)
        super().__init__(
            features,
            {
                "count": number,
                "fresh": number,
                "covariance": ColumnSpec(square, np.float64),
                "weights": ColumnSpec(square, np.float32),
                "residual_count": number,
                "squares": ColumnSpec((features,), np.float64, 1.0, "features"),
                "inv_std": ColumnSpec((features,), np.float32, 1.0, "features"),
                "smooth": ColumnSpec((features,), np.float32, 0.0, "features"),
                **extreme_columns(features),
            },
        )

    def copy_row(self, other: SensorTable, row: int, *, positions: NDArray[np.int64]) -> None:
        """Copy a row, with ``positions`` (F_other,) as in SensorTable; both axes of square arrays are features."""
        assert isinstance(other, LinearResiduals)
        square = {"covariance", "weights"}
        for name, column in self.columns.items():
            old, new = getattr(other, name)[row], getattr(self, name)[self.size - 1]
            if name in square:
                new[np.ix_(positions, positions)] = old
            elif column.last:
                new[positions] = old
            else:
                getattr(self, name)[self.size - 1] = old

    def reset_feature(self, row: int, feature: int) -> None:
        """Reset a feature of a row; both axes of square arrays are features."""
        super().reset_feature(row, feature)
        for square in (self.covariance, self.weights):
            square[row, feature], square[row, :, feature] = 0, 0

    def residuals(
        self, rows: NDArray[np.int64], scaled: NDArray[np.float32], observed: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Return the summands that the residuals of the next events add to Q and M (see ``Scoring.score``).

        Moves the smoothed residuals of their sensors on.

        Args:
            rows: (N,) sensors, in the order of arrival.
            scaled: (N, d) scaled inputs, the readings first.
            observed: (N, d) false where missing.

        Returns:
            (N, F) summands of Q, of the residuals of the event alone; (N, F) summands of M, of the smoothed residuals.
            Each lies between 0 and 50 divided by the number of observed readings; higher is more unusual.
            (N, F) residuals over their usual extremes, 0 where missing.
        """
        instant, smoothed, relative = (np.empty((len(rows), self.features), np.float32) for _ in range(3))
        figures = self.weights, self.inv_std, self.smooth, self.extreme
        _compute(rows, scaled, observed, figures, (instant, smoothed, relative))
        return instant, smoothed, relative

    def update(
        self,
        rows: NDArray[np.int64],
        scaled: NDArray[np.float32],
        observed: NDArray[np.bool_],
        used: NDArray[np.bool_],
    ) -> None:
        """Learn one batch of events taken as normal: first the size of their residuals, then their covariance.

        Args:
            rows: (A,) different sensors.
            scaled: (A, B, d) scaled inputs.
            observed: (A, B, d) false where missing.
            used: (A, B) the events that count.
        """
        figures = (
            *(self.count, self.fresh, self.covariance, self.weights, self.residual_count, self.squares),
            *(self.inv_std, self.fourth, self.extreme),
        )
        flat = (-1, scaled.shape[2])
        _update(rows, scaled.reshape(flat), observed.reshape(flat), used, figures)
        resting = np.maximum(np.minimum(self.count[rows], WINDOW), REFRESH_SHARE * self.features / 2)
        due = rows[(self.count[rows] >= FIRST_EVENTS) & (REFRESH_SHARE * self.fresh[rows] >= resting)]
        if len(due):
            _refresh(due, (self.count, self.fresh, self.covariance, self.weights, self.squares, self.inv_std))

    def limit_count(self, rows: NDArray[np.int64], most: int) -> None:
        """Cap the event counts of the sensors (A,) at ``most``, so that the next events weigh more."""
        self.count[rows] = np.minimum(self.count[rows], most)
        self.residual_count[rows] = np.minimum(self.residual_count[rows], most)


@kernel
def _refresh(rows: NDArray[np.int64], figures: Arrays) -> None:
    """Compute the weights of the rows (A,) from the covariance, shrunk towards its diagonal while events are few."""
    count, fresh, covariance, weights, squares, inv_std = figures
    features = squares.shape[1]
    ordered = np.empty(features)
    for a in range(len(rows)):
        s = rows[a]
        fresh[s] = 0
        shrink = features / (count[s] + features)
        matrix = covariance[s] * (1 - shrink)
        for k in range(features):
            matrix[k, k] += shrink * max(covariance[s, k, k], LEAST_VARIANCE) + RIDGE
        precision = np.linalg.inv(matrix)
        for k in range(features):
            ordered[k] = squares[s, k]
        rise(ordered, features)
        median = (ordered[(features - 1) // 2] + ordered[features // 2]) / 2
        for k in range(features):
            inv_std[s, k] = 1 / np.sqrt(squares[s, k] + 0.1 * median + 1e-6)
            for j in range(features):
                weights[s, j, k] = precision[j, k] / precision[k, k]


@kernel
def _residuals(
    z: NDArray[np.float32],
    observed: NDArray[np.bool_],
    n: int,
    weights: NDArray[np.float32],
    s: int,
    out: NDArray[np.float32],
) -> None:
    """Fill ``out`` (F,) with the residuals of the readings ``z`` (F,) of event ``n`` of sensor ``s``.

    A missing reading is filled in with its prediction (in ``z``) and has the residual 0.
    """
    features = len(z)
    missing = False
    for k in range(features):
        missing |= not observed[n, k]
    for _ in range(ROUNDS if missing else 0):
        for k in range(features):
            if not observed[n, k]:
                total = np.float32(0)
                for j in range(features):
                    if j != k:
                        total += z[j] * weights[s, j, k]
                z[k] = -total
    nothing, k = np.float32(0), 0
    while k < features:  # four sums in registers: in ``out`` each addition would wait for the one before to be stored
        a = b = c = d = nothing
        if k + 4 <= features:
            for j in range(features):
                reading = z[j]
                a += reading * weights[s, j, k]
                b += reading * weights[s, j, k + 1]
                c += reading * weights[s, j, k + 2]
                d += reading * weights[s, j, k + 3]
            out[k], out[k + 1], out[k + 2], out[k + 3] = a, b, c, d
            k += 4
        else:
            for j in range(features):
                a += z[j] * weights[s, j, k]
            out[k] = a
            k += 1
    for k in range(features):
        if not observed[n, k]:
            out[k] = nothing


@kernel
def _standardise(scaled: NDArray[np.float32], observed: NDArray[np.bool_], n: int, z: NDArray[np.float32]) -> None:
    reach, half, sd = np.float32(REACH), np.float32(0.5), np.float32(SCALE_SD)
    for k in range(len(z)):
        z[k] = min(max((scaled[n, k] - half) * sd, -reach), reach) if observed[n, k] else np.float32(0)


@kernel
def residuals_of(
    scaled: NDArray[np.float32], observed: NDArray[np.bool_], n: int, sensor: tuple[Any, int], out: Arrays
) -> None:
    """Compute the residuals of an event, not yet normalised; 0 where missing.

    Args:
        scaled: (N, d) scaled inputs, the readings first.
        observed: (N, d) false where missing.
        n: The event.
        sensor: (S, F, F) weights, and the row of the event's sensor.
        out: (F,) each: overwritten with the standardised readings, those missing filled in; filled with the residuals.
    """
    weights, s = sensor
    z, residual = out
    _standardise(scaled, observed, n, z)
    _residuals(z, observed, n, weights, s, residual)


@kernel
def _compute(
    rows: NDArray[np.int64],
    scaled: NDArray[np.float32],
    observed: NDArray[np.bool_],
    figures: Arrays,
    out: Arrays,
) -> None:
    weights, inv_std, smooth, extreme = figures
    instant, smoothed, relative = out
    features = instant.shape[1]
    z, residual = np.empty(features, np.float32), np.empty(features, np.float32)
    rate, smooth_scale, most = np.float32(SMOOTH_RATE), np.float32(SMOOTH_SCALE), np.float32(SMOOTH_CAP)
    for n in range(len(rows)):
        s = rows[n]
        _standardise(scaled, observed, n, z)
        _residuals(z, observed, n, weights, s, residual)
        number = 0
        for k in range(features):
            number += observed[n, k]
        share = np.float32(WEIGHT / max(number, 1))
        for k in range(features):
            if observed[n, k]:
                size = residual[k] * inv_std[s, k]
                smooth[s, k] = min(max(smooth[s, k] + rate * (size - smooth[s, k]), -most), most)
                relative[n, k] = size / extreme[s, k]
                instant[n, k] = share * min(size * size, SQUARE_CAP)
                smoothed[n, k] = share * min(smooth[s, k] * smooth[s, k] * smooth_scale, SQUARE_CAP)
            else:
                instant[n, k] = smoothed[n, k] = relative[n, k] = 0


@kernel
def _update(
    rows: NDArray[np.int64],
    scaled: NDArray[np.float32],
    observed: NDArray[np.bool_],
    used: NDArray[np.bool_],
    figures: Arrays,
) -> None:
    count, fresh, covariance, weights, residual_count, squares, inv_std, fourth, extreme = figures
    features = squares.shape[1]
    power, judged = np.empty(features), np.empty(features)
    z, residual = np.empty(features, np.float32), np.empty(features, np.float32)
    products = np.empty((features, features), np.float32)  # of one batch: few summands
    total, seen = np.empty(features), np.empty(features)
    for a in range(len(rows)):
        s = rows[a]
        products[:], total[:], seen[:], power[:] = 0, 0, 0, 0
        number, taken = 0, 0
        stride = STRIDE if count[s] >= max(SETTLED_EVENTS, SETTLED_PER_FEATURE * features) else 1
        for b in range(used.shape[1]):
            if not used[a, b]:
                continue
            number += 1
            if (number - 1) % stride:
                continue
            taken += 1
            n = a * used.shape[1] + b
            _standardise(scaled, observed, n, z)
            _residuals(z, observed, n, weights, s, residual)
            for k in range(features):
                if observed[n, k]:
                    square = np.float64(residual[k]) ** 2
                    seen[k] += 1
                    power[k] += square * square
                    total[k] += min(square, 9 * squares[s, k]) if residual_count[s] >= CAP_AFTER else square
            for j in range(features):
                for k in range(features):
                    products[j, k] += z[j] * z[k]
        if not number:
            continue
        if count[s] >= FIRST_EVENTS:  # there are weights
            residual_count[s] += number
            rate = number / min(residual_count[s], WINDOW)
            for k in range(features):
                if seen[k]:
                    squares[s, k] += rate * (total[k] / seen[k] - squares[s, k])
            judged[:] = residual_count[s]
            for k in range(features):
                power[k] *= np.float64(inv_std[s, k]) ** 4
            update_extremes(s, (power, seen, judged), fourth, extreme)
        count[s] += number
        fresh[s] += number
        rate = number / min(count[s], WINDOW)
        for j in range(features):
            for k in range(features):
                covariance[s, j, k] += rate * (products[j, k] / taken - covariance[s, j, k])
