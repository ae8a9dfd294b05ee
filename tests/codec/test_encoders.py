"""Promises of the encoders: outputs fit the wire formats and lose nothing; written inputs are read back."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ad.codec import Codec
from stream_ad.records.columns import Contribution, Events, OutRecord, RawRecords, Scores
from stream_ad.records.schemas import AnomalyScore, ContributionOut, Incident, Label, SensorEvent, SuspectedClass
from stream_ad.settings import ScoreSettings, Settings
from tests.support.wire_records import NOW_MS, event, raw, rows

CODEC = Codec(Settings())
NOW_NS = NOW_MS * 1_000_000

names = st.text(min_size=1, max_size=20)
finite = st.floats(allow_nan=False, allow_infinity=False)
contributions = st.builds(Contribution, names, finite, finite, st.floats(0, 1))
scored = st.tuples(
    names,
    names,
    st.integers(0, 2**62),
    st.integers(0, 2**40),
    st.floats(0, allow_infinity=False, allow_nan=False) | st.sampled_from([1.0, math.nextafter(1, 0), 0.1 + 0.2]),
    st.booleans(),
    st.lists(contributions, max_size=2).map(tuple),
)


def columns(table):
    """Return Events and Scores from rows (sensor, event, time, record time, score, live, contributions)."""
    sensors, ids, times, record_times, scores, live, parts = ([*column] for column in zip(*table, strict=True))
    count = len(sensors)
    events = Events(np.arange(count), np.array(record_times), np.array(times), sensors, ids, ())
    given_contributions = {row: listed for row, listed in enumerate(parts) if listed}
    return events, Scores(np.array(scores), np.array(live), given_contributions)


@settings(deadline=None)
@given(st.lists(scored, min_size=1, max_size=5))
def test_scores_are_valid_on_the_wire_and_lose_nothing(table):
    """Every message is a valid AnomalyScore with the same float64s; key and record time are the event's."""
    records = CODEC.encode_scores(*columns(table), "v1")
    assert len(records) == len(table)
    for record, (sensor, event_id, time_ns, record_ms, score, live, parts) in zip(records, table, strict=True):
        assert (record.key, record.time_ms, record.headers) == (sensor.encode(), record_ms, ())
        model = AnomalyScore.model_validate_json(record.value)
        assert (model.sensor_id, model.event_id, model.model) == (sensor, event_id, "v1")
        assert model.score == score
        assert model.is_anomaly == (score >= 1)
        assert model.phase == ("live" if live else "warm-up")
        assert [(part.feature, part.value, part.expected, part.share) for part in model.contributions] == [
            (part.feature, part.value, part.expected, part.share) for part in parts
        ]
        assert list(json.loads(record.value)) == list(AnomalyScore.model_fields)
        again, dead = CODEC.decode_events(raw([event(timestamp=json.loads(record.value)["timestamp"])], times_ms=-1))
        assert dead == []
        assert again.times_ns.tolist() == [time_ns]


def test_times_are_written_in_utc_with_the_digits_they_need():
    """A whole second has no fraction, others 3, 6 or 9 digits, independent of their neighbours."""
    fractions = [0, 500_000_000, 1_000, 1]
    table = [("s", "e", NOW_NS - 500_000_000 + fraction, 0, 0.5, True, ()) for fraction in fractions]
    texts = [json.loads(record.value)["timestamp"] for record in CODEC.encode_scores(*columns(table), "v1")]
    assert texts == [
        "2026-11-22T01:02:03Z",
        "2026-11-22T01:02:03.500Z",
        "2026-11-22T01:02:03.000001Z",
        "2026-11-22T01:02:03.000000001Z",
    ]


def test_only_anomalies_are_published_where_the_setting_says_so():
    """With scores.publish=anomalies the rows of 1 and above remain, with their own contributions."""
    top = (Contribution("temp", 9.0, 4.0, 1.0),)
    table = [("s", f"e{row}", NOW_NS, 0, score, True, ()) for row, score in enumerate([0.2, 1.0, 0.99, 7.0])]
    events, scores = columns(table)
    scores = Scores(scores.score, scores.live, {3: top})
    records = Codec(Settings(scores=ScoreSettings(publish="anomalies"))).encode_scores(events, scores, "v1")
    messages = [json.loads(record.value) for record in records]
    assert [message["event_id"] for message in messages] == ["e1", "e3"]
    assert [len(message["contributions"]) for message in messages] == [0, 1]


def test_nothing_scored_publishes_nothing():
    """An empty step gives no records."""
    none = np.empty(0, np.int64)
    events = Events(none, none, none, [], [], ())
    assert CODEC.encode_scores(events, Scores(np.empty(0), np.empty(0, np.bool_)), "v1") == []


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_score_that_json_cannot_say_is_an_error(wrong):
    """A score that is not finite is an error that names the event: null instead of a number would mislead consumers."""
    with pytest.raises(ValueError, match="e7"):
        CODEC.encode_scores(*columns([("s", "e7", NOW_NS, 0, wrong, True, ())]), "v1")
    for bad in (Contribution("f", wrong, 0.0, 0.5), Contribution("f", 0.0, wrong, 0.5)):
        with pytest.raises(ValueError, match="e7"):
            CODEC.encode_scores(*columns([("s", "e7", NOW_NS, 0, 2.0, True, (bad,))]), "v1")


