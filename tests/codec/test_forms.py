"""Promises of forms: the usual form of a topic's records is read faster, with the same results."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ad.codec import Codec
from stream_ad.codec.feature_layouts import Form
from stream_ad.settings import EventSettings, FieldMapping, Settings
from tests.codec.test_event_decoder import BAD
from tests.support.wire_records import event, raw

USUAL = {"temp": 71.25, "vib": 0.5, "a.b": 3.0}
OTHERS = [
    event(values=USUAL | {"vib": None}),
    event(values=dict(reversed(USUAL.items()))),
    event(values=USUAL | {"temp": 7}),
    event(values={"temp": 1.0}),
    event(values=USUAL | {"more": 1.0}),
    event(values=USUAL, event_id="own"),
    event(values=USUAL).replace(b'"vib"', b'"v\\u0069b"'),
    event(values=USUAL).replace(b'"vib": 0.5', b'"vib": 0.5, "vib": 0.75'),
    event(values=USUAL).replace(b'"vib": 0.5', b'"vib": 0.5, "temp": 9'),
    event(values=USUAL)[:-1] + b', "values": {"temp": 2, "vib": 3, "a.b": 4}}',
    event(values=USUAL)[:-1] + b', "note": {"temp": "none"}}',
    event(values=USUAL | {"temp": "71"}),
]
RECORDS = st.one_of(
    st.just(event(values=USUAL)), st.sampled_from(OTHERS), st.sampled_from([value for value, *_ in BAD][:25])
)


def told(decoded):
    """Return everything decoded from some records, in comparable form."""
    events, dead = decoded
    blocks = [(block.features, block.rows.tolist(), block.values.tobytes()) for block in events.blocks]
    columns = (events.offsets, events.record_times_ms, events.times_ns)
    return blocks, [column.tolist() for column in columns], events.sensor_ids, events.event_ids, dead


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(RECORDS, min_size=1, max_size=30), min_size=1, max_size=6), st.booleans())
def test_what_came_before_changes_nothing(polls, usual_first):
    """Whatever a decoder has read before, it decodes as a new one does: a replay may start anywhere."""
    codec = Codec(Settings())
    if usual_first:
        codec.decode_events(raw([event(values=USUAL)] * 20))
    for values in polls:
        assert told(codec.decode_events(raw(values))) == told(Codec(Settings()).decode_events(raw(values)))


def test_most_records_of_a_partition_set_its_form():
    """The usual form is that of nine tenths of the last poll's records, for each partition on its own."""
    codec, mixed = Codec(Settings()), [event(values={"temp": 1.0})] * 5 + [event(values=USUAL)] * 5
    decoder = codec._events
    for values, usual in (
        ([event(values=USUAL)] * 19 + [event(values={"temp": 1.0})], tuple(USUAL)),
        (mixed, None),
        ([event(values={"temp": 1.0})] * 3, ("temp",)),
    ):
        codec.decode_events(raw(values))
        assert list(decoder._usual.values()) == [usual]


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "new\nline", "", "grün", "a.b", "f0", "values", "日本"])
def test_any_name_of_a_feature_can_be_read(name):
    """Names that no struct can have are read without one."""
    codec = Codec(Settings())
    values = [event(values={name: number, "x": 1.0}) for number in range(5)]
    first, second = (told(codec.decode_events(raw(values))) for _ in range(2))
    assert first == second
    assert bool(name) == bool(first[0])


def test_wide_readings_have_no_form():
    """No form is used for many keys: in changing order a wide struct would be slow to fill."""
    with pytest.raises(ValueError, match="too many"):
        Form(tuple(f"feature {number}" for number in range(65)))
    codec = Codec(Settings())
    values = [event(values={f"feature {number}": number for number in range(65)})] * 3
    first, second = (codec.decode_events(raw(values))[0].blocks[0].values for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_mapping_with_other_names_has_forms_too():
    """Other names for the four fields are read as fast; other mappings are read without a form."""
    for fields in (FieldMapping(sensor_id="machine", values="data"), FieldMapping(sensor_id="@key", values="data")):
        codec = Codec(Settings(events=EventSettings(fields=fields)))
        value = event(values=USUAL).replace(b'"sensor_id"', b'"machine"').replace(b'"values"', b'"data"')
        first, second = (told(codec.decode_events(raw([value] * 4))) for _ in range(2))
        assert first == second
        assert len(first[3]) == 4
