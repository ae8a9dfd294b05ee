"""Promises of the event decoder: valid records become columns, every other one a dead letter with its reason."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ad.codec import Codec
from stream_ad.detector.config import DetectorConfig
from stream_ad.records.schemas import REASONS
from stream_ad.settings import EventSettings, Settings
from tests.support.wire_records import NOW_MS, event, header, raw, readings, rows

GOOD = event()
NOW_NS = NOW_MS * 1_000_000

BAD = [
    (None, "empty", "no value"),
    (b"", "empty", "empty"),
    (b" ", "not_json", ""),
    (b"{", "not_json", "truncated"),
    (GOOD + b"x", "not_json", "trailing"),
    (GOOD + GOOD, "not_json", "trailing"),
    (b"\xef\xbb\xbf" + GOOD, "not_json", "byte 0"),
    (b"[" * 900_000, "not_json", "nested more than 500 levels"),
    (b'{"a":' * 180_000, "not_json", "nested more than 500 levels"),
    (event(sensor_id="\ud800"), "not_json", ""),
    (b"\xff\xfe\x00", "not_utf8", "byte 0"),
    (GOOD[:-1] + b', "note": "\xff"}', "not_utf8", "byte"),
    (GOOD[:-1] + b', "note": "\xed\xa0\x80"}', "not_utf8", "byte"),
    (GOOD[:-1] + b', "note": "\xc3"}', "not_utf8", "byte"),
    (b"x" * 1_048_577, "too_large", "1048577 bytes"),
    (b'"text"', "schema", "expected an object, got text"),
    (b"[1]", "schema", "expected an object, got a list"),
    (b"null", "schema", "expected an object, got null"),
    (event(sensor_id=None), "schema", "sensor_id: missing"),
    (event(sensor_id=7), "schema", "sensor_id: expected text, got a number"),
    (event(sensor_id=""), "schema", "sensor_id: 0 characters"),
    (event(sensor_id="p" * 257), "schema", "sensor_id: 257 characters"),
    (event(event_id=7), "schema", "event_id: expected text, got a number"),
    (event(event_id=""), "schema", "event_id: 0 characters"),
    (event(timestamp=None), "schema", "timestamp: missing"),
    (event(timestamp=1_795_309_323), "schema", "events.timestamp_format"),
    (event(values=None), "schema", "values: missing"),
    (event(values={}), "schema", "no reading"),
    (event(values=[1, 2]), "schema", "values: expected an object of readings, got a list"),
    (event(values={"temp": "71.2"}), "schema", "values.temp: expected a number or null, got text"),
    (event(values={"temp": True}), "schema", "values.temp: expected a number or null, got a boolean"),
    (event(values={"temp": {"a": 1}}), "schema", "values.temp: expected a number or null, got an object"),
    (event(values={"": 1.0}), "schema", "0 characters"),
    (event(values={"f" * 257: 1.0}), "schema", "257 characters"),
    (event(values={"temp": float("nan")}), "not_finite", "values.temp"),
    (event(values={"vib": 1.0, "temp": float("-inf")}), "not_finite", "values.temp"),
    (GOOD.replace(b"71.25", b"1e999"), "not_finite", "values.temp"),
    (GOOD.replace(b"71.25", b"9" * 400), "not_finite", "values.temp"),
    (GOOD.replace(b"71.25", b"9" * 9_000), "not_finite", "values.temp"),
    (event(values={f"f{index}": index for index in range(10_000)}), "too_many_features", "10000 features"),
    (event(timestamp="yesterday"), "timestamp", "'yesterday' is not an RFC 3339"),
    (event(timestamp="2026-11-22T01:02:03"), "timestamp", "offset"),
    (event(timestamp="2026-02-29T01:02:03Z"), "timestamp", "is not an RFC 3339"),
    (event(timestamp="1969-12-31T23:59:59Z"), "timestamp", "before 1970"),
    (event(timestamp="2262-04-11T23:47:17Z"), "timestamp", "after 2262"),
    (event(timestamp="2026-11-22T02:02:03.500000001Z"), "timestamp", "max_ahead_seconds (3600)"),
]


def decode(values, **kinds):
    return Codec(Settings()).decode_events(raw(values, **kinds))


def test_a_valid_event_becomes_a_row_of_columns():
    """Features are sorted by name, null is NaN, the time is exact to the nanosecond."""
    value = event(values={"vib": None, "temp": 71}, timestamp="2026-11-22T01:02:03.123456789Z", event_id="e1")
    events, dead = decode([value])
    assert dead == []
    assert events.offsets.tolist() == [10]
    assert events.record_times_ms.tolist() == [NOW_MS]
    assert events.times_ns.tolist() == [NOW_NS - 500_000_000 + 123_456_789]
    assert (events.sensor_ids, events.event_ids) == (["pump-7"], ["e1"])
    (block,) = events.blocks
    assert block.features == ("temp", "vib")
    assert block.values.dtype == np.float64
    np.testing.assert_array_equal(block.values, [[71.0, np.nan]])


def test_an_event_without_an_id_is_named_by_its_position():
    """The id of a nameless event is topic-partition-offset."""
    events, _ = decode([GOOD, event(event_id="own"), GOOD[:-1] + b', "event_id": null}'])
    assert events.event_ids == ["sensor-events-3-10", "own", "sensor-events-3-16"]


@pytest.mark.parametrize(("value", "reason", "detail"), BAD, ids=lambda part: repr(part)[:40])
def test_a_bad_record_is_a_dead_letter_and_affects_no_neighbour(value, reason, detail):
    """A bad record becomes a dead letter with its reason, key and value; the events around it are decoded."""
    before, after = event(event_id="before"), event(event_id="after")
    events, dead = decode([before, value, after], keys=[b"a", b"\xff\x00", None])
    assert events.event_ids == ["before", "after"]
    assert events.offsets.tolist() == [10, 16]
    (letter,) = dead
    assert (letter.key, letter.value, letter.time_ms) == (b"\xff\x00", value, NOW_MS)
    assert header(letter, "reason") == reason
    assert detail in header(letter, "detail")
    assert (header(letter, "topic"), header(letter, "partition"), header(letter, "offset")) == (
        "sensor-events",
        "3",
        "13",
    )


def test_every_reason_has_an_example():
    """The list of bad records above covers every reason of the contract."""
    assert {reason for _, reason, _ in BAD} == set(REASONS)


def test_a_detail_is_short_however_long_the_fault():
    """The header with the detail has at most 500 characters."""
    _, dead = decode([event(values={"f" * 100_000: "text"})])
    assert len(header(dead[0], "detail")) == 500


def test_records_of_ten_megabytes_are_read_when_they_are_allowed():
    """The limit is a setting: a large record is valid below it, and a nested one still harmless."""
    codec = Codec(Settings(events=EventSettings(max_record_bytes=20_000_000)))
    large = event(note="x" * 10_000_000)
    events, dead = codec.decode_events(raw([large, b"[" * 10_000_000, GOOD]))
    assert events.offsets.tolist() == [10, 16]
    assert [header(letter, "reason") for letter in dead] == ["not_json"]


@pytest.mark.parametrize("frames", [0, 300])
def test_how_deep_a_message_may_nest_does_not_depend_on_the_caller(frames):
    """500 levels pass and 501 do not, however deep the stack; brackets inside text do not count."""
    notes = [b"[" * depth + b"]" * depth for depth in (499, 500)]
    notes += [b'{"a":[' * 250 + b"]}" * 250, b"[[],{}," * 498 + b"0" + b"]" * 498, b'"' + b'[{\\"' * 600 + b'"']
    values = [GOOD[:-1] + b', "note": ' + note + b"}" for note in notes]

    def below(frames):
        return below(frames - 1) if frames else decode(values)

    events, dead = below(frames)
    assert events.offsets.tolist() == [10, 19, 22]
    assert [header(letter, "detail") for letter in dead] == ["nested more than 500 levels deep"] * 2


def test_the_number_of_features_is_bounded_by_the_setting():
    """As many features as allowed pass, one more does not."""
    codec = Codec(Settings(detector=DetectorConfig(max_features=3)))
    values = [event(values={f"f{index}": 1.0 for index in range(count)}) for count in (3, 4)]
    events, dead = codec.decode_events(raw(values))
    assert events.offsets.tolist() == [10]
    assert [header(letter, "reason") for letter in dead] == ["too_many_features"]


def test_events_with_the_same_features_share_a_block_whatever_the_order_of_their_keys():
    """There is one block per set of features, with its rows in ascending order."""
    orders = [{"a": 1, "b": 2}, {"c": 3}, {"b": 4, "a": 5}, {"a": 6, "b": 7}, {"c": 8}, {"b": 9, "a": 10}]
    events, _ = decode([event(values=values) for values in orders])
    assert [(block.features, block.rows.tolist()) for block in events.blocks] == [
        (("a", "b"), [0, 2, 3, 5]),
        (("c",), [1, 4]),
    ]
    assert readings(events) == orders


def test_more_layouts_than_are_remembered_are_read_alike():
    """Dropping cached layouts of features does not change the events."""
    values = [{f"f{index}": 1.0, "a": 2.0} for index in range(1_500)] * 2
    events, dead = decode([event(values=features) for features in values])
    assert dead == []
    assert readings(events) == values


def test_an_event_may_be_ahead_of_its_record_by_the_limit_and_no_more():
    """The limit itself passes; a record without a time gives no limit."""
    codec = Codec(Settings(events=EventSettings(max_ahead_seconds=0.5)))
    times = ["2026-11-22T01:02:04Z", "2026-11-22T01:02:04.000000001Z", "2262-04-11T00:00:00Z"]
    values = [event(timestamp=time) for time in times]
    events, _ = codec.decode_events(raw(values, times_ms=[NOW_MS, NOW_MS, -1]))
    assert events.offsets.tolist() == [10, 16]


def test_no_records_give_no_events():
    """An empty poll decodes to empty columns."""
    events, dead = decode([])
    assert (len(events), dead, events.blocks) == (0, [], ())
    assert events.times_ns.dtype == np.int64


VALID = st.builds(
    lambda sensor, readings, name, ascii_only: json.dumps(
        {"values": readings, "sensor_id": sensor, "timestamp": "2026-11-22T01:02:03Z"}
        | ({} if name is None else {"event_id": name}),
        ensure_ascii=ascii_only,
    ).encode(),
    st.text(min_size=1, max_size=5),
    st.dictionaries(
        st.sampled_from("abcdé"),
        st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
        min_size=1,
    ),
    st.none() | st.text(min_size=1, max_size=5),
    st.booleans(),
)
SPOILED = st.sampled_from([value for value, _, _ in BAD if value is None or len(value) < 1_000])
TOLERATED = st.sampled_from([GOOD[:-1] + b', "note": 1e999}', GOOD[:-1] + b', "note": [[[{}]]]}', b" " + GOOD])


@settings(deadline=None)
@given(st.lists(VALID | SPOILED | TOLERATED, max_size=8), st.data())
def test_the_fate_of_a_record_does_not_depend_on_its_neighbours(values, data):
    """Records decoded one by one, or cut anywhere, give the same events as together."""
    codec, records = Codec(Settings()), raw(values)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)))))
    together, dead = codec.decode_events(records)
    pieces = [
        codec.decode_events(records.slice(start, stop))
        for start, stop in zip([0, *cuts], [*cuts, len(values)], strict=True)
    ]
    assert [row for events, _ in pieces for row in rows(events)] == rows(together)
    assert [letter for _, letters in pieces for letter in letters] == dead


@settings(deadline=None)
@given(VALID, st.randoms(use_true_random=False))
def test_the_order_of_keys_means_nothing(value, random):
    """A message and its readings may come with their keys in any order."""
    message = json.loads(value)
    parts = [(name, shuffled(part, random)) for name, part in message.items()]
    random.shuffle(parts)
    events, _ = decode([value])
    again, _ = decode([json.dumps(dict(parts)).encode()])
    assert rows(again) == rows(events)


def shuffled(part, random):
    if not isinstance(part, dict):
        return part
    items = list(part.items())
    random.shuffle(items)
    return dict(items)


def test_a_rejected_record_still_counts_in_the_merge():
    """The newest record time so far counts even if that record is rejected, so that a cut changes no order."""
    got, rejected = Codec(Settings()).decode_events(
        raw([event(), b"broken", event()], times_ms=[NOW_MS, NOW_MS + 50, NOW_MS])
    )
    assert len(rejected) == 1
    assert got.record_times_ms.tolist() == [NOW_MS, NOW_MS + 50]
