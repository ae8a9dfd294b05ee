"""Encode columns as records to publish, and readings or labels as records for the input topics."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import repeat
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from stream_ad.codec.timestamps import format_rfc3339, format_time
from stream_ad.records.columns import Contribution, OutRecord
from stream_ad.records.schemas import FORMAT, FORMAT_HEADER, OLD_FORMAT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from stream_ad.records.columns import Events, Scores
    from stream_ad.records.schemas import Incident

_MS = 1_000_000  # nanoseconds
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PHASES = ("warm-up", "live")  # by whether the score is live

_HEADERS = ((FORMAT_HEADER, FORMAT.encode()),)
_OLD_HEADERS = ((FORMAT_HEADER, OLD_FORMAT.encode()),)
_OLD_INCIDENT = {
    "incident_id", "sensor_id", "state", "start", "end", "events", "peak_score", "peak_event_id", "features",
}  # fmt: skip

_encode = msgspec.json.Encoder().encode


class _Score(msgspec.Struct, gc=False):
    """The layout of ``schemas.AnomalyScore``."""

    event_id: str
    sensor_id: str
    timestamp: str
    score: float
    alarm: float
    is_anomaly: bool
    incident_id: str | None
    phase: str
    contributions: tuple[Contribution, ...]
    expected: dict[str, float] | None
    model: str


class _OldScore(msgspec.Struct, gc=False):
    """The layout of the releases 0.1."""

    event_id: str
    sensor_id: str
    timestamp: str
    score: float
    is_anomaly: bool
    phase: str
    contributions: tuple[Contribution, ...]
    model: str


def encode_scores(
    events: Events, scores: Scores, model: str, *, only_anomalies: bool, old_format: bool = False
) -> list[OutRecord]:
    """Return one score message per event (or per anomaly), in order, keyed by sensor, with the event's record time.

    Args:
        events: The scored events, N of them.
        scores: Their scores, aligned with ``events`` (N,).
        model: Version of the scoring model.
        only_anomalies: Leave out the events that do not alarm.
        old_format: Write the form of the releases 0.1, in which the score of an anomaly is 1 or above.

    Raises:
        ValueError: A score, an alarm or a contribution is not finite; JSON has no such number.
    """
    anomalies = (scores.alarm >= 1) & scores.live
    for name, column in (("score", scores.score), ("alarm", scores.alarm)):
        if not np.isfinite(column).all():
            row = int(np.flatnonzero(~np.isfinite(column))[0])
            raise ValueError(f"event {events.event_ids[row]}: its {name} is {column[row]}")
    for row, contributions in scores.contributions.items():
        _require_finite(events.event_ids[row], contributions)
    chosen = np.flatnonzero(anomalies) if only_anomalies else np.arange(len(events))
    rows = chosen.tolist()
    sensor_ids = [events.sensor_ids[row] for row in rows]
    score = _old_score(scores.score, anomalies) if old_format else scores.score
    columns: dict[str, Iterable[object]] = {
        "event_id": [events.event_ids[row] for row in rows],
        "sensor_id": sensor_ids,
        "timestamp": format_rfc3339(events.times_ns[chosen]),
        "score": score[chosen].tolist(),
        "alarm": scores.alarm[chosen].tolist(),
        "is_anomaly": anomalies[chosen].tolist(),
        "incident_id": map(scores.incident_ids.get, rows),
        "phase": map(_PHASES.__getitem__, scores.live[chosen].tolist()),
        "contributions": map(scores.contributions.get, rows, repeat(())),
        "expected": map(scores.expected.get, rows),
        "model": repeat(model),
    }
    # Column by column, without a Python loop over events: two thirds of the time.
    layout = _OldScore if old_format else _Score
    messages = map(layout, *(columns[name] for name in layout.__struct_fields__))
    times_ms = np.maximum(events.record_times_ms[chosen], 0)  # a record without a time has -1
    headers = _OLD_HEADERS if old_format else _HEADERS
    records = zip(map(str.encode, sensor_ids), map(_encode, messages), times_ms.tolist(), repeat(headers), strict=False)
    return list(map(OutRecord._make, records))


def _old_score(score: NDArray[np.float64], anomalous: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return scores in the form of the releases 0.1: with score = u / (1 + u), 1 + u where anomalous.

    Args:
        score: (N,) as published today, 0 to 1.
        anomalous: (N,) of anomalies.
    """
    return np.where(anomalous, 1 / np.maximum(1 - score, np.finfo(np.float64).epsneg), score)


