"""Promise of the wire formats: codec and pydantic models agree, except where the codec's docstring says so."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stream_ad.codec import Codec
from stream_ad.records.schemas import AnomalyScore, Label, SensorEvent
from stream_ad.settings import Settings
from tests.support.wire_records import event, header, raw, readings

CODEC = Codec(Settings())
NO_TIME = -1
"""A record without a time bounds no event's time, so that times of all centuries are compared."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
END = datetime(2262, 4, 11, 23, 47, 16, tzinfo=UTC)

two = st.integers(0, 99).map("{:02d}".format)
names = st.text(min_size=1, max_size=4) | st.sampled_from(["n" * 256, "pump-7"])
times = st.builds(
    lambda moment, separator, digits, zone: f"{moment:%Y-%m-%d}{separator}{moment:%H:%M:%S}{digits}{zone}",
    st.datetimes(datetime(1970, 1, 2), datetime(2262, 4, 10)),  # noqa: DTZ001 - the zone comes as text
    st.sampled_from("Tt "),
    st.sampled_from(["", ".5", ".000001", ".123456789", ".1234567890123"]),
    st.sampled_from(["Z", "z", "+00:00", "-23:59", "+05:30"]),
)
odd_times = st.builds(
    "{}-{}-{}{}{}:{}:{}{}{}".format,
    st.sampled_from(["2026", "1970", "1969", "2262", "2263", "0001", "9999", "02026"]),
    st.sampled_from(["01", "02", "04", "12"]) | two,
    st.sampled_from(["01", "11", "28", "29", "30", "31"]) | two,
    st.sampled_from("TT_"),
    st.sampled_from(["00", "23", "24"]) | two,
    st.sampled_from(["00", "47", "59"]) | two,
    st.sampled_from(["00", "16", "59", "60"]) | two,
    st.sampled_from(["", ".", ",5", ".5"]),
    st.sampled_from(["Z", "Z", "", "+24:00", "+0100", "+01", "\u221201:00", "Z\0", " Z"]),
)
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.integers(-(10**40), 10**40)
odd = st.one_of(
    st.none(),
    st.booleans(),
    numbers,
    st.sampled_from(["", "n" * 257, "e" * 320, "e" * 321]),
    names,
    times,
    odd_times,
    st.lists(st.integers(), max_size=2),
    st.just({}),
)
readings_on_the_wire = st.dictionaries(names, numbers | st.none(), min_size=1, max_size=4)
odd_readings = st.dictionaries(names | st.just("") | st.just("n" * 257), numbers | odd, max_size=3)


@st.composite
def messages(draw, required, optional):
    """Draw JSON texts, about half of them valid, the others with one or two faults."""
    message = {name: draw(part) for name, part in required.items()}
    message |= {name: draw(part) for name, part in optional.items() if draw(st.booleans())}
    fault = draw(st.sampled_from([None, "odd", "odd time", "missing", None, "odd readings", "no object", None]))
    name = draw(st.sampled_from(sorted(required | optional)))
    if fault == "missing":
        message.pop(name, None)
    elif fault == "odd":
        message[name] = draw(odd)
    elif fault == "odd time":
        message |= {name: draw(odd_times) for name in ("timestamp", "start", "end") if name in message}
    elif fault == "odd readings" and "values" in message:
        message["values"] = draw(odd_readings)
    message |= draw(st.dictionaries(st.just("note"), odd))
    message = dict(draw(st.permutations(list(message.items()))))
    whole = draw(odd) if fault == "no object" else message
    return json.dumps(whole, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1]))).encode()


def parsed(model, value):
    try:
        return model.model_validate_json(value)
    except ValidationError:
        return None


def in_range(*moments):
    return all(EPOCH <= moment < END for moment in moments)


def micros(moment):
    return (moment - EPOCH) // timedelta(microseconds=1)


events_on_the_wire = messages(
    {"sensor_id": names, "timestamp": times, "values": readings_on_the_wire}, {"event_id": names}
)
targets = [
    {"event_id": names},
    {"start": times.filter(lambda text: text < "2100"), "end": times.filter(lambda text: text > "2101")},
    {"start": times, "end": times},
]
labels_on_the_wire = st.sampled_from(targets).flatmap(
    lambda target: messages({"sensor_id": names, "label": names | st.none()} | target, {})
) | messages({"sensor_id": names, "label": names}, {"event_id": names | st.none(), "start": times, "end": times})


