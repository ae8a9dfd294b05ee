"""Numbers that are kept by the thousand for each sensor, in the room their digits are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.kernels.jit import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOWEST_SCORE = -12.0  # no log score is lower: each of its two terms is at least log .01, and the head takes off 2
SCORE_STEPS = 2048.0  # to one unit of the log score: the last digit is half a thousandth of the published one
NO_SCORE = 65535  # sorts behind all scores


@kernel
def pack_score(score: Any) -> Any:
    """A log score from -12 to 20, in steps of 1/2048, as a code of the same order."""
    return np.uint16(min(max(np.rint((score - LOWEST_SCORE) * SCORE_STEPS), 0), NO_SCORE - 1))


def unpack_scores(codes: NDArray[np.uint16]) -> NDArray[np.float32]:
    """What ``pack_score`` was given, to a step; +inf for no score."""
    scores = codes * np.float32(1 / SCORE_STEPS) + np.float32(LOWEST_SCORE)
    scores[codes == NO_SCORE] = np.inf
    return scores
