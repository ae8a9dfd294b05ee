"""Running standardisation of the derived inputs of each sensor, from events taken as normal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.row_store import ColumnSpec, SensorTable, derived_size
from stream_ad.kernels.jit import Arrays, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCALE_SD = 8.0  # standard deviations (sd) that span the unit interval: ±4 sd
REACH = 1.5  # scaled values are clipped to .5 ± this, 12 sd: far enough for every score, near enough for float32
WINDOW = 20_000  # events that mean and variance look back
CLIP_AFTER = 100  # events after which a reading counts as at most 30 sd off
CLIP_SD = 30.0  # one glitch may not hide all readings after it


class Scaler(SensorTable):
    """Running mean and variance with forgetting; maps mean ± 4 sd to [0, 1]. A missing input stays missing.

    Both follow the last 20,000 events, so that a level that moves slowly becomes normal. They fail on an input whose
    usual values lie in two far groups: the sd spans both, and a reading between them looks normal.
    """

    count: NDArray[np.float64]  # (S, d) events behind mean and variance
    mean: NDArray[np.float64]  # (S, d)
    var: NDArray[np.float64]  # (S, d)
    center: NDArray[np.float32]  # (S, d) the mean, as ``transform`` subtracts it
    scale: NDArray[np.float32]  # (S, d) factor of the distance from the center, 1 / (8 sd); 0 before the first event

    def __init__(self, features: int) -> None:
        column = ColumnSpec((derived_size(features),), np.float64, 0.0, "derived")
        single = ColumnSpec((derived_size(features),), np.float32, 0.0, "derived")
        super().__init__(features, {"count": column, "mean": column, "var": column, "center": single, "scale": single})

    def deviation(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (A, d) standard deviations, with a floor at what float32 can distinguish from the mean."""
        return np.sqrt(self.var[rows] + (1e-6 * self.mean[rows]) ** 2 + 1e-18)

    def transform(
        self, rows: NDArray[np.int64], derived: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Scale derived inputs: .5 at the mean, clipped to [-1, 2]; .5 where missing and before the first event.

        Args:
            rows: (A,) sensors.
            derived: (A, k) or (A, B, k), the first k of the derived inputs, NaN where missing.

        Returns:
            The scaled values, and whether each was observed; both of the shape of ``derived``.
        """
        scaled, observed = np.empty(derived.shape, np.float32), np.empty(derived.shape, np.bool_)
        shape = (len(rows), -1, derived.shape[-1])
        _scale(
            rows,
            np.ascontiguousarray(derived).reshape(shape),
            (self.center, self.scale),
            scaled.reshape(shape),
            observed.reshape(shape),
        )
        return scaled, observed

    def inverse_transform(self, rows: NDArray[np.int64], scaled: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return (A, d) the derived inputs that ``transform`` maps to ``scaled`` (A, d), for sensors (A,)."""
        return self.mean[rows] + (scaled.astype(np.float64) - 0.5) * SCALE_SD * self.deviation(rows)

    def update(self, rows: NDArray[np.int64], derived: NDArray[np.float32], used: NDArray[np.bool_]) -> None:
        """Learn one batch of events taken as normal.

        Args:
            rows: (A,) different sensors.
            derived: (A, B, d) derived inputs, NaN where missing.
            used: (A, B) the events that count.
        """
        _update(rows, derived, used, (self.count, self.mean, self.var, self.center, self.scale))

    def follow(self, row: int, feature: int) -> None:
        """Recompute center and scale of a feature whose mean was moved."""
        self.center[row, feature] = self.mean[row, feature]
        self.scale[row, feature] = 1 / (SCALE_SD * self.deviation(np.array([row]))[0, feature])

    def limit_count(self, rows: NDArray[np.int64], most: float) -> None:
        """Cap the event count of the sensors (A,) at ``most``, so that the next events weigh more."""
        self.count[rows] = np.minimum(self.count[rows], most)


@kernel
def _deviation(mean: float, var: float) -> float:
    """Return the standard deviation, with a floor at what float32 can distinguish from the mean."""
    return np.sqrt(var + (1e-6 * mean) ** 2 + 1e-18)


@kernel
def _scale(
    rows: NDArray[np.int64],
    derived: NDArray[np.float32],
    figures: Arrays,
    scaled: NDArray[np.float32],
    observed: NDArray[np.bool_],
) -> None:
    centers, scales = figures
    width = derived.shape[2]
    low, half, high = np.float32(0.5 - REACH), np.float32(0.5), np.float32(0.5 + REACH)
    for a in range(len(rows)):
        center, scale = centers[rows[a]], scales[rows[a]]
        for b in range(derived.shape[1]):
            for k in range(width):
                x = derived[a, b, k]
                present = not np.isnan(x)
                observed[a, b, k] = present
                scaled[a, b, k] = min(max((x - center[k]) * scale[k] + half, low), high) if present else half


@kernel
def _update(rows: NDArray[np.int64], derived: NDArray[np.float32], used: NDArray[np.bool_], figures: Arrays) -> None:
    count, mean, var, center, scale = figures
    steps, width = derived.shape[1:]
    number, offset, square, reach = np.empty(width), np.empty(width), np.empty(width), np.empty(width)
    for a in range(len(rows)):
        s = rows[a]
        number[:], offset[:], square[:] = 0, 0, 0
        for k in range(width):
            reach[k] = CLIP_SD * _deviation(mean[s, k], var[s, k]) if count[s, k] >= CLIP_AFTER else np.inf
        for b in range(steps):
            if used[a, b]:
                for k in range(width):
                    x = np.float64(derived[a, b, k]) - mean[s, k]
                    if not np.isnan(x):
                        number[k] += 1
                        offset[k] += min(max(x, -reach[k]), reach[k])
        for k in range(width):
            offset[k] /= max(number[k], 1)
        for b in range(steps):
            if used[a, b]:
                for k in range(width):
                    x = np.float64(derived[a, b, k]) - mean[s, k]
                    if not np.isnan(x):
                        square[k] += (min(max(x, -reach[k]), reach[k]) - offset[k]) ** 2
        for k in range(width):
            if number[k] > 0:
                count[s, k] += number[k]
                rate = min(max(number[k] / count[s, k], number[k] / WINDOW), 1.0)
                mean[s, k] += rate * offset[k]
                var[s, k] = (1 - rate) * (var[s, k] + rate * offset[k] ** 2) + rate * (square[k] / number[k])
                center[s, k] = mean[s, k]
                scale[s, k] = 1 / (SCALE_SD * _deviation(mean[s, k], var[s, k]))
