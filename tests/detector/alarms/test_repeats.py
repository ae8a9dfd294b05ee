"""Stuck readings: found soon where readings move, and never called so where they rest by nature."""

from __future__ import annotations

import numpy as np
import pytest

from stream_ad.detector.alarms.excursions import STUCK
from tests.support.channels import together

SECTIONS = {"alarms": {"false_incidents": 1, "per": "week"}}
SENSORS, FROM, WITHIN = 24, 1504, 30


def drifting(rng, events, sensors):
    return np.cumsum(rng.normal(0, 0.1, (events, sensors)), axis=0) + rng.normal(size=(events, sensors))


def swinging(rng, events, sensors):
    angle = np.arange(events)[:, None] / 40 + rng.uniform(0, 6, sensors)
    return 20 + 5 * np.sin(angle) + 0.2 * rng.normal(size=(events, sensors))


def hundredths(rng, events, sensors):
    return np.round(swinging(rng, events, sensors), 2)


MOVING = {"drifting": drifting, "swinging": swinging, "hundredths": hundredths}


@pytest.mark.parametrize("kind", MOVING)
def test_a_reading_that_stands_still_is_found_within_thirty_readings(kind):
    """Of readings that always moved and then repeat their last value, nine in ten alarm within 30 readings, most of
    them as stuck; those that move on do not.
    """
    rng = np.random.default_rng(0)
    values = np.stack([MOVING[kind](rng, FROM + WITHIN + 2, SENSORS) for _ in range(3)], axis=2)
    values[FROM:, : SENSORS // 2, 1] = values[FROM - 1, : SENSORS // 2, 1]
    played = together(values, SECTIONS)
    calm = (played.alarm[FROM - 16 : FROM] < 1).all(axis=0)  # the others alarm already
    stands = np.arange(SENSORS) < SENSORS // 2
    assert calm[stands].sum() >= 6
    assert (played.alarm[FROM : FROM + WITHIN] >= 1).any(axis=0)[stands & calm].mean() >= 0.9
    stuck = (played.kinds == STUCK).any(axis=0)
    assert stuck[stands & calm].mean() >= 0.7
    assert not stuck[~stands].any()
    assert not (played.kinds[:FROM] == STUCK).any()


def resting_counter(rng, events, sensors):
    """Rises by one at each event of a shift, and stays where it is between shifts of different lengths."""
    counts = np.zeros((events, sensors))
    for sensor in range(sensors):
        steps, works = [], True
        while len(steps) < events:
            steps += [float(works)] * int(rng.integers(30, 120))
            works = not works
        counts[:, sensor] = np.cumsum(steps[:events])
    return counts


def still_valve(rng, events, sensors):
    """Closed most of the time, and opened now and then."""
    opened = rng.random((events, sensors)) < 0.02
    return np.where(opened, rng.uniform(10, 90, (events, sensors)), 0.0)


def quantised(rng, events, sensors):
    """Goes up and down slowly through few levels."""
    angle = np.arange(events)[:, None] / 100 + rng.uniform(0, 6, sensors)
    return np.round(2 * np.sin(angle) + 0.05 * rng.normal(size=(events, sensors))) / 2


RESTING = {"counter": resting_counter, "valve": still_valve, "quantised": quantised}


@pytest.mark.parametrize("kind", RESTING)
def test_what_rests_by_nature_is_not_stuck(kind):
    """A counter between shifts, a valve that is still and quantised levels are not called stuck."""
    rng = np.random.default_rng(1)
    values = np.stack([RESTING[kind](rng, 4000, SENSORS), *rng.normal(size=(2, 4000, SENSORS))], axis=2)
    assert not (together(values, SECTIONS).kinds == STUCK).any()