def _require_finite(event_id: str, contributions: tuple[Contribution, ...]) -> None:
    for contribution in contributions:
        if not all(map(math.isfinite, (contribution.value, contribution.expected, contribution.share))):
            raise ValueError(f"event {event_id}: {contribution} is not finite")


def encode_incident(incident: Incident, *, old_format: bool = False) -> OutRecord:
    """Return an incident message keyed by its sensor; its record time is that of its latest anomaly.

    Args:
        incident: The incident as it is now.
        old_format: Write the form of the releases 0.1, in which the score of an anomaly is 1 or above.
    """
    time_ms = (incident.end - _EPOCH) // timedelta(milliseconds=1)
    if old_format:
        peak = _old_score(np.array([incident.peak_score]), np.array([True]))[0]
        old = incident.model_copy(update={"peak_score": float(peak)})
        value, headers = old.model_dump_json(include=_OLD_INCIDENT), _OLD_HEADERS
    else:
        value, headers = incident.model_dump_json(), _HEADERS
    return OutRecord(incident.sensor_id.encode(), value.encode(), time_ms, headers)


def encode_event(
    sensor_id: str,
    time_ns: int,
    values: Mapping[str, float | None],
    *,
    event_id: str | None = None,
    record_time_ms: int | None = None,
) -> OutRecord:
    """Return a reading in the default form, for the events topic.

    Args:
        sensor_id: Also the record key.
        time_ns: The event's time, nanoseconds since the epoch.
        values: Readings by feature; None and NaN are missing readings.
        event_id: None leaves it out; the event is then identified by topic, partition and offset.
        record_time_ms: Milliseconds since the epoch; None is the event's time.

    Raises:
        ValueError: A reading is infinite; JSON has no such number.
    """
    readings: dict[str, float | None] = {}
    for name, value in values.items():
        if value is not None and math.isinf(value):
            raise ValueError(f"sensor {sensor_id}, {name}: {value} cannot be written as JSON")
        readings[name] = None if value is None or math.isnan(value) else float(value)
    message: dict[str, object] = {"sensor_id": sensor_id, "timestamp": format_time(time_ns), "values": readings}
    if event_id is not None:
        message["event_id"] = event_id
    return _record(sensor_id, message, time_ns // _MS if record_time_ms is None else record_time_ms)


def encode_label(
    sensor_id: str,
    label: str | None,
    *,
    record_time_ms: int,
    event_id: str | None = None,
    start_ns: int | None = None,
    end_ns: int | None = None,
) -> OutRecord:
    """Return a label in the default form, for the labels topic.

    Args:
        sensor_id: Also the record key.
        label: ``normal``, the name of an anomaly class, or None to retract.
        record_time_ms: When the label was given, milliseconds since the epoch; it orders the label among the events.
        event_id: The labelled event; None for an interval.
        start_ns: First nanosecond of the labelled interval since the epoch; None for an event.
        end_ns: Last nanosecond of the labelled interval since the epoch; None for an event.

    Raises:
        ValueError: Neither an event nor an interval was given, or both.
    """
    message: dict[str, object] = {"sensor_id": sensor_id, "label": label}
    if event_id is not None and start_ns is None and end_ns is None:
        message["event_id"] = event_id
    elif event_id is None and start_ns is not None and end_ns is not None and start_ns <= end_ns:
        message |= {"start": format_time(start_ns), "end": format_time(end_ns)}
    else:
        raise ValueError("a label names either event_id, or start_ns and a later end_ns")
    return _record(sensor_id, message, record_time_ms)


def _record(sensor_id: str, message: dict[str, object], time_ms: int) -> OutRecord:
    return OutRecord(sensor_id.encode(), _encode(message), time_ms)
