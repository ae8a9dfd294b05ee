"""Promises of the encoders: outputs fit the wire formats and lose nothing; written inputs are read back."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ad.codec import Codec
from stream_ad.records.columns import Contribution, Events, OutRecord, RawRecords, Scores
from stream_ad.records.schemas import AnomalyScore, ContributionOut, Incident, Label, SensorEvent, SuspectedClass
from stream_ad.settings import ScoreSettings, Settings
from tests.support.wire_records import NOW_MS, event, raw, rows
from tools.write_schemas import SCHEMAS

VERSION_1 = (("stream_ad.format", b"1"),)
VERSION_0_1 = (("stream_ad.format", b"0.1"),)
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
    st.floats(0, math.nextafter(1, 0)) | st.sampled_from([math.nextafter(1, 0), 0.1 + 0.2]),
    st.floats(0, allow_infinity=False, allow_nan=False) | st.sampled_from([1.0, math.nextafter(1, 0)]),
    st.booleans(),
    st.lists(contributions, max_size=2).map(tuple),
)


def columns(table):
    """Return Events and Scores from rows (sensor, event, time, record time, score, alarm, live, contributions)."""
    sensors, ids, times, record_times, scores, alarms, live, parts = ([*column] for column in zip(*table, strict=True))
    count = len(sensors)
    events = Events(np.arange(count), np.array(record_times), np.array(times), sensors, ids, ())
    given_contributions = {row: listed for row, listed in enumerate(parts) if listed}
    none = np.zeros(count, np.int8)
    alarm = np.array(alarms, np.float64)[:, None]
    return events, Scores(
        np.array(scores, np.float64), alarm, none, none, np.array(live, np.bool_), given_contributions
    )


@settings(deadline=None)
@given(st.lists(scored, min_size=1, max_size=5))
def test_scores_are_valid_on_the_wire_and_lose_nothing(table):
    """Every message is a valid AnomalyScore with the same float64s; key and record time are the event's."""
    records = CODEC.encode_scores(*columns(table), "v1")
    assert len(records) == len(table)
    for record, (sensor, event_id, time_ns, record_ms, score, alarm, live, parts) in zip(records, table, strict=True):
        assert (record.key, record.time_ms, record.headers) == (sensor.encode(), record_ms, VERSION_1)
        model = AnomalyScore.model_validate_json(record.value)
        assert (model.sensor_id, model.event_id, model.model) == (sensor, event_id, "v1")
        assert (model.score, model.alarm) == (score, alarm)
        assert model.is_anomaly == (alarm >= 1 and live)
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
    table = [("s", "e", NOW_NS - 500_000_000 + fraction, 0, 0.5, 0.2, True, ()) for fraction in fractions]
    texts = [json.loads(record.value)["timestamp"] for record in CODEC.encode_scores(*columns(table), "v1")]
    assert texts == [
        "2026-11-22T01:02:03Z",
        "2026-11-22T01:02:03.500Z",
        "2026-11-22T01:02:03.000001Z",
        "2026-11-22T01:02:03.000000001Z",
    ]


def test_only_anomalies_are_published_where_the_setting_says_so():
    """With scores.publish=anomalies the live events with an alarm of 1 or above remain, with what belongs to them."""
    top = (Contribution("temp", 9.0, 4.0, 1.0),)
    alarms = [0.2, 1.0, 0.99, 7.0, 7.0]
    table = [("s", f"e{row}", NOW_NS, 0, 0.9, alarm, row != 4, ()) for row, alarm in enumerate(alarms)]
    events, scores = columns(table)
    scores = replace(scores, contributions={3: top}, expected={3: {"temp": 4.0}}, incident_ids={3: "s/e1"})
    records = Codec(Settings(scores=ScoreSettings(publish="anomalies"))).encode_scores(events, scores, "v1")
    messages = [json.loads(record.value) for record in records]
    assert [message["event_id"] for message in messages] == ["e1", "e3"]
    assert [len(message["contributions"]) for message in messages] == [0, 1]
    assert [message["expected"] for message in messages] == [None, {"temp": 4.0}]
    assert [message["incident_id"] for message in messages] == [None, "s/e1"]


def test_nothing_scored_publishes_nothing():
    """An empty step gives no records."""
    none, codes = np.empty(0, np.int64), np.empty(0, np.int8)
    events = Events(none, none, none, [], [], ())
    scores = Scores(np.empty(0), np.empty((0, 1)), codes, codes, np.empty(0, np.bool_))
    assert CODEC.encode_scores(events, scores, "v1") == []


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_score_that_json_cannot_say_is_an_error(wrong):
    """A score or alarm that is not finite is an error that names the event: null would mislead consumers."""
    with pytest.raises(ValueError, match="e7: its alarm"):
        CODEC.encode_scores(*columns([("s", "e7", NOW_NS, 0, 0.9, wrong, True, ())]), "v1")
    with pytest.raises(ValueError, match="e7"):
        CODEC.encode_scores(*columns([("s", "e7", NOW_NS, 0, wrong, 0.5, True, ())]), "v1")
    for bad in (Contribution("f", wrong, 0.0, 0.5), Contribution("f", 0.0, wrong, 0.5)):
        with pytest.raises(ValueError, match="e7"):
            CODEC.encode_scores(*columns([("s", "e7", NOW_NS, 0, 0.9, 2.0, True, (bad,))]), "v1")


