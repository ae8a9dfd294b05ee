"""Promises of the count of incidents that labels call normal, or anomalies."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from stream_ad.detector.alarm_config import IncidentSettings
from stream_ad.shard.incidents import UNLABELLED_KEPT, Incidents, LabelledStretch
from stream_ad.shard.shard import Shard
from tests.support.streams import Story, options

PICTURE = "..##......#.#......##"  # two incidents that close after three usual events, and one that is open at the end


def play(picture, labels, *, cuts=()):
    """Return counts and incidents of a sensor whose alarms are drawn; event ``i`` is at ``i`` ns, record ``10 i``."""
    incidents = Incidents(IncidentSettings(quiet_events=3))
    bounds = [0, *cuts, len(picture)]
    for start, stop in pairwise(bounds):
        rows = np.arange(start, stop)
        alarm = np.array([float(picture[row] == "#") for row in rows])
        events = SimpleNamespace(sensor_ids=["s"] * len(rows), event_ids=[str(row) for row in rows], times_ns=rows)
        scores = SimpleNamespace(
            score=alarm, alarm=alarm, live=np.ones(len(rows), np.bool_), kinds=np.ones(len(rows), np.int8),
            endings=np.zeros(len(rows), np.int8), contributions={}, classes={}, incident_ids={},
        )  # fmt: skip
        last = stop == len(picture)
        arrived = [label for label in labels if 10 * start <= label.record and (last or label.record < 10 * stop)]
        incidents.step(events, scores, (np.zeros(len(rows), np.int64), {"s": 0}), (10 * rows, arrived))
    return incidents


def label(start, end, *, normal=True, record=1000):
    return LabelledStretch(record, "s", start, end, normal)


@pytest.mark.parametrize(
    ("labels", "normal", "anomaly"),
    [
        ([label(3, 3)], 1, 0),
        ([label(4, 9)], 0, 0),  # between two incidents
        ([label(11, 11)], 1, 0),  # a usual event inside an incident
        ([label(0, 12)], 2, 0),
        ([label(20, 20, normal=False)], 0, 1),  # it is still open
        ([label(3, 3), label(2, 2, normal=False, record=2000)], 1, 0),  # the first label decides
        ([label(0, 99, normal=False), label(0, 99, record=2000)], 0, 3),
        ([label(0, 99, record=35)], 1, 0),  # the others open later
    ],
)
def test_the_first_label_that_covers_an_incident_counts(labels, normal, anomaly):
    """An incident counts once, by the first label that covers one of its events, however the events are cut."""
    for cuts in ((), (4,), tuple(range(1, len(PICTURE)))):
        counts = play(PICTURE, labels, cuts=cuts).counts
        assert (counts["incidents_normal"], counts["incidents_anomaly"]) == (normal, anomaly)


def test_incidents_that_wait_for_a_label_are_bounded():
    """The oldest closed incidents of a sensor make room, and none is kept of a sensor that is gone."""
    incidents = play("#..." * (UNLABELLED_KEPT + 5), [])
    assert len(incidents.unlabelled["s"]) == UNLABELLED_KEPT
    assert incidents.unlabelled["s"][0] == (20, 20)
    incidents.close_all_but(())
    assert not incidents.unlabelled


def test_a_label_after_a_restart_counts():
    """What waits for a label is part of the snapshot: a label of an incident before a restart counts like any other."""
    story, random = Story(), np.random.default_rng(3)
    for _ in range(600):
        story.event("a", {f"f{k}": float(random.normal(10)) for k in range(3)})
    fault = [story.event("a", {"f0": 90.0, "f1": 10.0, "f2": 10.0}) for _ in range(4)]
    for _ in range(60):
        story.event("a", {f"f{k}": float(random.normal(10)) for k in range(3)})
    chosen = options(alarms={"false_incidents": 1, "per": "1000 events"})
    shard = Shard(chosen)
    (before,) = story.play(shard)
    closed = [incident for incident in before.incidents if incident.state == "closed"]
    assert any(incident.peak_event_id in fault for incident in closed)
    second = story.second
    story.label("a", "leak", fault[1])
    restored = Shard.restore(shard.snapshot(), chosen)
    after = restored.step(*story.columns(second, story.second))
    counts = Counter(after.counts)
    assert (counts["incidents_normal"], counts["incidents_anomaly"]) == (0, 1)


def test_what_is_promised_follows_the_budgets_of_the_sensors():
    """The promise is the rate of each sensor's budget times its live events, also of those that are live early."""
    story, random = Story(), np.random.default_rng(3)
    chosen = options(
        learning={"warmup_events": 256},
        alarms={"false_incidents": 1, "per": "500 events", "overrides": [{"sensors": "b*", "false_incidents": 3}]},
    )
    old, young = ["a0", "b0", "a1", "a2"], ["a3", "b1"]
    batch = chosen.learning.batch_events
    for number in range(50 * batch):
        for sensor in old if number < 38 * batch else old + young:
            story.event(sensor, {f"f{k}": float(random.normal(10)) for k in range(3)})
    results = story.play(Shard(chosen), cut=100)
    live = Counter()
    sensors = iter(sensor for _, sensor, _, _ in story.events)
    for result in results:
        live.update(sensor for alive, sensor in zip(result.scores.live.tolist(), sensors, strict=False) if alive)
    expected = sum((3 if sensor.startswith("b") else 1) / 500 * number for sensor, number in live.items())
    assert sum(result.promised for result in results) == pytest.approx(expected)
    assert live["a3"] > 12 * batch - 256  # it was live before its warm-up was over
