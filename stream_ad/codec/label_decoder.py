"""Decode raw records into labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
import numpy as np

from stream_ad.codec.dead_letters import READ_ERRORS, Rejected, Why, check_bytes, dead_letters, unreadable
from stream_ad.codec.timestamps import MALFORMED, parse_rfc3339
from stream_ad.records.columns import Labels
from stream_ad.records.schemas import MAX_EVENT_ID, MAX_NAME

if TYPE_CHECKING:
    from stream_ad.records.columns import OutRecord, RawRecords

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
_EventId = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_EVENT_ID)]


class _LabelMessage(msgspec.Struct, gc=False):
    sensor_id: _Name
    label: _Name | None
    event_id: _EventId | None = None
    start: str | None = None
    end: str | None = None


class LabelDecoder:
    """Decodes the labels of any shard.

    Args:
        max_bytes: Setting ``events.max_record_bytes``, which applies to labels too.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._read = msgspec.json.Decoder(_LabelMessage).decode
        self._read_any = msgspec.json.Decoder().decode

    def decode(self, raw: RawRecords) -> tuple[Labels, list[OutRecord]]:
        """Return the valid labels, and the dead letters of all other records."""
        rejected: dict[int, Why] = {}
        messages: dict[int, _LabelMessage] = {}
        for row, value in enumerate(raw.values):
            try:
                messages[row] = self._message(value)
            except Rejected as rejection:
                rejected[row] = rejection.why
        bounds_ns = np.zeros((len(raw), 2), np.int64)
        texts = {
            row: (message.start or "", message.end or "")
            for row, message in messages.items()
            if message.event_id is None
        }
        bounds_ns[list(texts)] = parse_rfc3339([text for both in texts.values() for text in both]).reshape(-1, 2)
        for row in np.flatnonzero((bounds_ns < 0).any(axis=1) | (bounds_ns[:, 1] < bounds_ns[:, 0])).tolist():
            rejected[row] = _no_interval(texts[row], bounds_ns[row].tolist())
        rows = np.delete(np.arange(len(raw), dtype=np.int64), list(rejected))
        valid = [messages[row] for row in rows.tolist()]
        starts_ns, ends_ns = bounds_ns[rows].T
        labels = Labels(
            offsets=raw.offsets[rows],
            # The merge uses the newest time so far, of rejected records too: else results would depend on the polls.
            record_times_ms=np.maximum.accumulate(raw.times_ms)[rows],
            sensor_ids=[message.sensor_id for message in valid],
            names=[message.label for message in valid],
            event_ids=[message.event_id for message in valid],
            starts_ns=np.ascontiguousarray(starts_ns),
            ends_ns=np.ascontiguousarray(ends_ns),
        )
        return labels, dead_letters(raw, rejected)

    def _message(self, value: bytes | None) -> _LabelMessage:
        value = check_bytes(value, self._max_bytes)
        try:
            message = self._read(value)
        except READ_ERRORS as error:
            wrong = str(error)
        else:
            event, bounds = message.event_id is not None, (message.start is not None) + (message.end is not None)
            if event == bool(bounds) or bounds == 1:
                raise Rejected("schema", "a label names either event_id, or start and end")
            return message
        try:
            self._read_any(value)  # raises where the value is broken, not just JSON of another shape
        except READ_ERRORS as error:
            raise unreadable(value, error) from None
        raise Rejected("schema", wrong)


def _no_interval(texts: tuple[str, str], bounds_ns: list[int]) -> Why:
    """Return what is wrong with start and end."""
    for name, text, time_ns in zip(("start", "end"), texts, bounds_ns, strict=True):
        if time_ns < 0:
            wrong = "is not an RFC 3339 time with an offset" if time_ns == MALFORMED else "is before 1970 or after 2262"
            return Why("timestamp", f"{name}: {text[:80]!r} {wrong}")
    start, end = texts
    return Why("schema", f"end: {end} is before start ({start})")
