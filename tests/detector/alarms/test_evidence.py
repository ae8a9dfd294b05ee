"""Evidence: excursions that wait for labels, what they count for, and the state that they take."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ad.detector.alarms.channels import channels_of
from stream_ad.detector.alarms.excursions import PENDING, SPIKE, STUCK, SUSTAINED
from stream_ad.detector.alarms.levels import CAP, CHANNEL_STEPS, FIXED, MOST, ROW_LOW, ROW_WIDTH
from stream_ad.detector.config import DetectorOptions
from stream_ad.detector.detector import Detector
from tests.support.channels import BATCH, Fed, usual

FEW = settings(deadline=None, max_examples=20)
SETTLED = 2048  # events after which levels rest on the sensor's own excursions
S_SPIKE, S_SUSTAINED = 0, 3  # statistics of the log score
APART = 18  # events between the beginnings of excursions: sixteen usual ones end each


def settled(seed=0, events=SETTLED, **given):
    """Evidence of a sensor that has seen nothing but usual events."""
    fed = Fed(**given)
    fed.feed(usual(np.random.default_rng(seed), events))
    return fed


def burst(events, height, *, quiet=BATCH):
    """(3, T, 1) channels of a run of high log scores, followed by the lowest there are."""
    channels = np.full((3, events + quiet, 1), -3.0)
    channels[0, :events] = height
    return channels


# ---------------------------------------------------------------- what alarms


def test_a_lone_event_is_a_spike():
    """One event far beyond all others alarms, and is called a spike."""
    alarms, kinds = settled().feed(burst(1, 12.0))
    assert alarms[0, 0, 0] >= 1
    assert kinds[0, 0] == SPIKE


def test_a_run_of_slightly_unusual_events_is_sustained():
    """A run of events of which none would alarm alarms before it is over, and is called sustained."""
    alarms, kinds = settled().feed(burst(BATCH, 3.5))
    assert alarms[0, 0, 0] < 1
    assert alarms[BATCH - 1, 0, 0] >= 1
    assert kinds[BATCH - 1, 0] == SUSTAINED


def test_an_incident_ends_after_sixteen_usual_events():
    """The alarm lasts while the excursion does: until evidence is gone, at the latest for 16 usual events in a row."""
    fed = settled()
    alarms, kinds = fed.feed(burst(BATCH, 12.0, quiet=2 * BATCH))
    alarming = np.flatnonzero(alarms[:, 0, 0] >= 1)
    assert alarming.tolist() == list(range(BATCH + 15))
    assert ((kinds[:, 0] > 0) == (alarms[:, 0, 0] >= 1)).all()


def test_no_evidence_goes_beyond_its_bounds():
    """One event shows at most 60 nats, and what lasts holds at most 1,000, however high and long."""
    fed = settled()
    fed.feed(burst(2 * BATCH, 1e6, quiet=0), learn=False)
    assert fed.evidence.top[0, S_SPIKE] <= CAP
    assert (fed.evidence.evidence[0] <= MOST).all()
    assert fed.evidence.evidence[0, S_SUSTAINED] == MOST


def test_a_smaller_budget_alarms_less():
    """Beside each other, each smaller budget has higher levels, and alarms at a part of the events."""
    fed = settled(rates=(1e-2, 1e-3, 1e-4, 1e-6))
    assert (np.diff(fed.evidence.levels[0], axis=0) >= 0).all()
    alarms, _ = fed.feed(usual(np.random.default_rng(5), 4096) * 1.5)
    ratio = alarms[:, 0]
    assert (np.diff(ratio, axis=1) <= 1e-12).all()
    assert (ratio[:, 0] >= 1).sum() > (ratio[:, 2] >= 1).sum()


def test_a_stuck_reading_alarms_as_such():
    """Repeats beyond their limit alarm as stuck at every budget, for as long as they last."""
    fed = settled(rates=(1e-3, 1e-9))
    stuck = np.zeros((2 * BATCH, 1))
    stuck[10:20] = 1.5
    alarms, kinds = fed.feed(np.full((3, 2 * BATCH, 1), -3.0), stuck=stuck)
    assert (np.flatnonzero((alarms[:, 0] >= 1).all(axis=1)) == np.arange(10, 20)).all()
    assert (kinds[10:20] == STUCK).all()
    assert (kinds[20:] == 0).all()


# ---------------------------------------------------------------- what excursions count for


def counted(fed, statistic=S_SPIKE):
    """Normal excursions of a statistic that were counted, decay aside, and those that wait."""
    waiting = int((fed.evidence.pending_top[0, statistic] >= 0).sum())
    return float(fed.evidence.tops[0, statistic].sum()), waiting


def high(fed, nats=24):
    """Decayed number of excursions counted with a maximum of so many nats, or more."""
    place = 16 + int(np.log(nats / 16) * 16 / np.log(25))
    return float(fed.evidence.tops[0, S_SUSTAINED, place:].sum())


@pytest.mark.parametrize(("label", "expected"), [(1, 0), (0, 1), (None, 1)])
def test_a_fault_keeps_its_excursion_out_of_the_histogram(label, expected):
    """An excursion around an event labelled a fault never counts as normal; labelled normal, or not at all, it does."""
    fed = settled()
    at = int(fed.pending.count[0])
    fed.feed(burst(BATCH, 8.0, quiet=BATCH))
    if label is not None:
        fed.label([at + 7], label)
    fed.feed(usual(np.random.default_rng(3), 512))
    assert high(fed) == pytest.approx(expected, abs=0.35)  # less what the histogram has forgotten since
    assert (high(fed) > 0) == bool(expected)


def test_a_fault_that_still_lasts_is_kept_out_too():
    """A label that comes while the excursion lasts keeps all of it out, also what follows the label."""
    fed = settled()
    at = int(fed.pending.count[0])
    fed.feed(burst(BATCH, 8.0, quiet=0))
    fed.label([at + 3], 1)
    fed.feed(burst(BATCH, 8.0))
    fed.feed(usual(np.random.default_rng(3), 512))
    assert high(fed) == 0


def test_an_excursion_waits_for_its_label():
    """An excursion counts when its label could have come, and the levels are set anew, and not before."""
    fed = settled(horizon=128)
    before = high(fed)
    fed.feed(burst(BATCH, 8.0))
    assert high(fed) == before == 0
    quiet = np.full((3, BATCH, 1), -3.0)
    waited = 0
    while high(fed) == 0 and waited < 1024:
        fed.feed(quiet)
        waited += BATCH
    assert 128 - BATCH <= waited <= 320


def pulses(heights):
    """(3, T, 1) channels with an excursion of one event for each height."""
    channels = np.full((3, len(heights) * APART, 1), -3.0)
    channels[0, ::APART, 0] = heights
    return channels


@FEW
@given(st.lists(st.floats(3.5, 9), min_size=PENDING + 2, max_size=60, unique=True), st.data())
def test_at_most_sixteen_excursions_wait_and_none_is_lost(heights, data):
    """Beyond sixteen that wait, the smallest is decided at once: as normal unless it is a fault, and none is lost."""
    fed = settled(events=512)
    fed.evidence.pending_top[:], fed.evidence.tops[:] = -1, 0
    first = int(fed.pending.count[0])
    faults = data.draw(st.sets(st.integers(0, PENDING - 2)))
    early = pulses(heights[: PENDING - 1])
    fed.feed(early, learn=False)
    fed.label([first + APART * fault for fault in faults], 1)
    assert counted(fed) == (0, PENDING - 1)
    fed.feed(pulses(heights[PENDING - 1 :]), learn=False)
    evidence = fed.evidence
    number, waiting = counted(fed)
    assert waiting == PENDING
    kept = int(evidence.pending_fault[0, S_SPIKE].sum())
    assert number == len(heights) - PENDING - (len(faults) - kept)
    tops = np.sort(evidence.pending_top[0, S_SPIKE])
    surprises = evidence.table[0, 0].astype(np.float64) / FIXED
    highest = np.interp((np.sort(heights)[-PENDING:] - ROW_LOW) / ROW_WIDTH, np.arange(len(surprises)), surprises)
    np.testing.assert_allclose(tops, highest, rtol=1e-5)


# ---------------------------------------------------------------- state


ALARM_TABLES = ("evidence.", "repeats.", "acceptance.", "rules.")
ALARM_COLUMNS = {
    "pending.": ("last_anomaly",),
    "threshold.": ("alarm_level", "alarm_expected"),
    "scoring.": ("fourth", "extreme"),
    "coupling.": ("fourth", "extreme"),
}


def bytes_of_the_alarm(features, *, sensors=1):
    """Bytes of a sensor's state that only the alarm needs, with default settings."""
    detector = Detector(features, DetectorOptions(), "cpu")
    detector.append(np.arange(sensors, dtype=np.uint64))
    parts = detector.parts()
    total = sum(parts[name].nbytes for name in ALARM_TABLES)
    total += sum(
        getattr(parts[name], column)[:sensors].nbytes for name, columns in ALARM_COLUMNS.items() for column in columns
    )
    return total / sensors


