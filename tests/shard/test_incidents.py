"""Incidents as they are published: one message when one opens, gets worse or closes, and none in between."""

from __future__ import annotations

import json
from itertools import groupby, pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ad.detector.alarm_config import IncidentSettings
from stream_ad.records.columns import Scores
from stream_ad.shard.incidents import Incidents
from stream_ad.shard.shard import Shard
from tests.support.streams import SECOND, Story, alarms, decisions, incidents, noise, options

NOTHING, SPIKE, SUSTAINED, STUCK = range(4)
OVER, ACCEPTED, JUDGED = range(3)
QUIET = 4
SETTINGS = IncidentSettings.model_validate(
    {
        "quiet_events": QUIET,
        "severity": {"major_alarm": 2, "critical_alarm": 4, "major_events": 6, "critical_events": 12},
    }
)


def step(kept, alarm, *, first=0, sensors=None, kinds=None, endings=None, live=None):
    """Hand decided events to the incidents; return the messages and the incident of each event."""
    count = len(alarm)
    ids = sensors or ["a"] * count
    numbers = {sensor_id: number for number, sensor_id in enumerate(sorted({*ids, *kept.open}))}
    events = SimpleNamespace(
        sensor_ids=ids,
        event_ids=[f"e{first + i}" for i in range(count)],
        times_ns=(first + np.arange(count)) * SECOND,
    )
    scores = Scores(
        score=(first + np.arange(count)) / 1000,
        alarms=np.array(alarm, float)[:, None],
        kinds=np.array(kinds if kinds is not None else [SPIKE * (a >= 1) for a in alarm], np.int8),
        endings=np.array(endings if endings is not None else [0] * count, np.int8),
        live=np.ones(count, np.bool_) if live is None else np.array(live),
    )
    messages = kept.step(events, scores, (np.array([numbers[each] for each in ids], np.int64), numbers))
    return messages, scores.incident_ids


# ---------------------------------------------------------------- messages


def test_an_incident_is_published_when_it_opens_and_when_it_closes():
    """Further alarms of the same severity are counted and not published; the end is that of the latest alarm."""
    messages, ids = step(Incidents(SETTINGS), [0, 1.1, 1.5, 0, 0, 1.2, *[0] * QUIET, 0])
    assert [(m.state, m.events, m.reason) for m in messages] == [("open", 1, None), ("closed", 3, "over")]
    opened, closed = messages
    assert opened.opens
    assert not closed.opens
    assert opened.incident_id == closed.incident_id == "a/e1"
    assert (closed.end - closed.start).total_seconds() == 4
    assert (closed.peak_alarm, closed.peak_event_id) == (1.5, "e2")
    assert sorted(ids) == list(range(1, 9))  # it is no longer open at the event that closes it
    assert set(ids.values()) == {"a/e1"}


def test_severity_is_published_each_time_that_it_rises():
    """By its highest alarm or its alarming events an incident becomes major, then critical: one message a rise."""
    by_alarm, _ = step(Incidents(SETTINGS), [1.1, 2.5, 1.1, 3.0, 5.0, 9.0, *[0] * QUIET])
    assert [m.severity for m in by_alarm] == ["minor", "major", "critical", "critical"]
    by_events, _ = step(Incidents(SETTINGS), [1.1] * 20 + [0] * QUIET)
    assert [(m.severity, m.events) for m in by_events] == [
        ("minor", 1), ("major", 6), ("critical", 12), ("critical", 20)
    ]  # fmt: skip
    at_once, _ = step(Incidents(SETTINGS), [9.0, 1.0, *[0] * QUIET])
    assert [m.severity for m in at_once] == ["critical", "critical"]


def test_severity_never_falls():
    """An incident that calms down keeps the severity that it had."""
    messages, _ = step(Incidents(SETTINGS), [5.0] + [1.0] * 3 + [0] * QUIET)
    assert [m.severity for m in messages] == ["critical", "critical"]


