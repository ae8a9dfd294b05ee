"""The protocol of a backtest: nothing is learned from before it is scored, and no label before it is due."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from stream_ad.evaluation.backtest import runner as module
from stream_ad.evaluation.backtest.label_schedule import Delay, Protocol
from stream_ad.evaluation.backtest.runner import run_backtest
from stream_ad.evaluation.backtest.stream import Stream
from stream_ad.shard.shard import Shard
from tests.support.recordings import OPTIONS, drawn


def stream(recording):
    return Stream([recording], warmup=None, default_warmup=64)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """As in the worker and in the command: the same sums, and no waiting for other cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def plain():
    """A backtest with everything: labels 20 events late, a run without, all baselines."""
    return run_backtest(
        stream(drawn()), OPTIONS, Protocol(delay=Delay(20)), against=["hst", "iforest", "zscore"], quiet_events=4
    )


def test_scores_are_those_of_the_shard(plain):
    """The scores are those of the production code over the same records, in one step."""
    shard, recorded = Shard(OPTIONS, quiet_events=4), plain.stream
    rows = len(recorded)
    result = shard.step(recorded.events(0, rows), plain.schedule.labels(0, rows))
    np.testing.assert_array_equal(plain.detector.score, result.scores.score)
    np.testing.assert_array_equal(plain.detector.live, result.scores.live)
    assert plain.detector.contributions == result.scores.contributions
    opened = [incident.incident_id.partition("/")[2] for incident in result.incidents if incident.state == "open"]
    assert sorted(recorded.event_ids(np.array(plain.detector.incidents))) == sorted(opened)
    assert opened


def test_cuts_change_nothing(plain, monkeypatch):
    """However the rows are cut into steps, the results are the same."""
    monkeypatch.setattr(module, "CHUNK_ROWS", 137)
    again = run_backtest(plain.stream, OPTIONS, plain.protocol, against=["iforest", "zscore"], quiet_events=4)
    np.testing.assert_array_equal(plain.detector.score, again.detector.score)
    np.testing.assert_array_equal(plain.unlabelled.score, again.unlabelled.score)
    np.testing.assert_array_equal(plain.baselines["zscore"], again.baselines["zscore"])
    np.testing.assert_allclose(plain.baselines["iforest"], again.baselines["iforest"], rtol=1e-12)
    assert plain.detector.counts == again.detector.counts


def test_the_future_changes_nothing_before_it(plain):
    """Other readings and labels from some row on leave every score before it as it was, that of baselines too."""
    at, whole = 300, drawn()
    rng = np.random.default_rng(1)
    values = whole.values.copy()
    values[at:] = rng.normal(9, 5, values[at:].shape)
    labels = whole.labels[:at] + list(rng.permutation(np.array(whole.labels[at:])))
    other = dataclasses.replace(whole, values=values, labels=labels)
    changed = run_backtest(stream(other), OPTIONS, plain.protocol, against=["hst", "iforest", "zscore"])
    assert (plain.detector.score[at:] != changed.detector.score[at:]).any()
    for before, after in (
        (plain.detector.score, changed.detector.score),
        (plain.unlabelled.score, changed.unlabelled.score),
        *((plain.baselines[name], changed.baselines[name]) for name in plain.baselines),
    ):
        np.testing.assert_array_equal(before[:at], after[:at])


def test_labels_count_only_once_they_are_due():
    """Wrong labels on the rows from one on change no score before the first of them is due, and some after."""
    at, delay, whole = 200, 40, drawn(300, sensors=1)
    labels = whole.labels[:at] + ["leak" if label == "normal" else "normal" for label in whole.labels[at:]]
    runs = [
        run_backtest(stream(dataclasses.replace(whole, labels=given)), OPTIONS, Protocol(delay=Delay(delay)))
        for given in (whole.labels, labels)
    ]
    different = np.flatnonzero(runs[0].detector.score != runs[1].detector.score)
    assert different[0] > at + delay  # row 200 is due after row 240
    np.testing.assert_array_equal(runs[0].unlabelled.score, runs[1].unlabelled.score)


def test_without_coverage_it_is_the_run_without_labels(plain):
    """Without labels both runs are the same; with labels they are not."""
    silent = run_backtest(plain.stream, OPTIONS, Protocol(coverage=0.0))
    np.testing.assert_array_equal(silent.detector.score, silent.unlabelled.score)
    np.testing.assert_array_equal(silent.detector.score, plain.unlabelled.score)
    assert (plain.detector.score != plain.unlabelled.score).any()


def test_interval_labels_reach_the_detector():
    """Labels as intervals are applied to the events they cover."""
    run = run_backtest(stream(drawn()), OPTIONS, Protocol(delay=Delay(5), intervals=True), without_labels=False)
    assert run.detector.label_outcomes["interval"] == len(run.schedule.rows)
    assert run.detector.counts["learned_anomaly"] > 0
    assert all(event is None for event in run.schedule.labels(0, len(run.stream)).event_ids)


def test_one_model_for_all():
    """With shared models, sensors share one, and so do baselines."""
    options = OPTIONS.model_copy(update={"detector": OPTIONS.detector.model_copy(update={"models": "shared"})})
    apart, shared = (
        run_backtest(stream(drawn()), chosen, Protocol(), against=["zscore"], without_labels=False)
        for chosen in (OPTIONS, options)
    )
    assert (apart.baselines["zscore"] != shared.baselines["zscore"]).any()
    assert (apart.detector.score != shared.detector.score).any()


def test_stopping_keeps_what_is_done(plain, monkeypatch):
    """Stopped, it ends after the step at hand; the rows done by then have the scores of the whole run."""
    monkeypatch.setattr(module, "CHUNK_ROWS", 100)

    class Flag:
        def __init__(self):
            self.looks = 0

        def is_set(self):
            self.looks += 1
            return self.looks > 3

        def wait(self, timeout):
            raise AssertionError

    seen = []
    run = run_backtest(plain.stream, OPTIONS, plain.protocol, stop=Flag(), progress=lambda *both: seen.append(both))
    assert seen == [(100, 400), (200, 400), (300, 400)]
    assert (run.done, run.complete) == (300, False)
    np.testing.assert_array_equal(run.detector.score[:300], plain.detector.score[:300])
