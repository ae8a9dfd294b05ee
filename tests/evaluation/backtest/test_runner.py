"""The protocol of a backtest: nothing is learned from before it is scored, and no label before it is due."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from stream_ad.detector.alarm_config import AlarmOverride, AlarmsConfig, IncidentSettings
from stream_ad.evaluation.backtest import runner as module
from stream_ad.evaluation.backtest.label_schedule import Delay, Protocol
from stream_ad.evaluation.backtest.runner import Hooks, run_backtest
from stream_ad.evaluation.backtest.stream import Stream
from stream_ad.shard.shard import Shard
from tests.support.recordings import OPTIONS, drawn

INCIDENTS = IncidentSettings(quiet_events=4)
BUDGETS = (1e-4, 1e-2)


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
        stream(drawn(1200)),
        OPTIONS,
        Protocol(delay=Delay(20)),
        against=["hst", "iforest", "zscore"],
        incidents=INCIDENTS,
        budgets=BUDGETS,
    )


def test_scores_and_incidents_are_those_of_the_shard(plain):
    """Scores, alarms and incidents are those of the production code over the same records, in one step."""
    shard, recorded = Shard(OPTIONS, incidents=INCIDENTS, budgets=BUDGETS), plain.stream
    rows = len(recorded)
    result = shard.step(recorded.events(0, rows), plain.schedule.labels(0, rows))
    live = result.scores.live
    np.testing.assert_array_equal(plain.detector.score, result.scores.score)
    np.testing.assert_array_equal(plain.detector.live, live)
    np.testing.assert_array_equal(plain.detector.alarms[live], result.scores.alarms[live])
    assert (plain.detector.alarms[~live] == 0).all()
    assert plain.detector.contributions == result.scores.contributions
    assert plain.detector.incidents == result.incidents
    opened = {incident.incident_id: incident for incident in result.incidents if incident.opens}
    assert opened.keys() == plain.detector.opened_at.keys()
    for incident_id, row in plain.detector.opened_at.items():
        assert opened[incident_id].peak_event_id == recorded.event_ids(np.array([row]))[0]
    assert opened


def test_cuts_change_nothing(plain, monkeypatch):
    """However the rows are cut into steps, the results are the same."""
    monkeypatch.setattr(module, "CHUNK_ROWS", 137)
    again = run_backtest(
        plain.stream, OPTIONS, plain.protocol, against=["iforest", "zscore"], incidents=INCIDENTS, budgets=BUDGETS
    )
    for now, before in ((again.detector, plain.detector), (again.unlabelled, plain.unlabelled)):
        np.testing.assert_array_equal(now.score, before.score)
        np.testing.assert_array_equal(now.alarms, before.alarms)
        assert now.incidents == before.incidents
        assert now.opened_at == before.opened_at
        assert now.counts == before.counts
    np.testing.assert_array_equal(plain.baselines["zscore"], again.baselines["zscore"])
    np.testing.assert_allclose(plain.baselines["iforest"], again.baselines["iforest"], rtol=1e-12)


def learned(counts):
    """The counts that do not speak of alarms."""
    return {name: count for name, count in counts.items() if name != "anomalies" and "incidents" not in name}


@pytest.mark.parametrize(
    "alarms",
    [
        AlarmsConfig(false_incidents=1, per="100 events"),
        AlarmsConfig(overrides=(AlarmOverride(sensors="s1", false_incidents=1, per="100 events"),)),
    ],
)
def test_what_is_learned_does_not_depend_on_the_budget(plain, alarms):
    """Whatever budget is configured, scores, learning and the alarms at every other budget are the same."""
    options = OPTIONS.model_copy(update={"alarms": alarms})
    other = run_backtest(plain.stream, options, plain.protocol, incidents=INCIDENTS, budgets=BUDGETS)
    sensor = plain.stream.sensor if alarms.overrides else np.ones(len(plain.stream), np.int64)
    assert (other.detector.alarms[:, 0] != plain.detector.alarms[:, 0]).any()
    for now, before in ((other.detector, plain.detector), (other.unlabelled, plain.unlabelled)):
        np.testing.assert_array_equal(now.score, before.score)
        np.testing.assert_array_equal(now.alarms[:, 1:], before.alarms[:, 1:])
        np.testing.assert_array_equal(now.alarms[sensor == 1, 0], before.alarms[sensor == 1, 2])
        assert now.label_outcomes == before.label_outcomes
        assert learned(now.counts) == learned(before.counts)


def test_the_future_changes_nothing_before_it(plain):
    """Other readings and labels from some row on leave every score before it as it was, that of baselines too."""
    at, whole = 300, drawn(len(plain.stream))
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
    hooks = Hooks(stop=Flag(), progress=lambda *both: seen.append(both))
    run = run_backtest(plain.stream, OPTIONS, plain.protocol, hooks=hooks)
    assert seen == [(done, len(plain.stream)) for done in (100, 200, 300)]
    assert (run.done, run.complete) == (300, False)
    np.testing.assert_array_equal(run.detector.score[:300], plain.detector.score[:300])
