"""Promises of the setting ``events.fields``: messages in other forms are decoded as the default form is."""

from __future__ import annotations

import json

import pytest

from stream_ad.codec import Codec
from stream_ad.settings import EventSettings, FieldMapping, Settings
from tests.support.wire_records import NOW, NOW_MS, header, raw, readings, rows

NOW_NS = NOW_MS * 1_000_000


def codec(timestamp_format="rfc3339", **fields):
    return Codec(Settings(events=EventSettings(fields=FieldMapping(**fields), timestamp_format=timestamp_format)))


def decode_one(codec, message, **kinds):
    events, dead = codec.decode_events(raw([json.dumps(message).encode()], **kinds))
    assert dead == []
    ((_, _, time_ns, sensor_id, event_id, values),) = rows(events)
    return sensor_id, time_ns, values, event_id


def refusal(codec, message, **kinds):
    events, (letter,) = codec.decode_events(raw([json.dumps(message).encode()], **kinds))
    assert len(events) == 0
    return header(letter, "reason"), header(letter, "detail")


def test_fields_may_have_other_names():
    """The four fields may have other names."""
    mapped = codec(sensor_id="device", timestamp="ts", values="data", event_id="uuid")
    message = {"device": "pump-7", "ts": NOW, "data": {"temp": 1.5, "vib": None}, "uuid": "e1"}
    assert decode_one(mapped, message) == ("pump-7", NOW_NS, {"temp": 1.5, "vib": None}, "e1")
    assert refusal(mapped, message | {"data": {"temp": "1"}}) == (
        "schema",
        "data.temp: expected a number or null, got text",
    )


def test_paths_lead_into_nested_objects():
    """Each dot goes one object deeper; the part that is missing is named by its whole path."""
    mapped = codec(sensor_id="meta.device.id", timestamp="meta.ts", values="payload.readings", event_id="meta.id")
    message = {
        "meta": {"device": {"id": "pump-7"}, "ts": NOW, "id": "e1"},
        "payload": {"readings": {"temp": 1, "vib": 2}},
    }
    assert decode_one(mapped, message) == ("pump-7", NOW_NS, {"temp": 1.0, "vib": 2.0}, "e1")
    assert refusal(mapped, message | {"payload": {}}) == ("schema", "payload.readings: missing")
    assert refusal(mapped, message | {"payload": [1]}) == ("schema", "payload.readings: missing")
    assert refusal(mapped, message | {"meta": {"device": 7}}) == ("schema", "meta.device.id: missing")


def test_a_key_that_holds_the_dots_itself_comes_first():
    """Flattened messages have dots in their keys."""
    mapped = codec(sensor_id="device.id", timestamp="@record", values=["s.temp"])
    message = {"device.id": "flat", "device": {"id": "nested"}, "s.temp": 1, "s": {"temp": 2}}
    assert decode_one(mapped, message)[::2] == ("flat", {"s.temp": 1.0})


def test_listed_values_are_features_named_by_their_paths():
    """A listed value that a message lacks is a missing reading; a message with none of them is refused."""
    mapped = codec(values=["temp", "motor.vib", "flow"])
    message = {"sensor_id": "pump-7", "timestamp": NOW, "temp": 1, "motor": {"vib": None}, "other": 9}
    assert decode_one(mapped, message)[2] == {"temp": 1.0, "motor.vib": None, "flow": None}
    reason, detail = refusal(mapped, {"sensor_id": "pump-7", "timestamp": NOW, "other": 9})
    assert (reason, detail) == ("schema", "none of temp, motor.vib, flow is in the message")
    assert refusal(mapped, message | {"temp": "1"})[1] == "temp: expected a number or null, got text"


def test_a_star_takes_all_other_numbers():
    """Numbers and nulls of the message itself are features, unless they are the id or the time."""
    mapped = codec("ms", sensor_id="device", timestamp="ts", values="*", event_id="seq")
    message = {
        "device": 7, "ts": NOW_MS, "seq": 12, "temp": 71, "vib": None, "flow": 0.5,
        "site": "north", "on": True, "more": {"x": 1}, "list": [1],
    }  # fmt: skip
    assert decode_one(mapped, message) == ("7", NOW_NS, {"temp": 71.0, "vib": None, "flow": 0.5}, "12")
    assert refusal(mapped, {"device": 7, "ts": NOW_MS, "site": "north"}) == ("schema", "values: no reading")