def test_an_output_never_carries_a_negative_record_time():
    """Records of very old producers have the time -1, which no output may have."""
    (record,) = CODEC.encode_scores(*columns([("s", "e", NOW_NS, -1, 0.5, 0.2, True, ())]), "v1")
    assert record.time_ms == 0
    _, (letter,) = CODEC.decode_events(raw([b""], times_ms=-1))
    assert letter.time_ms == 0


INCIDENT = Incident(
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


def test_incidents_read_back_as_they_were():
    """An incident is keyed by its sensor, and its record time is that of its latest anomaly."""
    (record,) = CODEC.encode_incidents([INCIDENT])
    assert (record.key, record.time_ms, record.headers) == ("Pümp".encode(), NOW_MS - 500 + 123, VERSION_1)
    assert Incident.model_validate_json(record.value) == INCIDENT


class TestOldFormat:
    """``scores.format=0.1``: what the releases 0.1 published."""

    CODEC = Codec(Settings(scores=ScoreSettings(format="0.1")))
    RELEASED = SCHEMAS / "released" / "0.1.0"

    @settings(deadline=None)
    @given(st.lists(scored, min_size=1, max_size=5))
    def test_scores(self, table):
        """A score is 1 or above if and only if the event is an anomaly, and has the fields of 0.1.0 alone."""
        schema = json.loads((self.RELEASED / "anomaly-score.json").read_text(encoding="utf-8"))
        records = self.CODEC.encode_scores(*columns(table), "v1")
        for record, new in zip(records, CODEC.encode_scores(*columns(table), "v1"), strict=True):
            message, today = json.loads(record.value), json.loads(new.value)
            assert record._replace(value=b"", headers=()) == new._replace(value=b"", headers=())
            assert record.headers == VERSION_0_1
            jsonschema.validate(message, schema)
            assert set(message) == set(schema["properties"])
            assert (message["score"] >= 1) == message["is_anomaly"] == today["is_anomaly"]
            same = set(message) - {"score"}
            assert {name: message[name] for name in same} == {name: today[name] for name in same}

    def test_numbers(self):
        """With u the exponential of the log score less 3, an anomaly has 1 + u, and any other event u / (1 + u)."""
        u = [0.25, 0.25, 4.0, 4.0, math.inf]
        table = [
            ("s", str(row), NOW_NS, 0, 1.0 if math.isinf(size) else size / (1 + size), alarm, True, ())
            for row, (size, alarm) in enumerate(zip(u, [0.9, 1.0, 0.9, 1.0, 1.0], strict=True))
        ]
        scores = [json.loads(record.value)["score"] for record in self.CODEC.encode_scores(*columns(table), "v1")]
        np.testing.assert_allclose(scores[:4], [0.2, 1.25, 0.8, 5.0], rtol=1e-15)
        assert 2**52 < scores[4] < math.inf

    def test_only_anomalies(self):
        """With scores.publish=anomalies exactly those of 1 or above are published."""
        codec = Codec(Settings(scores=ScoreSettings(format="0.1", publish="anomalies")))
        table = [("s", str(row), NOW_NS, 0, 0.9, alarm, True, ()) for row, alarm in enumerate([0.2, 1.0, 0.99, 7.0])]
        messages = [json.loads(record.value) for record in codec.encode_scores(*columns(table), "v1")]
        assert [message["event_id"] for message in messages] == ["1", "3"]

    def test_incidents(self):
        """An incident is published as it opens and as it closes, with a peak of 1 or above and the fields of 0.1.0."""
        schema = json.loads((self.RELEASED / "incident.json").read_text(encoding="utf-8"))
        opening = INCIDENT.model_copy(update={"events": 1})
        closing = INCIDENT.model_copy(update={"state": "closed", "reason": "over"})
        records = self.CODEC.encode_incidents([opening, INCIDENT, closing])
        messages = [json.loads(record.value) for record in records]
        assert [(message["state"], message["events"]) for message in messages] == [("open", 1), ("closed", 2)]
        for record, message in zip(records, messages, strict=True):
            assert (record.key, record.time_ms, record.headers) == ("Pümp".encode(), NOW_MS - 500 + 123, VERSION_0_1)
            jsonschema.validate(message, schema)
            assert set(message) == set(schema["properties"])
            assert message["peak_score"] == 1 / (1 - INCIDENT.peak_score)


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