def test_the_state_of_the_alarm_is_a_formula_in_the_features():
    """It has a fixed part and a part for each feature, the same for every sensor."""
    sizes = [bytes_of_the_alarm(features) for features in (1, 2, 8, 64)]
    each = sizes[1] - sizes[0]
    assert sizes == [sizes[0] - each + each * features for features in (1, 2, 8, 64)]
    assert bytes_of_the_alarm(8, sensors=100) == sizes[2]


def test_the_state_of_the_alarm_is_small():
    """At eight features it takes at most 8 KB a sensor."""
    assert bytes_of_the_alarm(8) <= 8192


# ---------------------------------------------------------------- the same on every processor


@FEW
@given(st.integers(0, 1000), st.sampled_from([1e-6, 3e-6]))
def test_devices_that_round_differently_decide_alike(seed, noise):
    """Scores that differ by the noise of float32, as those of a CPU and a GPU do, give the same alarms but for events
    within a thousandth of a level.
    """
    rng = np.random.default_rng(seed)
    events, sensors = 2048, 4
    log_score = rng.normal(size=events * sensors)
    residuals, errors = np.exp(rng.normal(size=(2, events * sensors, 3))).astype(np.float32)
    ratios = []
    for device in (0.0, noise):
        off = [1 + device * rng.uniform(-1, 1, part.shape) for part in (log_score, residuals, errors)]
        channels = channels_of(
            log_score * off[0], (residuals * off[1]).astype(np.float32), (errors * off[2]).astype(np.float32)
        )
        ratios.append(Fed(sensors).feed(channels.reshape(3, events, sensors))[0])
    ours, theirs = ratios
    differ = (ours >= 1) != (theirs >= 1)
    assert (np.abs(ours[differ] - 1) < 1e-3).all() or not differ.any()
    assert differ.mean() < 1e-3


def test_channels_are_rounded_to_a_thousandth_of_a_nat():
    """Each channel is a multiple of 1/1024, off by no more than half of that: the largest of a channel's readings."""
    rng = np.random.default_rng(2)
    log_score = rng.normal(size=500)
    residuals, errors = np.exp(rng.normal(size=(2, 500, 3))).astype(np.float32) * rng.choice([-1, 1], (2, 500, 3))
    channels = channels_of(log_score, residuals.astype(np.float32), errors.astype(np.float32))
    np.testing.assert_array_equal(channels * CHANNEL_STEPS, np.rint(channels * CHANNEL_STEPS))
    expected = [3 * np.log(np.abs(part).max(axis=1) + 1e-5) + 6 for part in (residuals, errors)]
    np.testing.assert_allclose(channels, [log_score, *expected], rtol=0, atol=0.5 / CHANNEL_STEPS + 1e-6)