def test_the_kind_is_that_of_the_peak():
    """An incident is of the kind of its highest alarm."""
    kinds = [SPIKE, SUSTAINED, STUCK, *[NOTHING] * QUIET]
    messages, _ = step(Incidents(SETTINGS), [1.1, 1.9, 1.2, *[0] * QUIET], kinds=kinds)
    assert [m.kind for m in messages] == ["spike", "sustained"]


@pytest.mark.parametrize(("ending", "reason"), [(ACCEPTED, "accepted"), (JUDGED, "judged")])
def test_an_ending_closes_at_once_and_says_why(ending, reason):
    """An incident that was accepted or judged closes without quiet events; an ending without one says nothing."""
    kept = Incidents(SETTINGS)
    messages, ids = step(kept, [0, 1.5, 1.5, 0, 0, 0], endings=[ending, 0, 0, ending, 0, 0])
    assert [(m.state, m.reason) for m in messages] == [("open", None), ("closed", reason)]
    assert sorted(ids) == [1, 2]
    assert not kept.open


def test_an_alarm_at_the_ending_opens_another_incident():
    """An event that ends an incident and alarms anew opens the next one, under its own id."""
    messages, ids = step(Incidents(SETTINGS), [1.5, 1.2], endings=[0, JUDGED])
    assert [(m.state, m.incident_id) for m in messages] == [("open", "a/e0"), ("closed", "a/e0"), ("open", "a/e1")]
    assert ids == {0: "a/e0", 1: "a/e1"}


def test_alarms_of_the_warm_up_open_nothing():
    """While a sensor warms up its alarms open no incident and lengthen none."""
    messages, ids = step(Incidents(SETTINGS), [5.0, 5.0, 1.1], live=[False, False, True])
    assert [(m.state, m.incident_id) for m in messages] == [("open", "a/e2")]
    assert ids == {2: "a/e2"}


def test_the_incident_of_a_sensor_that_is_gone_closes():
    """It closes with that reason, and the incidents of other sensors stay open."""
    kept = Incidents(SETTINGS)
    step(kept, [1.5, 1.5], sensors=["a", "b"])
    (closed,) = kept.close_all_but({"b"})
    assert (closed.sensor_id, closed.state, closed.reason) == ("a", "closed", "sensor_gone")
    assert sorted(kept.open) == ["b"]


@st.composite
def decided(draw):
    """Alarms, kinds and endings of some events of three sensors."""
    rows = draw(
        st.lists(
            st.tuples(st.sampled_from("abc"), st.sampled_from([0, 0, 0, 1.0, 1.5, 3.0, 7.0]), st.integers(0, 30)),
            max_size=80,
        )
    )
    ending = [{0: JUDGED, 1: ACCEPTED}.get(each, 0) for *_, each in rows]
    return [sensor for sensor, *_ in rows], [alarm for _, alarm, _ in rows], ending


@settings(deadline=None)
@given(decided(), st.sets(st.integers(0, 80)), st.booleans())
def test_messages_tell_one_story_however_events_are_cut(events, cuts, restart):
    """Each incident opens once, rises at most twice and closes once, its count never falls, at most one is open per
    sensor, and cuts and restarts change nothing of it.
    """
    sensors, alarm, endings = events
    whole, whole_ids = step(Incidents(SETTINGS), alarm, sensors=sensors, endings=endings)
    for _, story in groupby(sorted(whole, key=lambda m: m.incident_id), key=lambda m: m.incident_id):
        messages = list(story)
        states = [m.state for m in messages]
        assert messages[0].opens
        assert states.count("closed") <= 1
        assert sum(m.opens for m in messages) == 1
        assert "closed" not in states[:-1]
        severities = [("minor", "major", "critical").index(m.severity) for m in messages if m.state == "open"]
        assert severities == sorted(set(severities))
        assert [m.events for m in messages] == sorted(m.events for m in messages)
    kept, parts, ids = Incidents(SETTINGS), [], {}
    for first, last in pairwise(sorted({0, len(alarm), *(cut for cut in cuts if cut < len(alarm))})):
        messages, of_part = step(
            kept, alarm[first:last], first=first, sensors=sensors[first:last], endings=endings[first:last]
        )
        parts += messages
        ids |= {first + i: incident_id for i, incident_id in of_part.items()}
        if restart:
            state = json.loads(json.dumps(kept.state()))
            kept = Incidents(SETTINGS)
            kept.load(state)
    assert parts == whole
    assert ids == whole_ids


