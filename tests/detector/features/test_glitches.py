"""Glitches at the start, and readings that wander off, must leave no trace."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream_ad.detector.config import DetectorOptions
from stream_ad.detector.detector import Detector
from stream_ad.detector.features.glitches import move_origin
from stream_ad.shard.shard import Shard
from tests.support.streams import Story, noise, options, scores

WARMUP, AFTER = 256, 500
SENTINELS = (-9999.0, 65535.0, 1e9, float(np.finfo(np.float64).max))
SIZES = st.floats(2, 308, allow_subnormal=False).map(lambda digits: 10.0**digits)
GLITCHES = st.one_of(st.sampled_from(SENTINELS), SIZES, SIZES.map(lambda size: -size))
CLOSE = 0.05


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def stream(kind, events, seed=0):
    """(T, F) readings, the first feature of standard deviation .5."""
    rng = np.random.default_rng(seed)
    if kind == "single":
        return 20 + 0.5 * rng.normal(size=(events, 1))
    values = rng.normal(size=(events, 2 if kind in {"table", "far"} else 3))
    if kind == "series":
        for event in range(1, events):
            values[event] = 0.95 * values[event - 1] + np.sqrt(1 - 0.95**2) * values[event]
    elif kind == "coupled":
        values[:, 1] = 3 * values[:, 0] + 0.3 * values[:, 1]
    values[:, 0] = 0.5 * values[:, 0] + (1.7e9 if kind == "far" else 20)
    return values


def beginner(features, sensors=1, chosen=None):
    """A detector of sensors that have shown nothing yet, and whose models begin alike."""
    detector = Detector(features, chosen or DetectorOptions(), "cpu")
    detector.append(np.full(sensors, 7, np.uint64))
    return detector


def play(detector, values, *, start=0, every=1):
    """Hand readings (T, S, F) to a detector, ``every`` seconds between the events of a sensor from ``start`` on."""
    rows = np.arange(values.shape[1])
    for event in range(len(values)):
        number = detector.arrived + rows
        times = np.full(len(rows), (start + event * every) * 10**9)
        detector.arrive(rows, values[event], times=times, ids=number.astype(np.uint64), order=number)
        due = detector.due()
        if len(due):
            detector.learn(due, np.ones(1))
    return detector


def play_alone(detector, values):
    """Hand readings (T, F) to the one sensor of a detector, a learn batch at a time."""
    for start in range(0, len(values), detector.batch):
        part = values[start : start + detector.batch]
        number = detector.arrived + np.arange(len(part))
        rows = np.zeros_like(number)
        detector.arrive(rows, part, times=number * 10**9, ids=number.astype(np.uint64), order=number)
        detector.learn(detector.due(), np.ones(1))
    return detector


def with_glitches(values, glitches):
    """(T, S, F): the readings without a glitch, then with each list of glitches, (event number, size), in feature 0."""
    out = np.repeat(values[:, None], len(glitches) + 1, axis=1)
    for sensor, own in enumerate(glitches, start=1):
        for event_number, size in own:
            out[event_number, sensor, 0] = size
    return out


def scores_far_off(detector, values):
    """(S, 2) scores of a first reading 25 standard deviations above and below its median."""
    probe = np.repeat(values[-1:], 2, axis=0)
    probe[:, 0] = np.median(values[:, 0]) + np.array([12.5, -12.5])
    return np.array([[detector.peek(row, values) for values in probe] for row in range(detector.size)])


def usual_scores(detector, values):
    """(S, 8) scores of the last readings of a stream, if they came next."""
    return np.array([[detector.peek(row, reading) for reading in values[-8:]] for row in range(detector.size)])


def assert_all_close(probed):
    """Of sensors that had glitches the scores are those of the first one, which had none."""
    np.testing.assert_allclose(probed[1:], np.broadcast_to(probed[0], probed[1:].shape), rtol=0, atol=CLOSE)


# ---------------------------------------------------------------- glitches


@settings(deadline=None, max_examples=12)
@given(st.sampled_from(["table", "far"]), st.integers(0, 1000), st.lists(GLITCHES, min_size=3, max_size=3))
@example("table", 0, [1e6, 1e2, -1e308])
@example("far", 1, [0.0, -1e9, 1e308])
def test_a_glitch_anywhere_in_the_warm_up_leaves_no_trace(kind, seed, sizes):
    """Five hundred events after the warm-up a deviation of 25 sd outranks all usual readings, its score within .05 of
    what it was without a glitch.
    """
    values = stream(kind, WARMUP + AFTER, seed)
    sizes = [*sizes, *SENTINELS]
    glitches = [[(event_number, sizes[event_number % len(sizes)])] for event_number in range(WARMUP)]
    detector = play(beginner(2, WARMUP + 1), with_glitches(values, glitches))
    probed = scores_far_off(detector, values)
    assert probed.min() > usual_scores(detector, values).max()
    assert_all_close(probed)


@settings(deadline=None, max_examples=12)
@given(
    st.sampled_from(["table", "far", "single", "coupled", "series"]),
    st.integers(0, 1000),
    st.lists(
        st.lists(st.tuples(st.integers(0, WARMUP - 1), GLITCHES), min_size=1, max_size=3, unique_by=lambda own: own[0]),
        min_size=40,
        max_size=40,
    ),
)
@example("table", 0, [[(0, 1e9), (1, 1e9), (2, 1e9)], [(29, -9999.0), (30, -9999.0), (31, -9999.0)]])
@example("series", 0, [[(event_number, 1e9)] for event_number in range(WARMUP)])
def test_up_to_three_glitches_leave_no_trace(kind, seed, glitches):
    """On every kind of stream the scores are within .05 of those without a glitch."""
    values = stream(kind, WARMUP + AFTER, seed)
    detector = play(beginner(values.shape[1], len(glitches) + 1), with_glitches(values, glitches))
    assert_all_close(scores_far_off(detector, values))


@settings(deadline=None, max_examples=6)
@given(st.integers(0, 1000), st.integers(0, WARMUP - 1), GLITCHES)
@example(0, 0, 1e9)
@example(0, 5, 1e6)
def test_a_glitch_leaves_no_trace_in_a_shared_model(seed, event_number, size):
    """A model of all sensors learns when some of them have shown a reading or two; no trace of a glitch either."""
    chosen = DetectorOptions.model_validate({"detector": {"models": "shared"}})
    values = np.stack([stream("table", WARMUP + AFTER, seed + sensor) for sensor in range(4)], axis=1)
    probed = []
    for glitch in (values[event_number, 0, 0], size):
        values[event_number, 0, 0] = glitch
        detector = play(beginner(2, 4, chosen), values)
        probed.append(scores_far_off(detector, values[:, 0])[0])
    assert_all_close(np.array(probed))


@pytest.mark.parametrize("size", [1e6, -9999.0, 1e308])
@pytest.mark.parametrize("event_number", [0, 7, 40])
def test_a_glitch_after_an_outage_leaves_no_trace(size, event_number):
    """What follows an outage is learned at once as at the start, but no glitch is."""
    before, after = stream("table", 600), stream("table", WARMUP + AFTER, 1)
    detector = play(beginner(2, 2), with_glitches(before, [[]]))
    play(detector, with_glitches(after, [[(event_number, size)]]), start=10**7)
    probed = scores_far_off(detector, after)
    assert probed.min() > usual_scores(detector, after).max()
    assert_all_close(probed)


@pytest.mark.parametrize("size", [1e9, -9999.0, 1e308])
def test_a_glitch_of_a_new_feature_leaves_no_trace(size):
    """A feature that a sensor shows later begins with a sentinel, and is soon watched like any other."""
    probed, usual = [], []
    for first in (20.0, size):
        story, shard = Story(), Shard(options())
        noise(story, 300, features=2)
        rng = np.random.default_rng(1)
        for number in range(400):
            reading = first if number == 0 else 20 + 0.5 * rng.normal()
            story.event("a", {"f0": 10 + rng.normal(), "f1": 10 + rng.normal(), "new": reading})
        story.play(shard)
        detector = shard.sensors.detectors[int(shard.sensors.group[0])]
        probed.append([detector.peek(0, np.array([10.0, 10.0, 20 + far])) for far in (12.5, -12.5)])
        usual += [detector.peek(0, np.array([10.0, 10.0, 20 + near])) for near in (0.5, -0.5)]
    assert np.min(probed) > np.max(usual)
    assert_all_close(np.array(probed))


def test_a_rare_state_is_no_glitch():
    """A reading that is elsewhere in a twelfth of the events is soon part of what is usual, and no anomaly then."""
    values = stream("table", WARMUP + 64)
    values[::12, 0] = 100
    detector = play(beginner(2), values[:, None])
    assert detector.peek(0, np.array([100.0, 0.0])) < 0.5


def test_constant_readings_stay_constant():
    """Their float32 is not what they are; a glitch among them or none, nothing of it is taken for a change."""
    values = stream("table", WARMUP + AFTER)
    values[:, 0] = 20.1
    detector = play(beginner(2, 3), with_glitches(values, [[(0, 1e6)], [(40, -9999.0)]]))
    calm = [detector.peek(row, np.array([20.1, 0.0])) for row in range(3)]
    assert max(calm) < 0.1
    assert (detector.temporal.gate[:3, 0] == 0).all()


@settings(deadline=None, max_examples=5)
@given(st.integers(1, 200), st.lists(st.tuples(st.integers(0, 150), GLITCHES), min_size=1, max_size=4))
def test_glitches_and_cuts(cut, glitches):
    """However a stream with glitches is cut into steps, the scores and the state at the end are the same."""
    outcomes = []
    for size in (None, cut):
        story, shard = Story(), Shard(options())
        noise(story, 200, sensors=("a", "b"), features=2)
        for event_number, glitch in glitches:
            story.events[event_number][2]["f0"] = glitch
        probed = scores(story.play(shard, cut=size))
        outcomes.append((probed, shard.sensors.detectors[0].state("")))
    np.testing.assert_array_equal(outcomes[0][0], outcomes[1][0])
    for name, array in outcomes[0][1].items():
        np.testing.assert_array_equal(array, outcomes[1][1][name], err_msg=name)


# ---------------------------------------------------------------- origins


def kept_error(detector, values):
    """How far what is kept of the last readings of the first feature is from what they were."""
    latest = detector.pending.latest(np.zeros(1, np.int64), detector.batch)[0]
    kept = detector.pending.readings[0, latest % detector.pending.kept_readings, 0].astype(np.float64)
    return np.abs(kept + detector.temporal.shift[0, 0] - values[-detector.batch :, 0]).max()


def test_a_reading_that_wanders_off_keeps_its_digits():
    """2**28 standard deviations from where it began, what is kept of a reading is right to a hundredth of one."""
    ramp = np.minimum(np.arange(44_800), 2**14) * 2.0**14
    values = np.column_stack([ramp + np.random.default_rng(0).normal(size=len(ramp)), np.zeros(len(ramp))])
    assert kept_error(play_alone(beginner(2), values), values) < 0.01


def test_a_counter_keeps_its_digits():
    """An energy meter at 1.7e9 that rises by about one at each reading is kept to a thousandth."""
    steps = np.random.default_rng(0).uniform(0.5, 1.5, 64_000)
    values = np.column_stack([1.7e9 + np.cumsum(steps), np.zeros(len(steps))])
    assert kept_error(play_alone(beginner(2), values), values) < 0.01


@pytest.mark.parametrize("models", ["per-sensor", "shared"])
@pytest.mark.parametrize("by", [3.0, -1e5])
def test_a_move_of_the_origin_changes_nothing_that_is_known(models, by):
    """Scores, and what is learned afterwards of kept and replayed events, are as without it, to rounding."""
    chosen = DetectorOptions.model_validate({"detector": {"models": models}, "learning": {"label_horizon_events": 64}})
    values, probes = stream("series", 800), ([20.0, 0, 0], [21.5, 0.5, -1], [32.5, 0, 0], [7.5, 1, 0])
    probed = []
    for move in (0.0, by):
        detector = play(beginner(3, 1, chosen), values[:500, None])
        if move:
            move_origin(detector, 0, 0, move)
        probed.append([detector.peek(0, np.array(probe)) for probe in probes])
        play(detector, values[500:, None], start=500)
        probed[-1] += [detector.peek(0, np.array(probe)) for probe in probes]
    np.testing.assert_allclose(probed[1], probed[0], atol=0.02)
