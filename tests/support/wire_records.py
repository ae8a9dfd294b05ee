"""Raw records as a broker hands them in."""

from __future__ import annotations

import json

import numpy as np

from stream_ad.records.columns import RawRecords

NOW_MS = 1_795_309_323_500
NOW = "2026-11-22T01:02:03.5Z"


def raw(values, *, keys=None, times_ms=NOW_MS, topic="sensor-events", partition=3):
    """Records with these values; offsets rise by three, as if transaction markers stood between."""
    count = len(values)
    return RawRecords(
        topic,
        partition,
        10 + 3 * np.arange(count, dtype=np.int64),
        np.broadcast_to(np.asarray(times_ms, dtype=np.int64), (count,)).copy(),
        [b"key"] * count if keys is None else keys,
        values,
    )


def event(**parts):
    """The bytes of an event in the default form; a part given as None is left out."""
    message = {"sensor_id": "pump-7", "timestamp": NOW, "values": {"temp": 71.25, "vib": 0.5}} | parts
    return json.dumps({name: part for name, part in message.items() if part is not None}).encode()


def readings(events):
    """For each event its readings by feature, missing ones as None."""
    readings_of = [{} for _ in events.sensor_ids]
    for block in events.blocks:
        for row, values in zip(block.rows.tolist(), block.values.tolist(), strict=True):
            assert not readings_of[row]
            readings_of[row] = {
                name: None if value != value else value  # noqa: PLR0124 - NaN
                for name, value in zip(block.features, values, strict=True)
            }
    return readings_of


def rows(events):
    """The events one by one, comparable with ==."""
    return list(
        zip(
            events.offsets.tolist(),
            events.record_times_ms.tolist(),
            events.times_ns.tolist(),
            events.sensor_ids,
            events.event_ids,
            readings(events),
            strict=True,
        )
    )


def header(record, name):
    """A dead letter's header as text."""
    return dict(record.headers)[f"stream_ad.{name}"].decode()
