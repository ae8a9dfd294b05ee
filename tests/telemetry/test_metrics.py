"""Promises of /metrics and /top."""

from __future__ import annotations

import re
import subprocess
from itertools import product
from typing import get_args

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from stream_ad.brokers.worker_api import Commit, InputOffsets, InputTopic
from stream_ad.records.columns import Events, OutRecord, Scores, ShardStatus, StepResult
from stream_ad.records.schemas import REASONS, Incident
from stream_ad.settings import Settings
from stream_ad.shard.shard import COUNTERS
from stream_ad.shard.shard import LABEL_OUTCOMES as SHARD_LABEL_OUTCOMES
from stream_ad.telemetry.collectors import BinnedHistogram, ShardView
from stream_ad.telemetry.metrics import (
    BOUNDS,
    CLOSING_REASONS,
    EVENT_COUNTS,
    KINDS,
    LABEL_OUTCOMES,
    LABELLED,
    RESOLUTIONS,
    SEVERITIES,
    SHARD_BOUNDS,
    STAGES,
    Metrics,
)
from tests.support.incidents import CLOSED, OPENED, WORSE, incident
from tests.support.tools import promtool

STATUS = ShardStatus(
    sensors=7,
    warming_sensors=2,
    alarmed_sensors=1,
    open_incidents={"minor": 0, "major": 1, "critical": 0},
    pending_events=30,
    watermark_ns=1_500_000_000,
    model_version="v1",
    class_importance={"leak": 0.4},
    miss_rate={"leak": 0.25, "normal": 0.01},
    threshold_median=0.02,
    state_bytes=4096,
)


def samples(metrics):
    families = text_string_to_metric_families(metrics.exposition()[0].decode())
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value for family in families for sample in family.samples
    }


def events(scores, *, record_times_ms=None, sensor="pump-7"):
    count = len(scores)
    return Events(
        offsets=np.arange(count),
        record_times_ms=np.zeros(count, np.int64) if record_times_ms is None else np.asarray(record_times_ms),
        times_ns=np.arange(count) * 10**9,
        sensor_ids=[sensor] * count,
        event_ids=[f"e{row}" for row in range(count)],
        blocks=(),
    )


def scored(scores):
    """Live events, which alarm from a score of .9 on."""
    score, nothing = np.asarray(scores, float), np.zeros(len(scores), np.int8)
    return Scores(score, np.where(score >= 0.9, 1.5, 0.2)[:, None], nothing, nothing, np.ones(len(scores), bool))


def result(scores, **changed):
    values = {
        "scores": scored(scores),
        "incidents": [],
        "counts": {"events": len(scores), "anomalies": sum(score >= 0.9 for score in scores), "dropped_gate": 2},
        "label_outcomes": {"applied": 3},
        "label_delays_s": np.array([90.0]),
        "losses": np.array([0.02, 0.5]),
    }
    return StepResult(**(values | changed))


def commit(**changed):
    return Commit(shard=0, positions=InputOffsets(3, 3), **changed)


NOTHING = {InputTopic.EVENTS: (), InputTopic.LABELS: ()}


def test_every_label_set_exists_from_the_start():
    """A rate over a counter that has never risen is 0, not missing."""
    seen = samples(Metrics(Settings()))
    for reason in REASONS:
        assert seen["stream_ad_dead_letters_total", ("reason", reason), ("side", "labels")] == 0
    for name, label, values in (
        ("labels", "outcome", LABEL_OUTCOMES),
        ("stage_seconds", "stage", STAGES),
        ("bound_hits", "bound", BOUNDS),
        ("commits", "result", ("ok", "fenced", "error")),
    ):
        for value in values:
            assert seen[f"stream_ad_{name}_total", (label, value)] == 0


def test_an_incident_counts_once_as_opened_and_once_as_closed():
    """A message of a risen severity, whose state is open as well, is no further incident."""
    metrics = Metrics(Settings())
    for incidents in ([OPENED, WORSE], [CLOSED, OPENED]):
        metrics.committed(
            commit(), events=events([0.5]), labels=0, rejected=NOTHING, result=result([0.5], incidents=incidents)
        )
    seen = samples(metrics)
    opened = "stream_ad_incidents_opened_total", ("kind", "sustained"), ("severity", "minor")
    closed = "stream_ad_incidents_closed_total", ("kind", "sustained"), ("reason", "over"), ("severity", "minor")
    assert {key: seen[key] for key in seen if key[0].startswith("stream_ad_incidents_") and seen[key]} == {
        opened: 2,
        closed: 1,
        ("stream_ad_incidents_total", ("state", "open")): 2,
        ("stream_ad_incidents_total", ("state", "closed")): 1,
    }


