"""Surprise and levels: the tails that they rest on, number by number and as rates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ad.detector.alarms.levels import (
    CAP,
    FIXED,
    LEAST_LEVEL,
    ROW_BINS,
    ROW_LOW,
    ROW_WIDTH,
    SPIKE_SHAPE,
    TOP_BINS,
    TOP_EDGES,
    level,
    surprise,
    surprise_table,
    top_bin,
)

RATES = st.floats(1e-9, 0.5)
TOPS = st.lists(st.floats(0, 1e4, width=32), min_size=TOP_BINS, max_size=TOP_BINS)
FEW = settings(deadline=None, max_examples=200)


def level_at(tops, events, rate, shape=SPIKE_SHAPE):
    return level(np.array(tops, np.float64), float(events), rate, shape)


def table_of(values, total=None):
    """(B + 1,) surprise by edge of the histogram of values."""
    places = np.clip((values - ROW_LOW) / ROW_WIDTH, 0, ROW_BINS - 1).astype(int)
    counts, out = np.bincount(places, minlength=ROW_BINS).astype(np.float64), np.empty(ROW_BINS + 1)
    surprise_table(counts, float(len(values) if total is None else total), out)
    return out


# ---------------------------------------------------------------- levels


def test_a_level_is_that_of_its_formula():
    """A hundred excursions: their tail begins where a quarter is reached, and its scale is shrunk to 2.5 nats."""
    tops = np.zeros(TOP_BINS)
    tops[[0, 1, 2, 3, 4, 6]] = [60, 20, 10, 5, 3, 2]  # 40 at 1 nat or above: the first bin with at least 25
    mean_excess = (20 * 0.5 + 10 * 1.5 + 5 * 2.5 + 3 * 3.5 + 2 * 5.5 + 16 * 2.5) / 56
    scale = mean_excess * (1 + 0.5 / 56**0.5)
    expected = 1 + scale * ((1e-4 * 10_000 / 40) ** -0.35 - 1) / 0.35
    assert level_at(tops, 10_000, 1e-4, 0.35) == pytest.approx(expected, rel=1e-12)
    assert expected == pytest.approx(15.2, abs=0.1)


def test_a_level_is_not_below_what_was_exceeded_too_often():
    """Where maxima beyond the tail came more often than the budget allows, and once more, the level is not below."""
    tops = np.zeros(TOP_BINS)
    tops[0], tops[-1] = 1000, 3
    assert level_at(tops, 10_000, 1e-4) >= TOP_EDGES[-2]  # three times where one was allowed
    tops[-1] = 2
    assert level_at(tops, 10_000, 1e-4) < TOP_EDGES[-2]


@FEW
@given(TOPS, st.floats(1, 1e7), RATES, RATES, st.sampled_from([0.35, 0.45]))
def test_a_level_falls_as_the_budget_grows(tops, events, rate, other, shape):
    """A larger budget never has a higher level, and no level is below the least."""
    small, large = level_at(tops, events, min(rate, other), shape), level_at(tops, events, max(rate, other), shape)
    assert small >= large >= LEAST_LEVEL
    assert np.isfinite(small)


@given(st.floats(0, 1e4))
def test_a_maximum_is_counted_between_the_edges_of_its_bin(nats):
    """Every maximum is in the bin whose edges enclose it, and those beyond the last edge are in the last bin."""
    place = top_bin(nats)
    assert 0 <= place < TOP_BINS
    near = 1e-9 * (1 + nats)  # an edge itself may be on either side of rounding
    assert TOP_EDGES[place] <= nats + near
    assert nats - near <= TOP_EDGES[place + 1] or place == TOP_BINS - 1


def exceeded(draw, *, rate, sets=60, excursions=400, apart=50):
    """Share of events at which fresh maxima exceed levels that rest on so many excursions, so many events apart."""
    rng, shares = np.random.default_rng(0), []
    fresh = np.sort(draw(rng, 1_000_000))
    for _ in range(sets):
        tops = np.bincount([top_bin(x) for x in draw(rng, excursions).tolist()], minlength=TOP_BINS)
        at = level_at(tops, excursions * apart, rate)
        shares.append((len(fresh) - np.searchsorted(fresh, at)) / len(fresh) / apart)
    return np.mean(shares)


@pytest.mark.parametrize("rate", [1e-3, 1e-4])
def test_maxima_with_the_tail_that_is_assumed_keep_their_rate(rate):
    """Maxima with a Pareto tail of the assumed shape exceed the level at the rate of the budget, to a factor of two."""
    measured = exceeded(lambda rng, n: 2.5 * (rng.random(n) ** -SPIKE_SHAPE - 1) / SPIKE_SHAPE, rate=rate)
    assert rate / 2 <= measured <= 2 * rate


@pytest.mark.parametrize("rate", [1e-3, 1e-4])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.5])
def test_maxima_with_a_lighter_tail_stay_below_their_budget(rate, scale):
    """Exponential maxima, as independent events have them, exceed the level no more often than the budget allows."""
    assert exceeded(lambda rng, n: rng.exponential(scale, n), rate=rate) <= rate


# ---------------------------------------------------------------- surprise


def test_surprise_is_that_of_its_formula():
    """Up to the last tenth, the most that a tail begins with, -ln of the share that is as high."""
    counts, out = np.zeros(ROW_BINS), np.empty(ROW_BINS + 1)
    counts[[20, 30, 40]] = [50, 41, 9]  # the tail of 100 events begins at the last bin with at least 10: the 30th
    surprise_table(counts, 100.0, out)
    assert out[20] == pytest.approx(-np.log(100.5 / 101))
    assert out[21:31] == pytest.approx(-np.log(50.5 / 101))
    assert (np.diff(out[30:]) > 0).all()


@FEW
@given(
    st.lists(st.floats(0, 1e5, width=32), min_size=ROW_BINS, max_size=ROW_BINS),
    st.floats(0, 1e6),
)
def test_surprise_never_falls_and_ends_at_its_cap(counts, uncounted):
    """A higher value is never less surprising, and no event shows more than 60 nats."""
    out = np.empty(ROW_BINS + 1)
    surprise_table(np.array(counts), float(np.sum(counts) + uncounted), out)
    assert (np.diff(out) >= 0).all()
    assert out[0] >= -1e-9
    assert out[-1] <= CAP


DISTRIBUTIONS = {
    "normal": lambda rng, n: rng.normal(size=n),
    "log chi-square": lambda rng, n: np.log(rng.chisquare(6, n) / 6),
    "exponential": lambda rng, n: rng.exponential(size=n),
    "heavy": lambda rng, n: 3 * np.log(np.abs(rng.standard_t(3, n)) + 0.01),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_surprise_is_minus_the_log_of_a_probability(name):
    """Of fresh events from the same distribution, a share exp(-x) is surprising by x or more, to a factor of two."""
    rng, draw = np.random.default_rng(1), DISTRIBUTIONS[name]
    shares = np.zeros(3)
    for _ in range(20):
        table = np.rint(table_of(draw(rng, 4000)) * FIXED).astype(np.uint16)[None, None]
        fresh = np.sort(draw(rng, 20_000))
        nats = np.array([surprise(table, 0, 0, x) for x in fresh.tolist()])
        assert (np.diff(nats) >= 0).all()
        shares += [np.mean(nats >= x) / 20 for x in (1.0, 3.0, 6.0)]
    np.testing.assert_array_less(shares, 2 * np.exp([-1, -3, -6]))
    np.testing.assert_array_less(np.exp([-1, -3, -6]) / 2, shares)
