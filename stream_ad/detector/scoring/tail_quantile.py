"""Tail quantiles of a sample of scores, by the peaks-over-threshold method."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

TAIL_SHARES = (0.02, 0.1)  # the tail starts at the 98 % point when there are many scores, at the 90 % point before
EXCESSES = 128  # excesses that are enough to fit the tail
SHAPES = (-0.5, 0.3)  # limits of the fitted shape: the quantile of a heavier tail would run away
MOST_SHAPE = 0.5  # limit of the shape after the allowance for few excesses
SHAPE_PRIOR = 20.0  # independent peaks that the prior belief in an exponential tail counts as
PLOTTING = 0.35  # plotting position of a rank within its share (Hosking and Wallis 1987)
LEAST_EXCESS = 1e-3  # mean excess of scores that are all equal


def tail_start(
    sorted_scores: NDArray[np.floating], count: NDArray[np.int64], rate: NDArray[np.float64] | float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (A,) the share of the scores that makes the tail, and (A,) the score that it starts at.

    Args:
        sorted_scores: (A, W) as in ``tail_quantile``.
        count: (A,) as in ``tail_quantile``.
        rate: As in ``tail_quantile``.
    """
    share = np.clip(EXCESSES / np.maximum(count, 1), *TAIL_SHARES)
    rank = np.ceil((1 - np.maximum(share, rate)) * count).astype(np.int64) - 1
    return share, sorted_scores[np.arange(len(count)), np.maximum(rank, 0)].astype(np.float64)


def tail_quantile(
    sorted_scores: NDArray[np.floating],
    count: NDArray[np.int64],
    rate: NDArray[np.float64] | float,
    independence: NDArray[np.float64] | float = 1.0,
) -> NDArray[np.float64]:
    """Return the score that a share ``rate`` of normal events exceeds, row by row.

    Peaks over threshold (A. Siffer et al., "Anomaly detection in streams with extreme value theory", KDD 2017): a
    generalised Pareto tail above the 90 to 98 % point, fitted by probability-weighted moments (J. R. M. Hosking,
    J. R. Wallis, Technometrics 1987), which need no search and are steadier than maximum likelihood on few excesses.
    The shape is drawn towards 0, the exponential tail, the more the fewer excesses there are, and then made heavier
    by their inverse number: the next score above an exponential tail whose mean is known from k excesses is Pareto of
    shape 1 / k. Excesses that come in runs count as one peak each.

    Where there are enough scores, the quantile is at most the order statistic that a share ``rate`` of exchangeable
    scores exceeds at most (V. Vovk et al., Algorithmic Learning in a Random World, 2005): one burst among the scores
    makes a tail that would run far beyond every score seen.

    It fails where the scores change over time: the quantile is that of the sample.

    Args:
        sorted_scores: (A, W) ascending, unused slots +inf at the end.
        count: (A,) used slots.
        rate: Between 0 and .5, for all rows or (A,); from .1 on the empirical quantile is returned.
        independence: (A,) independent peaks per excess, 0 to 1.

    Returns:
        (A,) quantiles, +inf where there is no score.
    """
    rows = np.arange(len(count))
    start, base = tail_start(sorted_scores, count, rate)
    # The scores above the base are at most so many, and are the last of the used slots.
    most = int(np.ceil((start * count).max(initial=0))) + 1
    from_top = np.arange(most)
    rank = count[:, None] - 1 - from_top
    top = np.take_along_axis(sorted_scores, np.maximum(rank, 0), axis=1).astype(np.float64)
    over = (rank >= 0) & np.isfinite(top) & (top > base[:, None])
    number = np.maximum(over.sum(axis=1), 1)
    excess = np.where(over, top, 0.0) - np.where(over, base[:, None], 0.0)
    # Summed one after the other: the number of unused slots must not change the last bit.
    mean = np.maximum(excess.cumsum(axis=1)[:, -1] / number, LEAST_EXCESS)
    weighted = (excess * (from_top + PLOTTING)).cumsum(axis=1)[:, -1] / number**2  # E[x (1 - F)]
    peaks = np.maximum(number * independence, 1.0)
    shape = 2 - mean / np.maximum(mean - 2 * weighted, 1e-9)
    shape = np.clip(shape * peaks / (peaks + SHAPE_PRIOR), *SHAPES)
    scale = mean * (1 - shape)
    shape = np.minimum(shape + 1 / peaks, MOST_SHAPE)
    shape = np.where(np.abs(shape) < 1e-6, 1e-6, shape)
    share = rate * np.maximum(count, 1) / number
    tail = base + scale * (share**-shape - 1) / shape
    allowed = np.floor(rate * (count + 1)).astype(np.int64)  # scores that may lie at or above the level
    bound = sorted_scores[rows, np.maximum(count - np.maximum(allowed, 1), 0)]
    tail = np.where(allowed >= 1, np.minimum(tail, bound), tail)
    tail = np.where((start > rate) & (np.asarray(rate) < TAIL_SHARES[1]), tail, base)
    return np.where(count > 0, tail, np.inf)
