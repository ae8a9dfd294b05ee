"""Raw records -> labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
import numpy as np

from stream_ad.codec.rejection import READ_ERRORS, Rejected, Why, check_bytes, dead_letters, unreadable
from stream_ad.codec.times import MALFORMED, parse_rfc3339
from stream_ad.columns import Labels
from stream_ad.schemas import MAX_EVENT_ID, MAX_NAME

if TYPE_CHECKING:
    from stream_ad.columns import OutRecord, RawRecords

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
_EventId = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_EVENT_ID)]


class _Verdict(msgspec.Struct, gc=False):
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
        self._read = msgspec.json.Decoder(_Verdict).decode
        self._read_any = msgspec.json.Decoder().decode

    def decode(self, raw: RawRecords) -> tuple[Labels, list[OutRecord]]:
        """The valid labels, and the dead letters of all other records."""
        rejected: dict[int, Why] = {}
        verdicts: list[_Verdict] = []
        bounds: list[tuple[int, int]] = []
        for row, value in enumerate(raw.values):
            try:
                verdict = self._one(value)
                bounds.append(_interval(verdict))
                verdicts.append(verdict)
            except Rejected as rejection:
                rejected[row] = rejection.why
        rows = np.delete(np.arange(len(raw), dtype=np.int64), list(rejected))
        starts_ns, ends_ns = np.array(bounds, dtype=np.int64).reshape(-1, 2).T
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

    def _one(self, value: bytes | None) -> _Verdict:
        value = check_bytes(value, self._max_bytes)
        try:
            return self._read(value)
        except READ_ERRORS as error:
            wrong = str(error)
        try:
            self._read_any(value)  # is it broken, or JSON of another shape?
        except READ_ERRORS as error:
            raise unreadable(value, error) from None
        raise Rejected("schema", wrong)


def _interval(verdict: _Verdict) -> tuple[int, int]:
    """First and last nanosecond that the verdict is about; zeros where it is about one event."""
    if verdict.event_id is not None and verdict.start is None and verdict.end is None:
        return 0, 0
    if verdict.event_id is not None or verdict.start is None or verdict.end is None:
        raise Rejected("schema", "a label names either event_id, or start and end")
    start, end = parse_rfc3339([verdict.start, verdict.end]).tolist()
    for name, text, time_ns in (("start", verdict.start, start), ("end", verdict.end, end)):
        if time_ns < 0:
            wrong = "is no RFC 3339 time with an offset" if time_ns == MALFORMED else "lies before 1970 or after 2262"
            raise Rejected("timestamp", f"{name}: {text[:80]!r} {wrong}")
    if end < start:
        raise Rejected("schema", f"end: {verdict.end} lies before start ({verdict.start})")
    return start, end
