"""Raw records -> events."""

from __future__ import annotations

from itertools import compress
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from stream_ad.codec.dead_letters import (
    MAX_DEPTH,
    READ_ERRORS,
    Rejected,
    Why,
    check_bytes,
    dead_letters,
    too_deep,
    unreadable,
)
from stream_ad.codec.feature_layouts import FeatureLayouts, Form
from stream_ad.codec.field_mapping import RECORD, Extractor, Message, message_type
from stream_ad.codec.timestamps import MALFORMED, OUT_OF_RANGE, format_time, parse_epoch, parse_rfc3339
from stream_ad.records.columns import Events

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stream_ad.records.columns import OutRecord, RawRecords
    from stream_ad.settings import Settings

AHEAD = -3
"""In the place of a time, besides those of ``times``: too far ahead of the record time."""

_CHUNK = 256  # records
_KEPT_FORMS = 64
_FAILURES = 8  # of a form in a poll's records, before it is given up for them
_CHUNK_BYTES = 4 << 20
_MS = 1_000_000  # nanoseconds
_LAST_MS = (2**63 - 1) // _MS


class EventDecoder:
    """Decodes the events of any shard; remembers nothing but layouts of features, and that for speed alone.

    Args:
        settings: ``events`` and ``detector.max_features`` are read.
    """

    def __init__(self, settings: Settings) -> None:
        self._events = settings.events
        self._ahead_ms = int(min(settings.events.max_ahead_seconds * 1000, _LAST_MS))
        self._extractor = Extractor(settings.events)
        self._layouts = FeatureLayouts(settings.detector.max_features)
        self._read_any = msgspec.json.Decoder().decode
        self._read_fast = self._reader(message_type(settings.events))
        self._forms: dict[tuple[str, ...], tuple[Form, Any] | None] = {}  # with their readers, by the order of keys
        self._usual: dict[tuple[str, int], tuple[str, ...] | None] = {}  # order of keys by topic and partition

    def decode(self, raw: RawRecords) -> tuple[Events, list[OutRecord]]:
        """The valid events, and the dead letters of all other records."""
        rejected: dict[int, Why] = {}
        place = raw.topic, raw.partition
        form, read_form = self._form(self._usual.get(place))
        rows, messages = self._messages(raw, read_form, rejected)  # (K,) rows of raw

        times_ns = self._times(messages, raw.times_ms[rows])
        valid = times_ns >= 0
        if not valid.all():
            for index in np.flatnonzero(~valid).tolist():
                row = int(rows[index])
                rejected[row] = self._bad_time(messages[index].timestamp, int(times_ns[index]), int(raw.times_ms[row]))
            rows, times_ns, messages = rows[valid], times_ns[valid], list(compress(messages, valid.tolist()))

        blocks, refused, self._usual[place] = self._layouts.group([message.values for message in messages], form)
        if refused:
            rejected.update((int(rows[index]), why) for index, why in refused.items())
            valid = np.ones(len(rows), dtype=np.bool_)
            valid[list(refused)] = False
            rows, times_ns, messages = rows[valid], times_ns[valid], list(compress(messages, valid.tolist()))

        offsets, prefix = raw.offsets[rows], f"{raw.topic}-{raw.partition}-"
        events = Events(
            offsets=offsets,
            # The merge goes by the newest time so far; that of a rejected record counts, or its place in a poll would.
            record_times_ms=np.maximum.accumulate(raw.times_ms)[rows],
            times_ns=times_ns,
            sensor_ids=[message.sensor_id for message in messages],
            event_ids=[
                message.event_id or f"{prefix}{offset}"
                for message, offset in zip(messages, offsets.tolist(), strict=True)
            ],
            blocks=blocks,
        )
        return events, dead_letters(raw, rejected)

    @staticmethod
    def _reader(kind: type | None) -> Any:
        return None if kind is None else msgspec.json.Decoder(kind).decode

    def _form(self, order: tuple[str, ...] | None) -> tuple[Form, Any] | tuple[None, None]:
        """What reads messages with these keys fastest; it raises for others, and for what is wrong anyway."""
        if order is None or self._read_fast is None:
            return None, None
        if order not in self._forms:
            if len(self._forms) >= _KEPT_FORMS:
                self._forms.clear()
            try:
                form = Form(order)
                self._forms[order] = form, self._reader(message_type(self._events, form.type))
            except ValueError:  # there are too many, or one cannot stand in a struct
                self._forms[order] = None
        return self._forms[order] or (None, None)

    def _messages(
        self, raw: RawRecords, read_form: Any, rejected: dict[int, Why]
    ) -> tuple[NDArray[np.int64], list[Message]]:
        """Readable messages and their rows in ``raw``; the others are added to ``rejected``.

        Args:
            read_form: Reads most messages, perhaps; what it refuses is read in the usual way.
        """
        messages: list[Message] = []
        append, read, otherwise, failed = messages.append, self._read_fast, self._extracted, 0
        if read_form is not None:
            read, otherwise = read_form, self._read
        for start in range(0, len(raw), _CHUNK):
            if failed >= _FAILURES:  # they do not come in this form any more
                read, otherwise = self._read_fast, self._extracted
            chunk = raw.values[start : start + _CHUNK]
            checked = self._pass(chunk)
            for row, value in enumerate(chunk, start):
                try:
                    if not checked:
                        check_bytes(value, self._events.max_record_bytes)
                    if read is not None:
                        try:
                            append(read(value))
                        except READ_ERRORS:
                            failed += 1  # what is read otherwise says what is wrong
                        else:
                            continue
                    append(otherwise(value, raw.keys[row]))
                except Rejected as rejection:
                    rejected[row] = rejection.why
        rows = np.arange(len(raw), dtype=np.int64)
        return (np.delete(rows, list(rejected)) if rejected else rows), messages

    def _pass(self, values: Sequence[bytes | None]) -> bool:
        """Whether all values of a chunk pass ``check_bytes``, found out together."""
        try:
            sizes = list(map(len, values))  # type: ignore[arg-type]  # a missing value raises TypeError
            if min(sizes) == 0 or max(sizes) > self._events.max_record_bytes or sum(sizes) > _CHUNK_BYTES:
                return False
            # msgspec skips what it does not need without a look at its encoding. A line feed is part of no
            # longer character, so the whole is valid exactly when each value is.
            together = b"\n".join(values)  # type: ignore[arg-type]
            if not together.isascii():
                together.decode()
            return max(sizes) <= MAX_DEPTH or not any(map(too_deep, values))  # type: ignore[arg-type]
        except (TypeError, UnicodeDecodeError):
            return False

    def _read(self, value: Any, key: bytes | None) -> Any:
        try:
            return self._read_fast(value)
        except READ_ERRORS:
            return self._extracted(value, key)

    def _extracted(self, value: Any, key: bytes | None) -> Message:
        try:
            document = self._read_any(value)
        except READ_ERRORS as error:
            raise unreadable(value, error) from None
        return self._extractor.extract(document, key)

    def _times(self, messages: list[Message], record_times_ms: NDArray[np.int64]) -> NDArray[np.int64]:
        """(K,) event times, nanoseconds since the epoch; MALFORMED, OUT_OF_RANGE or AHEAD where there is none."""
        if self._events.fields.timestamp == RECORD:
            in_range = (record_times_ms >= 0) & (record_times_ms < _LAST_MS)
            return np.where(in_range, np.where(in_range, record_times_ms, 0) * _MS, OUT_OF_RANGE)
        stamps = [message.timestamp for message in messages]
        if self._events.timestamp_format == "rfc3339":
            times_ns = parse_rfc3339(stamps)
        else:
            times_ns = parse_epoch(stamps, self._events.timestamp_format)
        latest_ns = (np.clip(record_times_ms, 0, _LAST_MS - self._ahead_ms) + self._ahead_ms) * _MS
        # A record without a time of its own (-1, from very old producers) says nothing about the event's.
        times_ns[(times_ns > latest_ns) & (record_times_ms >= 0)] = AHEAD
        return times_ns

    def _bad_time(self, stamp: object, code: int, record_time_ms: int) -> Why:
        settings = self._events
        if code == MALFORMED:
            wrong = "is no RFC 3339 time with an offset"
        elif code == AHEAD:
            record_time = format_time(record_time_ms * _MS)
            wrong = f"lies more than events.max_ahead_seconds ({settings.max_ahead_seconds:g}) after {record_time},"
            wrong += " when the record was written"
        else:
            wrong = f"lies before 1970 or after 2262 (events.timestamp_format is {settings.timestamp_format})"
        return Why("timestamp", f"{settings.fields.timestamp}: {str(stamp)[:80]!r} {wrong}")
