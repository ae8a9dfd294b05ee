"""A new normal: a lasting change that nobody labels is one incident, and is accepted."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from stream_ad.detector.alarms.excursions import ACCEPTED
from stream_ad.detector.feedback.event_buffer import FROM_EVENT
from tests.support.channels import MINUTE, openings, together

HORIZON, AFTER, SENSORS = 256, 2048, 4
OLD, YOUNG = 24_576, 2048  # events before the change
HORIZONS = 4  # after so many label horizons a change is accepted


def sections(accept_after=3600.0):
    return {
        "alarms": {"false_incidents": 1, "per": "10000 events", "accept_after": accept_after},
        "learning": {"label_horizon_events": HORIZON},
    }


@cache
def changing(change):
    """Readings with memory that move by eight standard deviations for good."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(change + AFTER, SENSORS, 3))
    for event in range(1, len(values)):
        values[event] = 0.8 * values[event - 1] + 0.6 * values[event]
    values[change:] += np.array([8.0, 8.0, 0.0])
    return values


@cache
def left_alone(change):
    return together(changing(change), sections())


@pytest.mark.parametrize("change", [YOUNG, OLD])
def test_a_change_that_nobody_labels_is_one_incident(change):
    """It rings at once in every sensor, once, and is silent by itself in the end."""
    alarm = left_alone(change).alarm
    assert (alarm[change - 512 : change] < 1).all()
    opened = openings(alarm[change:], quiet_events=512)
    assert opened[:, 1].tolist() == list(range(SENSORS))
    assert (opened[:, 0] < 16).all()
    assert (alarm[-256:] < 1).all()


@pytest.mark.parametrize("change", [YOUNG, OLD])
def test_a_changed_normal_is_usual_in_the_end(change):
    """What came to stay scores as what was before, without any label."""
    score = left_alone(change).score
    assert np.median(score[-256:]) < np.quantile(score[change - 512 : change], 0.75)


def test_a_change_that_outlives_four_label_horizons_is_accepted():
    """A change that is still far from usual ends as accepted after four label horizons, in every sensor once."""
    ended = np.argwhere(left_alone(OLD).endings == ACCEPTED)
    assert sorted(ended[:, 1].tolist()) == list(range(SENSORS))
    waited = ended[:, 0] - OLD
    assert (waited >= HORIZONS * HORIZON).all()
    assert (waited < HORIZONS * HORIZON + 128).all()


def test_a_change_that_is_labelled_a_fault_is_not_accepted():
    """Where a label in it says fault, the change is not taken for a new normal; the other sensors' changes are."""

    def label(detector, first):
        if first == OLD + 512:
            for row in range(SENSORS // 2):
                for event_number in range(first - 100, first - 80):
                    detector.pending.set_label(row, event_number, 1, FROM_EVENT)

    played = together(changing(OLD), sections(), before=label)
    ended = set(np.argwhere(played.endings == ACCEPTED)[:, 1].tolist())
    assert ended == set(range(SENSORS // 2, SENSORS))


@pytest.mark.parametrize(("interval_ns", "accepted"), [(MINUTE, False), (10 * MINUTE, True)])
def test_a_change_is_not_accepted_before_its_time(interval_ns, accepted):
    """However many events came, a change younger than alarms.accept_after of event time is not accepted."""
    two_days = 2 * 86_400.0  # 2,880 events of a minute, 288 of ten minutes
    ended = np.argwhere(together(changing(OLD), sections(two_days), interval_ns=interval_ns).endings == ACCEPTED)
    assert len(ended) == SENSORS * accepted
