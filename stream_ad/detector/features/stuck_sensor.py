"""Sensors that got stuck: a reading that always moved and moves no more.

A stuck reading stands within its range, and an autoencoder rebuilds it well. What gives it away is its own
noise: the average jump of the context falls to nothing, far below what it ever was. How far is counted on
the log scale, from a quarter of the usual jump downwards, and against how still the reading is at times
anyway: a valve that rests most of the day is not stuck.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.features.linear_residuals import SQUARE_CAP, WEIGHT, WINDOW
from stream_ad.detector.row_store import ColumnSpec, SensorTable
from stream_ad.kernels.jit import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

STILL_SHARE = 0.25  # of the usual jump, below which a reading counts as still
LEAST_SHARE = 0.005  # of the usual jump: nothing is stiller
LEAST_VARIANCE = 0.05  # of the stillness of readings that never rest


class StuckSensor(SensorTable):
    """How still each reading usually is, per sensor."""

    count: NDArray[np.float64]  # (S, F) events behind it
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
        """Add to what the next events contribute to Q and to M (see Scoring), (N, F) each, in place.

        Args:
            rows: (N,) sensors.
            derived: (N, d) inputs; the third of each feature is its average jump.
            usual_jump: (S, d) mean of the inputs, as the scaler has it.
            parts: What is added to.
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
            derived: (A, B, d).
            usual_jump: (S, d).
            used: (A, B) the events that count.
        """
        _update(rows, derived, usual_jump, used, self.count, self.usual)


@kernel
def _stillness(jump: float, usual_jump: float) -> float:
    """0 for a reading that moves (or is missing); grows with the log of how much less than usual it does."""
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