# ---------------------------------------------------------------- shards


def troubled(events=3):
    """A calm sensor with a fault of some events at the end; and the ids of these."""
    story = Story()
    noise(story, 400)
    fault = [story.event("a", {"f0": 40.0, "f1": 10.0, "f2": 10.0}) for _ in range(events)]
    return story, fault


@pytest.mark.parametrize("target", ["event", "interval"])
def test_a_label_that_says_normal_closes_the_incident_as_judged(target):
    """A label on the event that opened an incident, or on an interval around it, closes it at the sensor's next learn
    point, on every cut; and the excursion does not ring again.
    """
    story, fault = troubled(8)
    if target == "event":
        story.label("a", "normal", fault[0])
    else:
        story.interval("a", "normal", 399, story.second)
    for _ in range(60):
        story.event("a", {"f0": 40.0, "f1": 10.0, "f2": 10.0})
    by_cut = []
    for cut in (None, 1, 7):
        results = story.play(Shard(options(), incidents=IncidentSettings(quiet_events=64)), cut=cut)
        by_cut.append(decisions(results))
        ours = [m for m in incidents(results) if m.incident_id == f"a/{fault[0]}"]
        assert (ours[0].state, ours[-1].state, ours[-1].reason) == ("open", "closed", "judged")
    assert by_cut[0] == by_cut[1] == by_cut[2]


def test_a_label_that_says_fault_closes_nothing():
    """An incident that a label confirms stays open until it is over."""
    story, fault = troubled(8)
    story.label("a", "leak", fault[0])
    noise(story, 60, seed=3)
    ours = [m for m in incidents(story.play(Shard(options()))) if m.incident_id == f"a/{fault[0]}"]
    assert (ours[-1].state, ours[-1].reason) == ("closed", "over")


def test_an_incident_that_is_open_at_shutdown_goes_on_under_its_id():
    """After a restart an open incident goes on under the same id, is not opened again, and closes once."""
    story, fault = troubled()
    shard = Shard(options())
    before = story.play(shard)
    assert shard.status().alarmed_sensors == 1
    since = story.second
    restarted = Shard.restore(shard.snapshot(), options())
    assert restarted.status().alarmed_sensors == 1
    story.event("a", {"f0": 40.0, "f1": 10.0, "f2": 10.0})
    noise(story, 60, seed=3)
    after = story.play(restarted, since=since)
    assert alarms(after)[0] >= 1
    assert after[0].scores.incident_ids[0] == f"a/{fault[0]}"
    ours = [m for m in incidents([*before, *after]) if m.incident_id == f"a/{fault[0]}"]
    assert [m.opens for m in ours].count(True) == 1
    assert [m.state for m in ours].count("closed") == 1
    assert ours[-1].events >= 4


def test_settings_of_incidents_may_change_at_a_restart():
    """An incident that was opened under other settings closes by those in force."""
    story, fault = troubled()
    shard = Shard(options(), incidents=IncidentSettings(quiet_events=1000))
    story.play(shard)
    since = story.second
    noise(story, 40, seed=3)
    patient, quick = (
        incidents(story.play(Shard.restore(shard.snapshot(), options(), incidents=given_settings), since=since))
        for given_settings in (IncidentSettings(quiet_events=1000), IncidentSettings(quiet_events=2))
    )
    assert not [m for m in patient if m.state == "closed"]
    assert [m.incident_id for m in quick if m.state == "closed"][:1] == [f"a/{fault[0]}"]
