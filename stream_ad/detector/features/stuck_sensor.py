"""Stuck sensors: a reading that always moved and has stopped moving.

A stuck reading stays within its range, and an autoencoder reconstructs it well. It is recognised by its missing
noise: its average jump (see ``TemporalFeatures``) falls far below the usual one. The fall is measured on the log
scale, from a quarter of the usual jump downwards, and compared with how still the reading is at other times: a valve
that rests most of the day is not stuck.

It fails on readings that are often still, on readings that never moved, and on a sensor that is stuck but noisy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.features.linear_residuals import SQUARE_CAP, WEIGHT, WINDOW
from stream_ad.detector.row_store import ColumnSpec, SensorTable
from stream_ad.kernels.jit import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

STILL_SHARE = 0.25  # share of the usual jump below which a reading counts as still
LEAST_SHARE = 0.005  # share of the usual jump added to the jump, so that the stillness of a constant is finite
LEAST_VARIANCE = 0.05  # floor of the mean squared stillness, for readings that never rest


class StuckSensor(SensorTable):
    """How still each reading of each sensor usually is."""

    count: NDArray[np.float64]  # (S, F) events behind the mean
    usual: NDArray[np.float64]  # (S, F) mean squared stillness of events taken as normal

    def __init__(self, features: int) -> None:
        column = ColumnSpec((features,), np.float64, 0.0, "features")
        super().__init__(features, {"count": column, "usual": column})

    def add_stillness(
        self,
        rows: NDArray[np.int64],
        derived: NDArray[np.float32],
        usual_jump: NDArray[np.float64],
        parts: tuple[NDArray[np.float32], NDArray[np.float32]],
    ) -> None:
        """Add the stillness of the next events to their summands of Q and M (see ``Scoring.score``), in place.

        Args:
            rows: (N,) sensors.
            derived: (N, d) derived inputs; the third of each feature is its average jump.
            usual_jump: (S, d) means of the derived inputs, as the scaler keeps them.
            parts: Summands of Q and of M, (N, F) each. The stiller a reading, the more is added to both: 0 to 50,
                divided by the number of observed readings.
        """
        _add_stillness(rows, derived, usual_jump, self.usual, *parts)

    def update(
        self,
        rows: NDArray[np.int64],
        derived: NDArray[np.float32],
        usual_jump: NDArray[np.float64],
        used: NDArray[np.bool_],
    ) -> None:
        """Learn one batch of events taken as normal.

        Args:
            rows: (A,) different sensors.
            derived: (A, B, d) derived inputs.
            usual_jump: (S, d) means of the derived inputs.
            used: (A, B) the events that count.
        """
        _update(rows, derived, usual_jump, used, self.count, self.usual)


@kernel
def _stillness(jump: float, usual_jump: float) -> float:
    """Return 0 for a reading that moves or is missing, else the log of how far its jump is below the usual one."""
    if not jump < STILL_SHARE * usual_jump:
        return 0.0
    return np.log(STILL_SHARE / (jump / usual_jump + LEAST_SHARE))


@kernel
def _add_stillness(
    rows: NDArray[np.int64],
    derived: NDArray[np.float32],
    usual_jump: NDArray[np.float64],
    usual: NDArray[np.float64],
    instant: NDArray[np.float32],
    smoothed: NDArray[np.float32],
) -> None:
    features = usual.shape[1]
    for n in range(len(rows)):
        s = rows[n]
        number = 0
        for k in range(features):
            number += not np.isnan(derived[n, k])
        share = np.float32(WEIGHT / max(number, 1))
        for k in range(features):
            still = _stillness(derived[n, 2 * features + k], usual_jump[s, 2 * features + k])
            if still > 0:
                added = share * min(np.float32(still * still / (usual[s, k] + LEAST_VARIANCE)), SQUARE_CAP)
                instant[n, k] += added
                smoothed[n, k] += added


@kernel
def _update(
    rows: NDArray[np.int64],
    derived: NDArray[np.float32],
    usual_jump: NDArray[np.float64],
    used: NDArray[np.bool_],
    count: NDArray[np.float64],
    usual: NDArray[np.float64],
) -> None:
    features = usual.shape[1]
    number, total = np.empty(features), np.empty(features)
    for a in range(len(rows)):
        s = rows[a]
        number[:], total[:] = 0, 0
        for b in range(used.shape[1]):
            if used[a, b]:
                for k in range(features):
                    jump = derived[a, b, 2 * features + k]
                    if not np.isnan(jump):
                        number[k] += 1
                        total[k] += _stillness(jump, usual_jump[s, 2 * features + k]) ** 2
        for k in range(features):
            if number[k]:
                count[s, k] += number[k]
                usual[s, k] += number[k] / min(count[s, k], WINDOW) * (total[k] / number[k] - usual[s, k])
