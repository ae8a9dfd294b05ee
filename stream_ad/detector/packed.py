"""Numbers that are kept by the thousand for each sensor, in the room their digits are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOWEST_SCORE = -12.0  # no log score is lower: each of its two terms is at least log .01, and the head takes off 2
SCORE_STEPS = 2048.0  # to one unit of the log score: the last digit is half a thousandth of the published one
NO_SCORE = 65535  # sorts behind all scores


def pack_scores(scores: NDArray[np.floating]) -> NDArray[np.uint16]:
    """Log scores from -12 to 20, in steps of 1/2048, as codes of the same order."""
    return np.clip(np.rint((scores - LOWEST_SCORE) * SCORE_STEPS), 0, NO_SCORE - 1).astype(np.uint16)


def unpack_scores(codes: NDArray[np.uint16]) -> NDArray[np.float32]:
    """What ``pack_scores`` was given, to a step; +inf for no score."""
    scores = codes * np.float32(1 / SCORE_STEPS) + np.float32(LOWEST_SCORE)
    scores[codes == NO_SCORE] = np.inf
    return scores
