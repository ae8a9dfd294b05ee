"""Usual extremes: how large the largest errors of each reading usually are, as the fourth root of their fourth moment.

Divided by it, the errors of readings with light and with heavy tails become comparable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.row_store import ColumnSpec
from stream_ad.kernels.jit import kernel, rise

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOW = 20_000  # events that the fourth moments look back
FLOOR_SHARE = 0.1  # share of the median extreme of the sensor that is added to each


def extreme_columns(features: int) -> dict[str, ColumnSpec]:
    """Return the columns of a table that keeps usual extremes: ``fourth`` and ``extreme``, (S, F) each."""
    column = ColumnSpec((features,), np.float32, 1.0, "features")
    return {"fourth": column, "extreme": column}


@kernel
def update_extremes(
    s: int,
    powers: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    fourth: NDArray[np.float32],
    extreme: NDArray[np.float32],
) -> None:
    """Learn the fourth powers of one batch of a sensor's normalised errors.

    Args:
        s: The sensor.
        powers: (F,) each: sums of fourth powers, numbers of errors in the batch, numbers of errors so far.
        fourth: (S, F) mean fourth powers, updated.
        extreme: (S, F) their fourth roots with a floor, updated.
    """
    power, seen, so_far = powers
    features = fourth.shape[1]
    ordered = np.empty(features)
    for k in range(features):
        if seen[k] > 0:
            rate = seen[k] / min(so_far[k], WINDOW)
            fourth[s, k] += np.float32(rate * (power[k] / seen[k] - fourth[s, k]))
        ordered[k] = fourth[s, k]
    rise(ordered, features)
    median = (ordered[(features - 1) // 2] + ordered[features // 2]) / 2
    floor = FLOOR_SHARE * np.sqrt(np.sqrt(median)) + 1e-6
    for k in range(features):
        extreme[s, k] = np.float32(np.sqrt(np.sqrt(np.float64(fourth[s, k]))) + floor)
