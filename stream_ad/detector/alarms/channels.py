"""The three channels that evidence is made of, on the scale of their histogram."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector.alarms.levels import CHANNEL_STEPS, ROW_BINS, ROW_LOW, ROW_WIDTH
from stream_ad.kernels.jit import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHANNELS = 3  # log score, largest coupling residual, largest error of a reading
EXTREME_SCALE, EXTREME_SHIFT, LEAST_EXTREME = 3.0, 6.0, 1e-5  # map the log of an extreme to the range of the histogram


def channels_of(
    log_score: NDArray[np.float64], residuals: NDArray[np.float32], errors: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return (3, N) the channels of N events, on the scale of their histogram and rounded.

    Args:
        log_score: (N,).
        residuals: (N, F) coupling residuals over their usual extremes.
        errors: (N, F) errors of the readings over their usual extremes.
    """
    out = np.empty((CHANNELS, len(log_score)))
    _channels(log_score, residuals, errors, out)
    return out


@kernel
def _channels(
    log_score: NDArray[np.float64],
    residuals: NDArray[np.float32],
    errors: NDArray[np.float32],
    out: NDArray[np.float64],
) -> None:
    for n in range(len(log_score)):
        out[0, n] = np.rint(log_score[n] * CHANNEL_STEPS) / CHANNEL_STEPS
        residual, error = np.float32(0), np.float32(0)
        for k in range(residuals.shape[1]):
            residual = max(residual, abs(residuals[n, k]))
            error = max(error, abs(errors[n, k]))
        out[1, n] = _rounded(residual)
        out[2, n] = _rounded(error)


@kernel
def _rounded(extreme: Any) -> Any:
    x = EXTREME_SCALE * np.log(np.float64(extreme) + LEAST_EXTREME) + EXTREME_SHIFT
    return np.rint(x * CHANNEL_STEPS) / CHANNEL_STEPS


@kernel
def row_bin(value: float) -> int:
    """Return the bin of a channel's value in its histogram."""
    return min(max(int((value - ROW_LOW) / ROW_WIDTH), 0), ROW_BINS - 1)