def test_the_record_key_may_be_the_sensor():
    """With @key the message needs no sensor id; a key that cannot be an id is refused."""
    mapped = codec(sensor_id="@key")
    message = {"timestamp": NOW, "values": {"temp": 1}}
    assert decode_one(mapped, message, keys=["Pümp".encode()])[0] == "Pümp"
    assert refusal(mapped, message, keys=[None])[0] == "schema"
    assert refusal(mapped, message, keys=[b""]) == ("schema", "the record key: 0 characters, expected 1 to 256")
    assert refusal(mapped, message, keys=[b"\xff"])[0] == "not_utf8"


def test_the_record_time_may_be_the_time():
    """With @record the message needs no time; a record without one is refused."""
    mapped = codec(timestamp="@record")
    message = {"sensor_id": "pump-7", "values": {"temp": 1}}
    assert decode_one(mapped, message)[1] == NOW_NS
    for time_ms in (-1, 2**62):
        reason, detail = refusal(mapped, message, times_ms=time_ms)
        assert (reason, detail.split(":")[0]) == ("timestamp", "@record")


def test_event_ids_may_be_left_to_the_position():
    """With event_id null a field of that name in the message is ignored."""
    mapped = codec(event_id=None)
    message = {"sensor_id": "pump-7", "timestamp": NOW, "values": {"temp": 1}, "event_id": 5}
    assert decode_one(mapped, message)[3] == "sensor-events-3-10"


@pytest.mark.parametrize(
    ("unit", "number"),
    [("s", NOW_MS / 1_000), ("ms", NOW_MS), ("us", NOW_MS * 1_000), ("ns", NOW_NS), ("ms", float(NOW_MS))],
)
def test_times_may_be_numbers_since_the_epoch(unit, number):
    """Seconds, milli-, micro- and nanoseconds give the same time; text is then refused."""
    for mapped in (codec(unit), codec(unit, values="payload.values")):
        message = {"sensor_id": "pump-7", "timestamp": number, "values": {"a": 1}, "payload": {"values": {"a": 1}}}
        assert decode_one(mapped, message)[1] == NOW_NS
        assert refusal(mapped, message | {"timestamp": str(number)})[0] == "schema"
        assert refusal(mapped, message | {"timestamp": True})[0] == "schema"


def test_a_wrong_unit_is_told_from_a_bad_clock():
    """Milliseconds read as seconds are out of range, and the detail names the setting."""
    message = {"sensor_id": "pump-7", "timestamp": NOW_MS, "values": {"temp": 1}}
    reason, detail = refusal(codec("s"), message)
    assert reason == "timestamp"
    assert "events.timestamp_format is s" in detail


def test_ids_may_be_integers_in_a_form_of_ones_own():
    """An integer id counts as its text; other types are refused, and the default form takes text only."""
    mapped = codec(sensor_id="device")
    message = {"device": 17, "timestamp": NOW, "values": {"temp": 1}, "event_id": 3}
    assert decode_one(mapped, message)[0::3] == ("17", "3")
    for wrong in (True, 1.5, None, {}, 10**300):
        assert refusal(mapped, message | {"device": wrong})[0] == "schema"
    assert refusal(codec(), message | {"sensor_id": 17})[0] == "schema"


def test_both_ways_of_reading_agree():
    """The same content in the default form and in a mapped one gives the same events."""
    messages = [
        {"sensor_id": "p", "timestamp": NOW, "values": {"b": 1, "a": None}, "event_id": "e1"},
        {"sensor_id": "q", "timestamp": NOW, "values": {"a": -0.0, "b": 1e-320}},
        {"sensor_id": "r", "timestamp": NOW, "values": {"c": 2**53}},
    ]
    plain, _ = codec().decode_events(raw([json.dumps(message).encode() for message in messages]))
    wrapped, dead = codec(
        sensor_id="x.sensor_id", timestamp="x.timestamp", values="x.values", event_id="x.event_id"
    ).decode_events(raw([json.dumps({"x": message}).encode() for message in messages]))
    assert dead == []
    assert rows(plain) == rows(wrapped)
    assert readings(plain) == [message["values"] for message in messages]


@pytest.mark.parametrize("value", [b'{"a": NaN}', b'{"a": 1e999}', b'{"a": ' + b"9" * 400 + b"}"])
def test_numbers_without_a_value_are_refused_in_any_form(value):
    """NaN, overflowing floats and overflowing integers are not finite."""
    mapped = codec(sensor_id="@key", timestamp="@record", values="*")
    events, (letter,) = mapped.decode_events(raw([value]))
    assert len(events) == 0
    assert (header(letter, "reason"), header(letter, "detail").split(":")[0]) == ("not_finite", "a")