def test_an_output_never_carries_a_negative_record_time():
    """Records of very old producers have the time -1, which no output may have."""
    (record,) = CODEC.encode_scores(*columns([("s", "e", NOW_NS, -1, 0.5, True, ())]), "v1")
    assert record.time_ms == 0
    _, (letter,) = CODEC.decode_events(raw([b""], times_ms=-1))
    assert letter.time_ms == 0


def test_incidents_read_back_as_they_were():
    """An incident is keyed by its sensor, and its record time is that of its latest anomaly."""
    incident = Incident(
        incident_id="i",
        sensor_id="Pümp",
        state="open",
        kind="sustained",
        severity="major",
        start=datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC),
        end=datetime(2026, 11, 22, 1, 2, 3, 123_999, tzinfo=UTC),
        events=2,
        peak_alarm=1.7,
        peak_score=0.1 + 0.2,
        peak_event_id="e",
        contributions=(ContributionOut(feature="temp", value=9.0, expected=4.0, share=1.0),),
        classes=(SuspectedClass(name="bearing", probability=0.75),),
        similar=("h",),
        features=("temp",),
    )
    (record,) = CODEC.encode_incidents([incident])
    assert (record.key, record.time_ms) == ("Pümp".encode(), NOW_MS - 500 + 123)
    assert Incident.model_validate_json(record.value) == incident


@settings(deadline=None)
@given(
    names,
    st.integers(0, 2**62),
    st.dictionaries(names, st.none() | st.floats(allow_infinity=False), min_size=1, max_size=4),
    st.none() | names,
)
def test_a_written_event_is_read_back(sensor, time_ns, values, event_id):
    """encode_event gives the default form: equal columns, NaN as missing, the sensor as key."""
    record = Codec.encode_event(sensor, time_ns, values, event_id=event_id)
    SensorEvent.model_validate_json(record.value)
    assert (record.key, record.time_ms) == (sensor.encode(), time_ns // 1_000_000)
    events, dead = CODEC.decode_events(taken(record))
    assert dead == []
    present = {name: None if value is None or math.isnan(value) else value for name, value in values.items()}
    assert rows(events) == [(0, record.time_ms, time_ns, sensor, event_id or "t-0-0", present)]


def test_a_written_event_may_have_a_record_time_of_its_own():
    """encode_event takes a record time, and numpy's floats as readings."""
    record = Codec.encode_event("s", NOW_NS, {"a": np.float64(0.1)}, record_time_ms=5)
    assert (record.time_ms, json.loads(record.value)["values"]) == (5, {"a": 0.1})


def test_an_infinite_reading_cannot_be_written():
    """An infinite reading is an error that names sensor and feature, since JSON has no infinity."""
    with pytest.raises(ValueError, match="pump-7, temp"):
        Codec.encode_event("pump-7", NOW_NS, {"temp": math.inf})


@settings(deadline=None)
@given(
    names,
    st.none() | names,
    st.integers(0, 2**40),
    names | st.tuples(st.integers(0, 2**61), st.integers(0, 2**61)).map(sorted),
)
def test_a_written_label_is_read_back(sensor, label, record_ms, target):
    """encode_label gives the form of the labels topic, for an event or for an interval."""
    where = {"event_id": target} if isinstance(target, str) else {"start_ns": target[0], "end_ns": target[1]}
    record = Codec.encode_label(sensor, label, record_time_ms=record_ms, **where)
    Label.model_validate_json(record.value)
    labels, dead = CODEC.decode_labels(taken(record))
    assert dead == []
    assert (labels.sensor_ids, labels.names, labels.event_ids) == ([sensor], [label], [where.get("event_id")])
    assert labels.record_times_ms.tolist() == [record_ms]
    assert (labels.starts_ns[0], labels.ends_ns[0]) == (where.get("start_ns", 0), where.get("end_ns", 0))


@pytest.mark.parametrize("where", [{}, {"start_ns": 1}, {"event_id": "e", "end_ns": 1}, {"start_ns": 2, "end_ns": 1}])
def test_a_label_without_one_target_cannot_be_written(where):
    """A label needs an event or an interval, exactly one of them."""
    with pytest.raises(ValueError, match="either"):
        Codec.encode_label("s", "normal", record_time_ms=0, **where)


def taken(record: OutRecord):
    zero, time = np.zeros(1, np.int64), np.array([record.time_ms])
    return RawRecords("t", 0, zero, time, [record.key], [record.value])
