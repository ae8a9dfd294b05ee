"""Promises for arbitrary bytes: no crash, and every record is either decoded or a dead letter."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ad.codec import Codec
from stream_ad.records.columns import RawRecords
from stream_ad.records.schemas import REASONS
from stream_ad.settings import EventSettings, FieldMapping, Settings
from tests.support.mutations import mutated
from tests.support.wire_records import NOW_MS, header, readings

CODECS = {
    "default": Codec(Settings()),
    "renamed, ms": Codec(
        Settings(
            events=EventSettings(fields=FieldMapping(sensor_id="d", timestamp="t", values="v"), timestamp_format="ms")
        )
    ),
    "nested": Codec(Settings(events=EventSettings(fields=FieldMapping(sensor_id="a.b", values=("x", "a.y"))))),
    "flat": Codec(
        Settings(events=EventSettings(fields=FieldMapping(sensor_id="@key", timestamp="@record", values="*")))
    ),
}


def check(decode, records):
    """Check that every record is accounted for once; return how many were decoded."""
    decoded, dead = decode(records)
    dead_offsets = [int(header(letter, "offset")) for letter in dead]
    assert sorted([*decoded.offsets.tolist(), *dead_offsets]) == records.offsets.tolist()
    assert dead_offsets == sorted(dead_offsets)
    at = {int(offset): index for index, offset in enumerate(records.offsets)}
    for letter, offset in zip(dead, dead_offsets, strict=True):
        assert (letter.key, letter.value) == (records.keys[at[offset]], records.values[at[offset]])
        assert header(letter, "reason") in REASONS
        assert header(letter, "detail")
    return decoded


def check_events(codec, records):
    events = check(codec.decode_events, records)
    assert (np.diff(events.offsets) > 0).all()
    assert (events.times_ns >= 0).all()
    values = readings(events)
    assert len(values) == len(events) == len(events.event_ids) == len(events.times_ns)
    assert all(values), "every event is in exactly one block"
    assert all(not np.isinf(block.values).any() for block in events.blocks)
    for name in [*events.sensor_ids, *events.event_ids, *(name for features in values for name in features)]:
        name.encode()
    return len(events)


def records_of(values, keys, times_ms):
    offsets = np.arange(len(values), dtype=np.int64) * 2
    return RawRecords("t", 0, offsets, np.array(times_ms, dtype=np.int64).reshape(-1), keys, values)


@pytest.mark.parametrize("name", CODECS)
@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.none() | st.binary(max_size=60) | st.randoms(use_true_random=False).map(mutated),
            st.none() | st.binary(max_size=4),
            st.integers(-(2**63), 2**63 - 1) | st.just(NOW_MS),
        ),
        max_size=12,
    )
)
def test_any_bytes_are_decoded_or_dead_lettered(name, records):
    """Any value under any key at any record time, in any mapping, as event and as label, is accounted for."""
    values, keys, times_ms = ([*column] for column in zip(*records, strict=True)) if records else ([], [], [])
    raw = records_of(values, keys, times_ms)
    check_events(CODECS[name], raw)
    check(CODECS[name].decode_labels, raw)


@pytest.mark.parametrize("name", CODECS)
def test_ten_thousand_mutations_are_decoded_or_dead_lettered(name):
    """Mutations of valid messages, many of them still valid: nothing is lost and nothing crashes."""
    rng = random.Random(20_261_122)
    values = [mutated(rng) for _ in range(10_000)]
    raw = records_of(values, [b"p"] * len(values), [NOW_MS] * len(values))
    decoded = check_events(CODECS[name], raw)
    labels = len(check(CODECS[name].decode_labels, raw))
    assert 0 < decoded < len(values)
    assert 0 < labels < len(values)