def test_promised_and_observed_add_up():
    """What the budget allows, and what labels say of incidents, adds up over commits."""
    metrics = Metrics(Settings())
    for promised, counts in ((0.25, {"incidents_normal": 2}), (0.5, {"incidents_normal": 1, "incidents_anomaly": 4})):
        outcome = result([0.5], promised=promised, counts=counts)
        metrics.committed(commit(), events=events([0.5]), labels=0, rejected=NOTHING, result=outcome)
    seen = samples(metrics)
    assert seen["stream_ad_promised_false_incidents_total",] == 0.75
    assert seen["stream_ad_labelled_incidents_total", ("label", "normal")] == 3
    assert seen["stream_ad_labelled_incidents_total", ("label", "anomaly")] == 4


def test_every_kind_severity_and_reason_has_its_series():
    """Every incident that the messages allow has a counter."""
    fields = Incident.model_fields
    assert set(get_args(fields["reason"].annotation)[0].__args__) == set(CLOSING_REASONS)
    metrics = Metrics(Settings())
    for kind, severity, reason in product(KINDS, SEVERITIES, CLOSING_REASONS):
        messages = [
            incident(kind=kind, severity=severity),
            incident(kind=kind, severity=severity, state="closed", reason=reason),
        ]
        outcome = result([0.5], incidents=messages)
        metrics.committed(commit(), events=events([0.5]), labels=0, rejected=NOTHING, result=outcome)
    seen = samples(metrics)
    assert {value for key, value in seen.items() if key[0] == "stream_ad_incidents_closed_total"} == {1}
    assert {value for key, value in seen.items() if key[0] == "stream_ad_incidents_opened_total"} == {4}


def test_a_commit_is_counted_whole():
    """Records, dead letters, outputs, labels and learning all count with the commit they belong to."""
    metrics = Metrics(Settings(), clock=lambda: 10.0)
    letter = OutRecord(None, b"{", 0, (("stream_ad.reason", b"not_json"),))
    metrics.committed(
        commit(scores=[letter] * 3, dead_letters=[letter]),
        events=events([0.5, 0.9, 0.99], record_times_ms=[9_000, 9_960, 99_000]),
        labels=3,
        rejected={InputTopic.EVENTS: [letter], InputTopic.LABELS: []},
        result=result([0.5, 0.9, 0.99]),
    )
    seen = samples(metrics)
    assert seen["stream_ad_records_total", ("outcome", "accepted"), ("side", "events")] == 3
    assert seen["stream_ad_records_total", ("outcome", "rejected"), ("side", "events")] == 1
    assert seen["stream_ad_records_total", ("outcome", "accepted"), ("side", "labels")] == 3
    assert seen["stream_ad_dead_letters_total", ("reason", "not_json"), ("side", "events")] == 1
    assert seen["stream_ad_published_records_total", ("output", "scores")] == 3
    assert seen["stream_ad_anomalies_total",] == 2
    assert seen["stream_ad_labels_total", ("outcome", "applied")] == 3
    assert seen["stream_ad_resolved_events_total", ("outcome", "dropped_gate")] == 2
    assert seen["stream_ad_scores_total", ("phase", "live")] == 3
    assert seen["stream_ad_learn_loss_sum",] == pytest.approx(0.52)
    assert seen["stream_ad_event_delay_seconds_sum",] == pytest.approx(1.04)  # a clock ahead of ours counts as no delay
    assert seen["stream_ad_event_delay_seconds_bucket", ("le", "0.05")] == 2
    assert seen["stream_ad_label_delay_seconds_bucket", ("le", "600.0")] == 1


def test_everything_that_a_shard_counts_is_shown():
    """Every counter and every label outcome of a shard has its metric, and there are no others."""
    assert set(COUNTERS) == {*EVENT_COUNTS, *LABELLED, *RESOLUTIONS, *SHARD_BOUNDS}
    assert set(SHARD_LABEL_OUTCOMES) == set(LABEL_OUTCOMES)


def test_binned_histogram_agrees_with_single_counts():
    """A batch falls into the same buckets as its values one by one; a value equal to a bound into its bucket."""
    edges, values = (0.1, 1.0, 10.0), np.array([0.05, 0.1, 0.100001, 1.0, 10.0, 11.0])
    histogram = BinnedHistogram("x", "x", edges)
    histogram.observe(values[:2])
    histogram.observe(values[2:])
    (family,) = histogram.collect()
    buckets = {sample.labels["le"]: sample.value for sample in family.samples if sample.name == "x_bucket"}
    assert buckets == {"0.1": 2, "1.0": 4, "10.0": 5, "+Inf": 6}
    assert next(s.value for s in family.samples if s.name == "x_sum") == pytest.approx(values.sum())