@settings(deadline=None, max_examples=400)
@given(events_on_the_wire)
def test_the_codec_takes_the_events_that_the_model_takes(value):
    """What SensorEvent accepts is decoded to equal values, what it refuses is a dead letter."""
    events, dead = CODEC.decode_events(raw([value], times_ms=NO_TIME))
    model = parsed(SensorEvent, value)
    if model is None or not in_range(model.timestamp):
        assert [letter.value for letter in dead] == [value]
        return
    assert dead == []
    assert events.sensor_ids == [model.sensor_id]
    assert events.event_ids == [model.event_id or "sensor-events-3-10"]
    assert events.times_ns[0] // 1_000 == micros(model.timestamp)
    assert readings(events) == [model.values]


@settings(deadline=None, max_examples=400)
@given(labels_on_the_wire)
def test_the_codec_takes_the_labels_that_the_model_takes(value):
    """What Label accepts is decoded to equal values, what it refuses is a dead letter."""
    labels, dead = CODEC.decode_labels(raw([value]))
    model = parsed(Label, value)
    interval = [] if model is None or model.start is None else [model.start, model.end]
    if model is None or not in_range(*interval):
        assert [letter.value for letter in dead] == [value]
        return
    assert dead == []
    assert (labels.sensor_ids, labels.names, labels.event_ids) == ([model.sensor_id], [model.label], [model.event_id])
    bounds = [int(labels.starts_ns[0]) // 1_000, int(labels.ends_ns[0]) // 1_000]
    assert bounds == ([micros(bound) for bound in interval] or [0, 0])


@pytest.mark.parametrize(
    "note", [b"1e999", b'"\xff"', b'"\\ud800"', b"1" * 400, b"[" * 150 + b"]" * 150, b'{"a": 1, "a": 2}']
)
def test_unknown_fields_are_checked_alike(note):
    """For codec and model, a field that is not read may hold any JSON, and nothing else."""
    value = event()[:-1] + b', "note": ' + note + b"}"
    _, dead = CODEC.decode_events(raw([value], times_ms=NO_TIME))
    assert (parsed(SensorEvent, value) is None) == bool(dead)


@pytest.mark.parametrize(
    "value",
    [event()[:-1] + b', "sensor_id": "other"}', event().replace(b'"vib"', b'"temp"'), event(values={"temp": -0.0})],
)
def test_of_equal_keys_the_last_counts_for_both(value):
    """Repeated keys are not an error, in a message or in its readings; the last one counts."""
    events, dead = CODEC.decode_events(raw([value], times_ms=NO_TIME))
    model = parsed(SensorEvent, value)
    assert dead == []
    assert (events.sensor_ids[0], readings(events)[0]) == (model.sensor_id, model.values)


@pytest.mark.parametrize(("note", "reason"), [(b"NaN", "not_finite"), (b"[" * 400 + b"]" * 400, None)])
def test_the_deviations_are_those_the_docstring_names(note, reason):
    """The codec refuses NaN in a field that is not read, and accepts deeper nesting than pydantic."""
    value = event()[:-1] + b', "note": ' + note + b"}"
    _, dead = CODEC.decode_events(raw([value], times_ms=NO_TIME))
    assert (parsed(SensorEvent, value) is None) != bool(dead)
    assert [header(letter, "reason") for letter in dead] == ([reason] if reason else [])


@pytest.mark.parametrize(
    "stamp", [1_700_000_000, "1700000000", "2026-11-22T01:02Z", "2026-11-22", "2026-11-22T01:02:03,5Z"]
)
def test_the_models_take_rfc_3339_and_no_looser_form(stamp):
    """Numbers, dates and other forms of ISO 8601 are refused by the models as by the codec."""
    value = event(timestamp=stamp)
    assert parsed(SensorEvent, value) is None
    assert CODEC.decode_events(raw([value], times_ms=NO_TIME))[1]


def test_a_time_built_in_python_passes_the_models():
    """Programs that build the models may pass datetime objects."""
    moment = datetime(2026, 11, 22, tzinfo=UTC)
    assert SensorEvent(sensor_id="a", timestamp=moment, values={"x": 1.0}).timestamp == moment


def test_the_longest_default_event_id_fits_the_models():
    """The default id of an event in a topic with the longest name is valid as an event's id everywhere."""
    longest = f"{'t' * 249}-{10_000}-{2**63 - 1}"
    Label(sensor_id="a", label="normal", event_id=longest)
    score = {"event_id": longest, "sensor_id": "a", "timestamp": EPOCH, "score": 0.0, "alarm": 0.0}
    AnomalyScore(**score, is_anomaly=False, phase="live", model="v1")
