"""Promises of the label decoder: valid records become columns, every other one a dead letter with its reason."""

from __future__ import annotations

import json

import pytest

from stream_ad.codec import Codec
from stream_ad.settings import EventSettings, FieldMapping, Settings
from tests.support.wire_records import NOW_MS, header, raw

EARLY, LATE = "2026-11-22T01:02:03Z", "2026-11-22T02:02:03.000000001+00:30"


def label(**parts):
    message = {"sensor_id": "pump-7", "label": "bearing"} | parts
    return json.dumps(message).encode()


def without(name, **parts):
    return json.dumps({key: part for key, part in json.loads(label(**parts)).items() if key != name}).encode()


BAD = [
    (None, "empty", ""),
    (b"", "empty", ""),
    (b"x" * 1_048_577, "too_large", "events.max_record_bytes"),
    (b"\xff", "not_utf8", "byte 0"),
    (label(event_id="e1")[:-1] + b', "note": "\xff"}', "not_utf8", ""),
    (b"{", "not_json", ""),
    (b"[" * 900_000, "not_json", "nested"),
    (label(event_id="e1", note=float("nan")), "not_finite", "note"),
    (b"[]", "schema", "object"),
    (without("sensor_id", event_id="e1"), "schema", "sensor_id"),
    (without("label", event_id="e1"), "schema", "label"),
    (label(sensor_id=7, event_id="e1"), "schema", "sensor_id"),
    (label(label="", event_id="e1"), "schema", "label"),
    (label(label=1, event_id="e1"), "schema", "label"),
    (label(event_id=""), "schema", "event_id"),
    (label(), "schema", "either event_id, or start and end"),
    (label(start=EARLY), "schema", "either event_id, or start and end"),
    (label(end=EARLY), "schema", "either event_id, or start and end"),
    (label(event_id="e1", start=EARLY), "schema", "either event_id, or start and end"),
    (label(event_id="e1", start=EARLY, end=LATE), "schema", "either event_id, or start and end"),
    (label(start=LATE, end=EARLY), "schema", "end"),
    (label(start=1_795_309_323, end=LATE), "schema", "start"),
    (label(start="yesterday", end=LATE), "timestamp", "start: 'yesterday'"),
    (label(start=EARLY, end="9999-12-31T00:00:00Z"), "timestamp", "end"),
    (label(start="1969-01-01T00:00:00Z", end=LATE), "timestamp", "before 1970"),
]


def decode(values, codec=None):
    return (codec or Codec(Settings())).decode_labels(raw(values, topic="sensor-labels"))


def test_labels_become_columns():
    """A label names an event or an interval, a class or a retraction; times are exact to the nanosecond."""
    labels, dead = decode(
        [
            label(event_id="e1"),
            label(label=None, event_id="e2", start=None),
            label(label="normal", start=EARLY, end=LATE),
        ]
    )
    assert dead == []
    assert labels.offsets.tolist() == [10, 13, 16]
    assert labels.record_times_ms.tolist() == [NOW_MS] * 3
    assert labels.sensor_ids == ["pump-7"] * 3
    assert labels.names == ["bearing", None, "normal"]
    assert labels.event_ids == ["e1", "e2", None]
    early_ns = 1_795_309_323_000_000_000
    assert labels.starts_ns.tolist() == [0, 0, early_ns]
    assert labels.ends_ns.tolist() == [0, 0, early_ns + 1_800_000_000_001]


def test_an_interval_may_lie_in_the_future_or_be_one_instant():
    """An interval may lie in the future, as planned maintenance does."""
    labels, dead = decode(
        [label(start="2031-01-01T00:00:00Z", end="2031-01-02T00:00:00Z"), label(start=EARLY, end=EARLY)]
    )
    assert (len(labels), dead) == (2, [])


@pytest.mark.parametrize(("value", "reason", "detail"), BAD, ids=lambda part: repr(part)[:50])
def test_a_bad_label_goes_to_the_dead_letters_and_harms_no_neighbour(value, reason, detail):
    """A bad record becomes a dead letter with its reason and bytes; the labels around it are decoded."""
    labels, (letter,) = decode([label(event_id="before"), value, label(event_id="after")])
    assert labels.event_ids == ["before", "after"]
    assert labels.offsets.tolist() == [10, 16]
    assert len(labels.starts_ns) == len(labels.ends_ns) == 2
    assert (letter.key, letter.value, letter.time_ms) == (b"key", value, NOW_MS)
    assert header(letter, "reason") == reason
    assert detail in header(letter, "detail")
    assert (header(letter, "topic"), header(letter, "offset")) == ("sensor-labels", "13")


def test_labels_have_one_form_whatever_that_of_the_events():
    """The mapping and the time format of events do not apply to labels."""
    events = EventSettings(fields=FieldMapping(sensor_id="@key", timestamp="ts"), timestamp_format="ms")
    labels, dead = decode([label(start=EARLY, end=LATE)], Codec(Settings(events=events)))
    assert (labels.sensor_ids, dead) == (["pump-7"], [])


def test_no_records_give_no_labels():
    """An empty poll decodes to empty columns."""
    labels, dead = decode([])
    assert (len(labels), dead, labels.starts_ns.shape) == (0, [], (0,))
