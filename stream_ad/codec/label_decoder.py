"""Raw records -> labels."""

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
        max_bytes: Setting ``events.max_record_bytes``, which holds for labels too.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._read = msgspec.json.Decoder(_LabelMessage).decode
        self._read_any = msgspec.json.Decoder().decode

    def decode(self, raw: RawRecords) -> tuple[Labels, list[OutRecord]]:
        """The valid labels, and the dead letters of all other records."""
        rejected: dict[int, Why] = {}
        found: dict[int, _LabelMessage] = {}
        for row, value in enumerate(raw.values):
            try:
                found[row] = self._one(value)
            except Rejected as rejection:
                rejected[row] = rejection.why
        bounds_ns = np.zeros((len(raw), 2), np.int64)
        texts = {row: (one.start or "", one.end or "") for row, one in found.items() if one.event_id is None}
        bounds_ns[list(texts)] = parse_rfc3339([text for both in texts.values() for text in both]).reshape(-1, 2)
        for row in np.flatnonzero((bounds_ns < 0).any(axis=1) | (bounds_ns[:, 1] < bounds_ns[:, 0])).tolist():
            rejected[row] = _no_interval(texts[row], bounds_ns[row].tolist())
        rows = np.delete(np.arange(len(raw), dtype=np.int64), list(rejected))
        verdicts = [found[row] for row in rows.tolist()]
        starts_ns, ends_ns = bounds_ns[rows].T
        labels = Labels(
            offsets=raw.offsets[rows],
            # The merge goes by the newest time so far; that of a rejected record counts, or its place in a poll would.
            record_times_ms=np.maximum.accumulate(raw.times_ms)[rows],
            sensor_ids=[verdict.sensor_id for verdict in verdicts],
            names=[verdict.label for verdict in verdicts],
            event_ids=[verdict.event_id for verdict in verdicts],
            starts_ns=np.ascontiguousarray(starts_ns),
            ends_ns=np.ascontiguousarray(ends_ns),
        )
        return labels, dead_letters(raw, rejected)

    def _one(self, value: bytes | None) -> _LabelMessage:
        value = check_bytes(value, self._max_bytes)
        try:
            verdict = self._read(value)
        except READ_ERRORS as error:
            wrong = str(error)
        else:
            event, bounds = verdict.event_id is not None, (verdict.start is not None) + (verdict.end is not None)
            if event == bool(bounds) or bounds == 1:
                raise Rejected("schema", "a label names either event_id, or start and end")
            return verdict
        try:
            self._read_any(value)  # is it broken, or JSON of another shape?
        except READ_ERRORS as error:
            raise unreadable(value, error) from None
        raise Rejected("schema", wrong)


def _no_interval(texts: tuple[str, str], bounds_ns: list[int]) -> Why:
    """What is wrong with start and end."""
    for name, text, time_ns in zip(("start", "end"), texts, bounds_ns, strict=True):
        if time_ns < 0:
            wrong = "is no RFC 3339 time with an offset" if time_ns == MALFORMED else "lies before 1970 or after 2262"
            return Why("timestamp", f"{name}: {text[:80]!r} {wrong}")
    start, end = texts
    return Why("schema", f"end: {end} lies before start ({start})")
