"""Incidents are counted as they are promised: joined over short gaps, false only where they cover no fault."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ad.detector.alarm_config import IncidentSettings
from stream_ad.evaluation.backtest.incident_figures import count, faults_of, spans
from stream_ad.records.columns import Scores
from stream_ad.shard.incidents import Incidents

UNJUDGED = -1
rows = st.lists(st.tuples(st.integers(0, 3), st.integers(UNJUDGED, 2), st.booleans()), max_size=60)


def columns(drawn):
    sensor, code, alarming = np.array(drawn, np.int64).reshape(-1, 3).T
    return sensor, code, alarming.astype(np.bool_)


def text(marks):
    """Alarming rows of one sensor, as a picture: # alarms, . does not."""
    return np.zeros(len(marks), np.int64), np.array([mark == "#" for mark in marks], np.bool_)


def by_hand(sensor, alarming, quiet_events):
    """Incidents as lists of the rows that they cover, row by row."""
    incidents = []
    for number in sorted(set(sensor.tolist())):
        covered, pending = [], []
        for row in np.flatnonzero(sensor == number).tolist():
            if alarming[row]:
                if covered and len(pending) >= quiet_events:
                    incidents.append(covered)
                    covered = []
                covered = [*covered, *pending, row] if covered else [row]
                pending = []
            else:
                pending.append(row)
        if covered:
            incidents.append(covered)
    return sorted(incidents)


@settings(deadline=None)
@given(rows, st.integers(1, 5))
def test_spans_are_those_of_a_loop(drawn, quiet_events):
    """Incidents begin and end where a loop over the rows of each sensor has them, in the order in which they open."""
    sensor, _, alarming = columns(drawn)
    result = spans(sensor, alarming, quiet_events)
    expected = [(covered[0], covered[-1]) for covered in by_hand(sensor, alarming, quiet_events)]
    assert list(zip(result.first.tolist(), result.last.tolist(), strict=True)) == expected


@settings(deadline=None)
@given(rows, st.integers(1, 5), st.sampled_from([0.0, 1e-3, 0.25]))
def test_counts_are_those_of_a_loop(drawn, quiet_events, budget):
    """Every figure is what a loop over incidents and faults counts."""
    sensor, code, alarming = columns(drawn)
    covered = [[code[row] for row in rows_of] for rows_of in by_hand(sensor, alarming, quiet_events)]
    judged = [[label for label in labels if label != UNJUDGED] for labels in covered]
    faults = faults_of(sensor, code)
    delays = [[bool(alarming[row]) for row in fault.rows].index(True) for fault in faults if alarming[fault.rows].any()]

    result = count(sensor, code, alarming, budget=budget, quiet_events=quiet_events)

    assert result.incidents == sum(bool(labels) for labels in judged)
    assert result.false == sum(bool(labels) and not any(labels) for labels in judged)
    assert result.promised == budget * code.tolist().count(0)
    assert result.rows == len(code) - code.tolist().count(UNJUDGED)
    assert result.rows_in_alarm == sum(len(labels) for labels in judged)
    assert (result.faults.faults, result.faults.detected) == (len(faults), len(delays))
    assert result.faults.delay_events_median == pytest.approx(
        float(np.median(delays)) if delays else math.nan, nan_ok=True
    )
    for key in ("faults", "detected"):
        assert getattr(result.faults, key) == sum(getattr(figures, key) for figures in result.by_class.values())
    assert set(result.by_class) == {fault.code for fault in faults}


@settings(deadline=None)
@given(rows, st.integers(1, 5))
def test_incidents_are_those_that_are_published(drawn, quiet_events):
    """A span opens at the very rows at which the shard opens incidents from the same alarms."""
    sensor, _, alarming = columns(drawn)
    names = [f"s{number}" for number in sensor.tolist()]
    events = SimpleNamespace(
        sensor_ids=names, event_ids=[str(row) for row in range(len(names))], times_ns=np.arange(len(names))
    )
    total = len(names)
    scores = Scores(
        score=alarming.astype(float),
        alarms=alarming.astype(float)[:, None],
        kinds=alarming.astype(np.int8),
        endings=np.zeros(total, np.int8),
        live=np.ones(total, np.bool_),
    )
    incidents = Incidents(IncidentSettings(quiet_events=quiet_events))
    opened = incidents.step(events, scores, (sensor, {f"s{number}": number for number in range(4)}))
    published = [int(incident_id.split("/")[1]) for incident_id in {incident.incident_id: None for incident in opened}]
    assert spans(sensor, alarming, quiet_events).first.tolist() == published


@pytest.mark.parametrize(
    ("picture", "expected"),
    [("#..#", [(0, 3)]), ("#...#", [(0, 0), (4, 4)]), ("....", []), ("", []), (".##.", [(1, 2)])],
)
def test_gaps_of_fewer_rows_are_joined(picture, expected):
    """Two rows without an alarm are joined over where three end an incident; three are not."""
    result = spans(*text(picture), 3)
    assert list(zip(result.first.tolist(), result.last.tolist(), strict=True)) == expected


def test_counts_by_hand():
    """Of four incidents, one covers a fault, one the warm-up alone, and two are false; one fault of two is found."""
    code = np.array([-1, -1, 0, 0, 0, 1, 1, 1, 0, 0, 2, 2, 0, 0])
    sensor, alarming = text("#.#...##.....#")
    result = count(sensor, code, alarming, budget=0.5, quiet_events=1)
    assert (result.incidents, result.false, result.promised) == (3, 2, 3.5)
    assert (result.rows, result.rows_in_alarm, result.share_in_alarm) == (12, 4, 4 / 12)
    assert (result.faults.faults, result.faults.detected, result.faults.delay_events_median) == (2, 1, 1.0)
    assert {code: figures.detected for code, figures in result.by_class.items()} == {1: 1, 2: 0}


def test_nothing_to_count():
    """A stream without rows has no incident, no promise and no share."""
    result = count(*columns([]), budget=1.0, quiet_events=16)
    assert (result.incidents, result.false, result.promised, result.faults.faults) == (0, 0, 0.0, 0)
    assert math.isnan(result.share_in_alarm)


def test_an_incident_over_a_fault_in_a_gap_is_not_false():
    """A fault that lies in a joined gap keeps its incident from being false, and is not detected itself."""
    sensor, alarming = text("#..#")
    result = count(sensor, np.array([0, 1, 0, 0]), alarming, budget=0.1, quiet_events=16)
    assert (result.incidents, result.false, result.faults.detected) == (1, 0, 0)