def test_a_revoked_shard_leaves_the_gauges():
    """The gauges are those of the shards owned now, so that two workers never show the same shard."""
    metrics = Metrics(Settings(), clock=lambda: 100.0)
    view = ShardView(
        "live", InputOffsets(5, 1), {InputTopic.EVENTS: 9, InputTopic.LABELS: 0}, STATUS, unsaved_since=40.0
    )
    metrics.show({0: view, 1: ShardView()})
    seen = samples(metrics)
    assert seen["stream_ad_lag_records", ("shard", "0"), ("side", "events")] == 9
    assert seen["stream_ad_committed_offset", ("shard", "0"), ("side", "labels")] == 1
    assert seen["stream_ad_snapshot_age_seconds", ("shard", "0")] == 60
    assert seen["stream_ad_snapshot_age_seconds", ("shard", "1")] == 0
    assert seen["stream_ad_watermark_timestamp_seconds", ("shard", "0")] == 1.5
    assert seen["stream_ad_miss_ratio", ("class", "normal")] == 0.01
    assert seen["stream_ad_open_incidents", ("severity", "major"), ("shard", "0")] == 1
    assert seen["stream_ad_open_incidents", ("severity", "minor"), ("shard", "0")] == 0
    assert seen["stream_ad_shards", ("state", "waiting")] == 1
    metrics.show({1: ShardView()})
    assert not [key for key in samples(metrics) if ("shard", "0") in key]


def test_no_series_grows_with_sensors():
    """A thousand sensors with incidents add no series: sensors are no labels."""
    metrics = Metrics(Settings())
    before = set(samples(metrics))
    for number in range(1000):
        outcome = result([0.99], incidents=[incident(sensor_id=f"s-{number}")])
        metrics.committed(
            commit(), events=events([0.99], sensor=f"s-{number}"), labels=0, rejected=NOTHING, result=outcome
        )
    assert set(samples(metrics)) == before


def opened(sensor, number, **fields):
    return [incident(sensor_id=sensor, incident_id=f"{sensor}/{n}", **fields) for n in range(number)]


def test_top_names_the_sensors_with_most_incidents_and_forgets_the_old():
    """/top ranks by recent incidents: one of a month ago counts nothing, a message of an open one is none."""
    now = [0.0]
    metrics = Metrics(Settings(), clock=lambda: now[0])
    metrics.top.observe(opened("old", 50))
    now[0] = 30 * 86_400.0
    metrics.top.observe([*opened("new", 2), *opened("other", 1), *[incident(sensor_id="other", events=9)] * 5])
    assert [sensor["sensor_id"] for sensor in metrics.top.view(5)] == ["new", "other", "old"]
    assert [sensor["recent_incidents"] for sensor in metrics.top.view(5)] == [2.0, 1.0, 0.0]


def test_top_tells_of_the_latest_incident():
    """/top says how the latest incident of a sensor stands, and which features explain it."""
    metrics = Metrics(Settings(), clock=lambda: 0.0)
    metrics.top.observe([OPENED, WORSE])
    (shown,) = metrics.top.view(5)
    assert shown["last_incident"] == OPENED.incident_id
    assert (shown["state"], shown["severity"], shown["features"]) == ("open", "major", ["vibration"])
    metrics.top.observe([CLOSED])
    (shown,) = metrics.top.view(5)
    assert (shown["state"], shown["peak_alarm"], shown["recent_incidents"]) == ("closed", 2.5, 1.0)


def test_top_is_bounded():
    """However many sensors have incidents, /top stays bounded and keeps those with most."""
    metrics = Metrics(Settings(), clock=lambda: 0.0)
    metrics.top.observe(opened("busy", 5))
    for number in range(5_000):
        metrics.top.observe(opened(f"s-{number}", 1))
    assert len(metrics.top.view(10_000)) <= 2_000
    assert metrics.top.view(1)[0]["sensor_id"] == "busy"


def test_the_share_of_one_sensor_is_measured():
    """The metrics tell when one sensor has most of the recent incidents, without its name."""
    now = [0.0]
    metrics = Metrics(Settings(), clock=lambda: now[0])
    metrics.top.observe(opened("busy", 6) + opened("quiet", 2))
    now[0] = 86_400.0  # half of it is forgotten
    seen = samples(metrics)
    assert seen["stream_ad_recent_incidents",] == pytest.approx(4)
    assert seen["stream_ad_recent_incidents_of_top_sensor",] == pytest.approx(3)


def test_promtool_accepts_the_metrics():
    """Names, units and help texts follow Prometheus' conventions."""
    metrics = Metrics(Settings())
    metrics.show({0: ShardView(status=STATUS)})
    done = subprocess.run(
        [promtool(), "check", "metrics"], input=metrics.exposition()[0], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_names_have_the_prefix_and_a_help_text():
    """Every metric has a known prefix and a help text."""
    text = Metrics(Settings()).exposition()[0].decode()
    helped = dict(re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE))
    for name in re.findall(r"^# TYPE (\S+)", text, re.MULTILINE):
        assert name.startswith(("stream_ad_", "process_", "python_"))
        assert helped[name]
