"""Tables, whose rows say nothing of one another: each row is decided alone, by the levels of labelled normals."""

from __future__ import annotations

import numpy as np
import pytest

from stream_ad.detector.alarms.excursions import SPIKE, STUCK
from stream_ad.detector.feedback.event_buffer import FROM_EVENT
from stream_ad.detector.feedback.label_head import MOST_GATE
from tests.support.channels import together

SENSORS, EVENTS = 8, 1600
RATES = 1e-3, 1e-4


def sections(rate=1e-2):
    return {"alarms": {"false_incidents": 1, "per": f"{round(1 / rate)} events"}, "learning": {"warmup_events": 64}}


def table(seed=0, events=EVENTS):
    return np.random.default_rng(seed).normal(size=(events, SENSORS, 4))


def labelling(label_of, delay=64):
    """Label each event of each sensor so many events later; ``label_of`` gives (T, S) classes, -1 for none."""

    def label(detector, first):
        for row in range(SENSORS):
            for event_number in range(max(0, first - delay - 32), max(0, first - delay)):
                if label_of[event_number, row] >= 0:
                    detector.pending.set_label(row, event_number, int(label_of[event_number, row]), FROM_EVENT)

    return label


def test_each_row_is_its_own_excursion():
    """One row that is off rings, the usual row after it does not, and the next one that is off rings again."""
    values = table()
    off = [EVENTS - 9, EVENTS - 7, EVENTS - 1]
    values[off] += 7
    played = together(values, sections())
    assert (played.detector.temporal.autocorrelation_gate(np.arange(SENSORS)) < MOST_GATE).all()
    assert (played.alarm[off] >= 1).all()
    assert (played.kinds[off] == SPIKE).all()
    between = [EVENTS - 8, *range(EVENTS - 6, EVENTS - 1)]
    assert (played.alarm[between] < 1).mean() > 0.95


def test_an_alarm_is_decided_by_the_log_score_alone():
    """The alarm is 1 or above exactly where the log score reaches the sensor's level, but for stuck readings."""
    values = table()
    values[::50] += 3
    levels = []
    played = together(
        values, sections(), rates=RATES, before=lambda d, _: levels.append(d.threshold.alarm_level[:SENSORS].copy())
    )
    level = np.repeat(levels, played.detector.batch, axis=0)[:EVENTS]  # (T, S, K)
    log_score = np.log(played.score / (1 - played.score)) + 3
    live, near = np.arange(EVENTS) >= 64, np.abs(log_score[:, :, None] - level) < 2e-3
    decided = ((played.alarms >= 1) == (log_score[:, :, None] >= level)) | near | (played.kinds == STUCK)[:, :, None]
    assert decided[live].all()


def test_unlabelled_rows_do_not_count_once_a_hundred_are_labelled_normal():
    """From the hundredth labelled normal on, faults without a label no longer raise the levels."""
    values = table()
    faults = np.arange(EVENTS) % 10 == 9
    values[faults] += 4
    normal = np.where(faults, -1, 0)[:, None].repeat(SENSORS, axis=1)
    shares = {}
    for name, label_of in {"labelled": normal, "unlabelled": np.full_like(normal, -1)}.items():
        played = together(values, sections(), before=labelling(label_of))
        shares[name] = (played.alarm[-320:][faults[-320:]] >= 1).mean()
    assert shares["labelled"] > 0.9
    assert shares["labelled"] > shares["unlabelled"]


@pytest.mark.parametrize("rate", [1e-2, 1e-3])
def test_labelled_normals_ring_at_their_budget(rate):
    """With every row labelled normal, a share of the rows rings that is at most three times the budget."""
    values = table(seed=3, events=4000)
    played = together(values, sections(rate), before=labelling(np.zeros((4000, SENSORS), np.int64)))
    late = played.alarm[2000:] >= 1
    assert late.mean() <= 3 * rate
    assert late.mean() >= rate / 10


def test_repeated_rows_are_stuck_in_tables_too():
    """A reading of a table that repeats where it never did is called stuck."""
    values = table()
    values[-40:, :, 0] = 0.5
    played = together(values, sections())
    assert (played.kinds[-20:] == STUCK).any(axis=0).mean() >= 0.9
