"""The Page-Hinkley test beside river's."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from river.drift import PageHinkley

from stream_ad.detector.scoring.drift import FIRST_VALUES, TOLERANCE, Drift

values = st.lists(st.floats(0, 1) | st.sampled_from([0.1, 0.9]) | st.just(float("nan")), max_size=200)


@settings(deadline=None)  # the loop is compiled at its first call
@given(st.lists(values, min_size=1, max_size=3), st.floats(0.1, 5))
def test_it_says_drift_where_river_does(streams, threshold):
    """The values at which it is said are those of river's test, for each of several sensors fed side by side."""
    drift = Drift(1, threshold=threshold)
    drift.append(len(streams))
    tests = [PageHinkley(min_instances=FIRST_VALUES, delta=TOLERANCE, threshold=threshold) for _ in streams]
    for at in range(max(map(len, streams))):
        rows = [row for row, stream in enumerate(streams) if at < len(stream)]
        expected = 0
        for row in rows:
            if not np.isnan(value := streams[row][at]):
                tests[row].update(value)
                expected += tests[row].drift_detected
        assert drift.update(np.array(rows), np.array([streams[row][at] for row in rows])) == expected
    for row, test in enumerate(tests):
        if not test.drift_detected:  # else it starts again with the next value, as ours has
            assert drift.mean[row] == test._x_mean.get()
            assert (drift.up[row], drift.down[row]) == (test._sum_increase, test._sum_decrease)


def test_a_lasting_shift_is_said_soon():
    """Ranks that move from a third to two thirds are said to have changed within some batches, steady ones are not."""
    random = np.random.default_rng(0)
    steady = random.normal(1 / 3, 0.05, 400)
    shifted = np.concatenate([steady[:200], steady[200:] + 1 / 3])
    drift = Drift(1, threshold=1.0)
    drift.append(2)
    said = [drift.update(np.arange(2), np.array(pair)) for pair in zip(steady, shifted, strict=True)]
    assert sum(said[:200]) == 0
    assert sum(said[200:210]) >= 1
