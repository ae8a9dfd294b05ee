"""Stillness: a reading that stops moving stands out, one that often rests does not."""

from __future__ import annotations

import numpy as np

from stream_ad.detector.features.stuck_sensor import StuckSensor

ROW = np.zeros(1, np.int64)
FEATURES, WIDTH = 2, 8


def inputs(jumps):
    """(N, d) derived inputs with these average jumps of feature 0; feature 1 always jumps by 1."""
    out = np.full((len(jumps), WIDTH), 0.0, np.float32)
    out[:, 2 * FEATURES], out[:, 2 * FEATURES + 1] = jumps, 1
    out[np.isnan(out[:, 2 * FEATURES]), 0] = np.nan
    return out


def added(table, jumps):
    """(N,) what feature 0 adds to Q, and to M; feature 1 must add nothing."""
    derived, mean = inputs(jumps), np.ones((1, WIDTH))
    parts = np.zeros((len(derived), FEATURES), np.float32), np.zeros((len(derived), FEATURES), np.float32)
    table.add_stillness(np.zeros(len(derived), np.int64), derived, mean, parts)
    np.testing.assert_array_equal(parts[0], parts[1])
    assert (parts[0][:, 1] == 0).all()
    return parts[0][:, 0]


def taught(jumps):
    table = StuckSensor(FEATURES)
    table.append(1)
    table.update(ROW, inputs(jumps)[None], np.ones((1, WIDTH)), np.ones((1, len(jumps)), np.bool_))
    return table


def test_the_stiller_the_more_and_nothing_while_it_moves():
    """From a quarter of the usual jump on the score rises as the jump falls; above, or missing, it adds nothing."""
    summands = added(taught(np.ones(256)), np.array([2, 1, 0.3, np.nan, 0.2, 0.1, 0.05, 0]))
    assert (summands[:4] == 0).all()
    assert (np.diff(summands[3:]) > 0).all()
    assert summands[-1] > 5  # alone as much as all of a usual event, several times


def test_a_reading_that_rests_at_times_is_not_stuck():
    """Where one normal event in two is still, stillness says nothing."""
    resting = added(taught(np.tile([1.0, 0.0], 128)), np.zeros(1))
    assert resting[0] < 1


def test_a_constant_reading_adds_nothing():
    """A reading that never moved has no usual jump to fall below."""
    table = taught(np.zeros(64))
    parts = np.zeros((1, FEATURES), np.float32), np.zeros((1, FEATURES), np.float32)
    table.add_stillness(ROW, np.zeros((1, WIDTH), np.float32), np.zeros((1, WIDTH)), parts)
    assert not parts[0].any()
