"""The signature of an event: which readings are off, in which direction, and in which way.

The pattern has a figure for each reading and each of three kinds of error: that of its reconstruction, that of the
reconstruction of its jumps, and its coupling residual, each in its usual sizes and bent to -1 to 1. The shape has
figures that do not depend on which reading it is: a spike, a drift and a stuck reading differ in it anywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector.features.linear_residuals import residuals_of
from stream_ad.detector.features.scaler import SCALE_SD
from stream_ad.kernels.jit import Arrays, kernel, sigmoid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.detector.sensor_state import SensorState

PATTERN = 3  # errors of the reading, errors of its jumps, coupling residuals
SHAPE = 7
"""Largest error of a reading, of a deviation from its EWMA; least and largest error of the jumps; largest coupling
residual; largest distance from the mean; share of the readings that are off.
"""
BENT = 2.0 / 3.0  # an error of three usual sizes is at tanh 1


def signatures(
    state: SensorState, rows: NDArray[np.int64], derived: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the signatures of events by the present model; nothing is changed.

    Args:
        state: Of the sensors.
        rows: (M,) sensors of the events.
        derived: (M, d) their derived inputs.

    Returns:
        (M, 3, F) patterns, -1 to 1, 0 where missing; (M, 7) shapes.
    """
    scaled, observed = state.scaler.transform(rows, derived)
    reconstructed = state.network.reconstruct(np.zeros_like(rows) if state.shared else rows, scaled)
    pattern = np.zeros((len(rows), PATTERN, state.features), np.float32)
    shape = np.zeros((len(rows), SHAPE), np.float32)
    coupling = state.linear_residuals.weights, state.linear_residuals.inv_std
    _signatures(rows, (scaled, observed, reconstructed), state.scoring.inv_std, coupling, (pattern, shape))
    return pattern, shape


@kernel
def _signatures(
    rows: NDArray[np.int64], events: Arrays, inv_std: NDArray[np.float32], coupling: Arrays, out: Arrays
) -> None:
    scaled, observed, reconstructed = events
    weights, residual_inv_std = coupling
    pattern, shape = out
    features = pattern.shape[2]
    z, residual = np.empty(features, np.float32), np.empty(features, np.float32)
    half, sd = np.float32(0.5), np.float32(SCALE_SD)
    nothing: Any = np.float32(0)
    for m in range(len(rows)):
        s = rows[m]
        residuals_of(scaled, observed, m, (weights, s), (z, residual))
        total = squares = nothing
        for f in range(features):
            reading = deviation = jump = distance = nothing
            if observed[m, f]:
                reading = _bent((scaled[m, f] - reconstructed[m, f]) * inv_std[s, f])
                distance = abs(_bent((scaled[m, f] - half) * sd))
            k = features + f
            if observed[m, k]:
                deviation = abs(_bent((scaled[m, k] - reconstructed[m, k]) * inv_std[s, k]))
            k = 2 * features + f
            if observed[m, k]:
                jump = _bent((scaled[m, k] - reconstructed[m, k]) * inv_std[s, k])
            broken = _bent(residual[f] * residual_inv_std[s, f])
            pattern[m, 0, f], pattern[m, 1, f], pattern[m, 2, f] = reading, jump, broken
            shape[m, 0] = max(shape[m, 0], abs(reading))
            shape[m, 1] = max(shape[m, 1], deviation)
            shape[m, 2] = jump if f == 0 else min(shape[m, 2], jump)
            shape[m, 3] = jump if f == 0 else max(shape[m, 3], jump)
            shape[m, 4] = max(shape[m, 4], abs(broken))
            shape[m, 5] = max(shape[m, 5], distance)
            off = abs(reading) + abs(broken) + distance
            total += off
            squares += off * off
        if squares > 0:
            shape[m, 6] = total * total / (squares * np.float32(features))


@kernel
def _bent(error: Any) -> Any:
    """Return tanh(error / 3)."""
    return np.float32(2) * sigmoid(np.float32(BENT) * error) - np.float32(1)
