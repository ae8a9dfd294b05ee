"""The detector as a river estimator."""

from __future__ import annotations

import doctest
import pickle

import numpy as np
import pytest
import torch
from river import checks, compose, preprocessing

import stream_ad.estimator
from stream_ad.detector.feedback.event_buffer import SCORE_STEPS
from stream_ad.detector.scoring.threshold import published
from stream_ad.estimator import StreamADDetector


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    torch.set_num_threads(1)


def small(**more):
    return StreamADDetector(**{"warmup_events": 64, "label_horizon_events": 64, **more})


def fed(rows=200, *, seed=0, model=None, label=None):
    """A detector that has learned some rows of two coupled readings, and the rows."""
    rng = np.random.default_rng(seed)
    load = rng.random(rows)
    stream = [{"load": a, "heat": b} for a, b in zip(load, 2 * load + rng.normal(0, 0.05, rows), strict=True)]
    model = model or small()
    for row, x in enumerate(stream):
        model.learn_one(x, label(row) if label else None)
    return model, stream


class Stream:
    """Rows like those of river's own data set for these checks, which it would fetch from the network."""

    def __init__(self, rows):
        rng = np.random.default_rng(5)
        self.anomalous = rng.random(rows) < 0.01
        self.values = rng.normal(size=(rows, 8)) @ rng.normal(size=(8, 8)) + 4 * self.anomalous[:, None]

    def __iter__(self):
        for values, anomalous in zip(self.values.tolist(), self.anomalous.tolist(), strict=True):
            yield {f"V{number}": value for number, value in enumerate(values)}, int(anomalous)


def river_checks():
    original = checks._yield_datasets
    checks._yield_datasets = lambda _model, scale=1: [Stream(300 * scale)]
    try:
        return list(checks.yield_checks(small()))
    finally:
        checks._yield_datasets = original


@pytest.mark.parametrize("check", river_checks(), ids=lambda check: check.__name__)
def test_river_accepts_it(check):
    """It passes every check that river has for an anomaly detector."""
    check(small())


def test_river_checks_are_all_there():
    """The checks are those on datasets too, not only the formal ones."""
    names = {check.__name__ for check in river_checks()}
    assert {"check_roc_auc", "check_bounded_memory_growth", "check_emerging_features", "check_pickling"} <= names


def test_the_example_holds():
    """The example in its docstring is true."""
    assert doctest.testmod(stream_ad.estimator).failed == 0


def test_scoring_leaves_no_trace():
    """However often events are scored, what is learned and scored later is the same."""
    plain, stream = fed()
    asked = small()
    for x in stream:
        asked.score_one({"load": 1e6, "other": 3.0})
        asked.score_one(x)
        asked.learn_one(x)
    assert pickle.dumps(plain) == pickle.dumps(asked)


def test_scores_are_those_of_the_worker():
    """Scored and then learned, each event has the score that the shard gives it on arrival."""
    model, stream = small(), fed()[1]
    scores = []
    for x in stream:
        scores.append(model.score_one(x))
        model.learn_one(x)
    model.score_one({})
    pending = model._shard.sensors.detectors[0].pending
    arrived = pending.scores(np.array([0]), np.arange(193, 200)[None])[0]
    expected = published(arrived)  # since the last learn point
    np.testing.assert_allclose(scores[193:], expected, rtol=0.5 / SCORE_STEPS)  # what is kept is rounded to a step


def test_alarms_are_those_of_the_worker():
    """After each event that is learned, ``alarm`` and ``is_anomaly`` are what the worker publishes for it."""
    model, stream = small(), [*fed(300)[1], {"load": 0.5, "heat": 40.0}]
    seen = []
    for x in stream:
        model.learn_one(x)
        seen.append((model.alarm, model.is_anomaly))
    whole = small()
    for x in stream:
        whole.learn_one(x)
    steps = []
    step = whole._shard.step
    whole._shard.step = lambda *inputs: steps.append(step(*inputs)) or steps[-1]
    whole._flush()
    scores = steps[-1].scores
    alarming = (scores.alarm >= 1) & scores.live
    assert seen[-len(alarming) :] == list(zip(scores.alarm.tolist(), alarming.tolist(), strict=True))
    assert seen[-1][1]
    assert not any(anomaly for _, anomaly in seen[:64])


def test_a_span_of_time_is_no_budget():
    """A budget for a time is refused with what to write instead, since events have no times here."""
    with pytest.raises(ValueError, match='"10000 events"'):
        StreamADDetector(per="week")


def test_pickling_keeps_everything():
    """A copy goes on exactly where the original stood."""
    model, stream = fed()
    model.learn_one({"load": 0.5, "heat": 40.0})
    copy = pickle.loads(pickle.dumps(model))
    assert (copy.alarm, copy.is_anomaly) == (model.alarm, model.is_anomaly)
    for x in stream[:80]:
        assert model.score_one(x) == copy.score_one(x)
        model.learn_one(x, y=False)
        copy.learn_one(x, y=False)
    assert pickle.dumps(model) == pickle.dumps(copy)


def test_labels_are_taken():
    """True and names of classes are anomalies, False and "normal" are not, None is no label."""
    model, _ = fed(320, label=lambda row: [True, "leak", False, "normal", None][row % 5])
    assert model.score_one({}) >= 0  # takes in what waits
    label_store = model._shard.label_store
    assert set(label_store.classes) == {"normal", "anomaly", "leak"}
    pending = model._shard.sensors.detectors[0].pending
    newest = [int(pending.label[0, row % pending.capacity]) for row in range(315, 320)]
    classes = [label_store.classes[name] for name in ("anomaly", "leak", "normal", "normal")]
    assert newest == [*classes, -1]


def test_missing_is_missing():
    """A feature that is absent, None or NaN is the same: missing."""
    scores = set()
    for absent in ({}, {"heat": None}, {"heat": float("nan")}):
        model, _ = fed()
        scores.add(model.score_one({"load": 0.5, **absent}))
    assert len(scores) == 1


@pytest.mark.parametrize("value", ["warm", float("inf"), [1]])
def test_what_is_no_number_is_refused(value):
    """A reading that is no finite number is refused with its feature, and nothing is taken in."""
    model, _ = fed(70)
    before = pickle.dumps(model)
    for method in (model.score_one, model.learn_one):
        with pytest.raises(ValueError, match="feature heat"):
            method({"heat": value})
    assert pickle.dumps(model) == before


def test_in_a_pipeline():
    """It works behind river's transformers."""
    pipeline = compose.Pipeline(preprocessing.StandardScaler(), small())
    _, stream = fed(100)
    for x in stream:
        pipeline.score_one(x)
        pipeline.learn_one(x)
    assert pipeline.score_one({"load": 0.5, "heat": 40.0}) > pipeline.score_one({"load": 0.5, "heat": 1.0})
