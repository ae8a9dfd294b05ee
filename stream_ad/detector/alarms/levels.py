"""Surprise by a histogram of normal events, and levels by a histogram of the maxima of normal excursions.

Both are tails beyond what was seen: the generalised Pareto distribution (J. Pickands, Ann. Statist. 1975), whose shape
is estimated by probability-weighted moments (J. R. M. Hosking, J. R. Wallis, Technometrics 1987) for the scores of
events, which are many, and fixed for the maxima of excursions, which are few.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.kernels.jit import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROW_BINS, ROW_LOW, ROW_WIDTH = 96, -4.0, 0.2  # histogram of a channel
CHANNEL_STEPS = 1024.0  # channels are rounded to 1/1024, so that all processors and devices decide alike
CAP = 60.0  # nats that one event can show: beyond any histogram
FIXED = 1024.0  # surprise is kept in steps of 1/1024 nat
TAIL_SHARE, TAIL_EVENTS, MOST_TAIL_SHARE = 0.02, 64.0, 0.1  # events above which the tail is fitted
DEPENDENCE = 4.0  # events of the tail that are worth one independent one
SHAPE_PRIOR = 20.0  # independent events by which the shape is shrunk to 0
SHAPE_BOUND = 0.3
LEAST_SCALE = 0.05

TOP_BINS = 32
TOP_EDGES = np.concatenate([np.arange(16.0), 16 * 25 ** (np.arange(17) / 16)])
"""(33,) edges of the histogram of maxima, in nats: whole up to 16, then rising by a fifth to 400, and beyond."""
MOST = 1000.0  # nats that evidence can hold: above any level that a budget asks for
TOP_SHARE, TOP_EXCURSIONS, MOST_TOP_SHARE = 0.05, 32.0, 0.25  # excursions above which their tail begins
SPIKE_SHAPE, SUSTAINED_SHAPE = 0.35, 0.45  # of the tail of maxima, which is heavier where events add up
PRIOR_SCALE, PRIOR_WEIGHT = 2.5, 16.0  # of the tail of maxima, in nats and excursions
LEAST_LEVEL = 6.0


@kernel
def surprise_table(counts: NDArray[np.float64], total: float, out: NDArray[np.float64]) -> None:
    """Fill in -ln P(score >= edge) for each edge of a histogram: empirical, generalised Pareto above the last 2 %.

    Args:
        counts: (B,) decayed number of events by bin.
        total: Decayed number of all events; those of long runs are in no bin.
        out: (B + 1,) nats by left edge, 0 to 60.
    """
    above = np.zeros(ROW_BINS + 1)
    for i in range(ROW_BINS - 1, -1, -1):
        above[i] = above[i + 1] + counts[i]
    wanted = max(min(max(TAIL_EVENTS, TAIL_SHARE * total), MOST_TAIL_SHARE * total), 1.0)
    base = ROW_BINS
    while base > 0 and above[base] < wanted:
        base -= 1
    k = max(above[base], 1e-9)
    mean, weighted, seen = 0.0, 0.0, 0.0
    for i in range(ROW_BINS - 1, base - 1, -1):
        x = (i - base + 0.5) * ROW_WIDTH
        weighted += counts[i] * x * (seen + 0.5 * counts[i])
        mean += counts[i] * x
        seen += counts[i]
    mean, weighted = max(mean / k, 0.02), weighted / (k * k)
    independent = max(k / DEPENDENCE, 1.0)
    shape = 2 - mean / max(mean - 2 * weighted, 1e-9)
    shape = min(max(shape * independent / (independent + SHAPE_PRIOR), -SHAPE_BOUND), SHAPE_BOUND)
    scale = max(mean * (1 - shape), LEAST_SCALE)
    for i in range(base + 1):
        if i > 0 and above[i] == above[i - 1]:
            out[i] = out[i - 1]
        else:
            out[i] = -np.log(max((above[i] + 0.5) / (total + 1.0), 1e-12))
    for i in range(base + 1, ROW_BINS + 1):
        x = (i - base) * ROW_WIDTH
        z = 1 + shape * x / scale
        tail = CAP if z <= 1e-6 else (np.log(z) / shape if abs(shape) > 1e-6 else x / scale)
        out[i] = min(out[base] + tail, CAP)
        if out[i] == CAP:
            out[i:] = CAP
            break


@kernel
def surprise(table: NDArray[np.uint16], s: int, c: int, value: float) -> float:
    """Return the surprise, in nats, of a value of channel ``c`` of sensor ``s`` by its table (S, 3, B + 1)."""
    at = (value - ROW_LOW) / ROW_WIDTH
    if at <= 0:
        return table[s, c, 0] / FIXED
    if at >= ROW_BINS:  # infinite, too
        return table[s, c, ROW_BINS] / FIXED
    i = int(at)
    low = table[s, c, i] / FIXED
    return low + (at - i) * (table[s, c, i + 1] / FIXED - low)


@kernel
def usual_bound(table: NDArray[np.uint16], s: int, c: int, nats: float) -> float:
    """Return nearly the largest value of channel ``c`` with a surprise below ``nats`` by its table (S, 3, B + 1)."""
    if table[s, c, 0] >= nats * FIXED:
        return -np.inf
    i = 1
    while i <= ROW_BINS and table[s, c, i] < nats * FIXED:
        i += 1
    if i > ROW_BINS:
        return np.inf
    low = np.float64(table[s, c, i - 1])
    part = (nats * FIXED - low) / (table[s, c, i] - low)
    return ROW_LOW + ROW_WIDTH * (i - 1 + part) - 2 / CHANNEL_STEPS


@kernel
def far_bin(table: NDArray[np.uint16], s: int, c: int, nats: float) -> int:
    """Return the first bin of channel ``c`` with a surprise above ``nats`` at its middle, by its table (S, 3, B + 1).

    The number of bins stands for none.
    """
    i = 0
    while i < ROW_BINS and np.float64(table[s, c, i]) + table[s, c, i + 1] <= 2 * nats * FIXED:
        i += 1
    return i


@kernel
def top_bin(nats: float) -> int:
    """Return the bin of a maximum in the histogram of maxima."""
    if nats < 16:
        return int(nats)
    return min(16 + int(np.log(nats / 16) * (16 / np.log(25.0))), TOP_BINS - 1)


@kernel
def level(tops: NDArray[np.float64], events: float, rate: float, shape: float) -> float:
    """Return the level, in nats, that the maxima of normal excursions exceed ``rate`` times an event.

    Args:
        tops: (T,) decayed number of normal excursions by their maximum.
        events: Decayed number of the events that they came from.
        rate: Excursions an event.
        shape: Of the tail of the maxima.
    """
    total = 0.0
    for i in range(TOP_BINS):
        total += tops[i]
    if total <= 0:
        return LEAST_LEVEL
    wanted = max(min(max(TOP_EXCURSIONS, TOP_SHARE * total), MOST_TOP_SHARE * total), 1.0)
    base, k = TOP_BINS - 1, tops[TOP_BINS - 1]
    while base > 0 and k < wanted:
        base -= 1
        k += tops[base]
    excess = 0.0
    for i in range(base, TOP_BINS):
        excess += tops[i] * ((TOP_EDGES[i] + TOP_EDGES[i + 1]) / 2 - TOP_EDGES[base])
    worth = k + PRIOR_WEIGHT
    scale = (excess + PRIOR_WEIGHT * PRIOR_SCALE) / worth * (1 + 0.5 / np.sqrt(worth))
    share = rate * events / max(k, 1e-9)
    out = TOP_EDGES[base]
    if share < 1:
        out += scale * (share**-shape - 1) / shape
    above = 0.0
    for i in range(TOP_BINS - 1, -1, -1):  # no lower than what was exceeded more often than allowed, and once more
        above += tops[i]
        if above > rate * events + 1:
            out = max(out, TOP_EDGES[i])
            break
    return max(out, LEAST_LEVEL)
