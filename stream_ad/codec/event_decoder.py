"""Decode raw records into events."""

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
"""Instead of a time, beside the codes of ``codec.timestamps``: too far ahead of the record time."""

_CHUNK = 256  # records checked together; larger chunks gain nothing
_CHUNK_BYTES = 4 << 20  # of larger chunks no joined copy is made, so that a poll of large records needs no second one
_KEPT_FORMS = 64  # forms with their readers kept; a stream has few
_FAILURES = 8  # records of a poll that are not of the expected form, after which it is no longer tried
_MS = 1_000_000  # nanoseconds
_LAST_MS = (2**63 - 1) // _MS


class EventDecoder:
    """Decodes the events of any shard; remembers only layouts of features, for speed.

    Args:
        settings: Uses ``events`` and ``detector.max_features``.
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
        """Return the valid events, and the dead letters of all other records."""
        rejected: dict[int, Why] = {}
        source = raw.topic, raw.partition
        form, read_form = self._form(self._usual.get(source))
        rows, messages = self._messages(raw, read_form, rejected)  # (K,) rows of raw

        times_ns = self._times(messages, raw.times_ms[rows])
        valid = times_ns >= 0
        if not valid.all():
            for index in np.flatnonzero(~valid).tolist():
                row = int(rows[index])
                rejected[row] = self._bad_time(messages[index].timestamp, int(times_ns[index]), int(raw.times_ms[row]))
            rows, times_ns, messages = rows[valid], times_ns[valid], list(compress(messages, valid.tolist()))

        blocks, refused, self._usual[source] = self._layouts.group([message.values for message in messages], form)
        if refused:
            rejected.update((int(rows[index]), why) for index, why in refused.items())
            valid = np.ones(len(rows), dtype=np.bool_)
            valid[list(refused)] = False
            rows, times_ns, messages = rows[valid], times_ns[valid], list(compress(messages, valid.tolist()))

        offsets, prefix = raw.offsets[rows], f"{raw.topic}-{raw.partition}-"
        events = Events(
            offsets=offsets,
            # The merge uses the newest time so far, of rejected records too: else results would depend on the polls.
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
        """Return the fastest reader of messages with these keys; it raises for all other and all invalid messages."""
        if order is None or self._read_fast is None:
            return None, None
        if order not in self._forms:
            if len(self._forms) >= _KEPT_FORMS:
                self._forms.clear()
            try:
                form = Form(order)
                self._forms[order] = form, self._reader(message_type(self._events, form.type))
            except ValueError:  # too many keys, or one that no struct can have
                self._forms[order] = None
        return self._forms[order] or (None, None)

    def _messages(
        self, raw: RawRecords, read_form: Any, rejected: dict[int, Why]
    ) -> tuple[NDArray[np.int64], list[Message]]:
        """Return the readable messages and their rows in ``raw`` (K,); add the others to ``rejected``.

        1. Check a chunk of values together, or each one where the chunk fails.
        2. Read each with the reader of the usual form, if there is one.
        3. Read what it refuses as a message of any form, and what that refuses by extracting the parts from the
           decoded JSON, which says what is wrong.

        Args:
            raw: The records of a poll.
            read_form: Reads messages of the usual form; None where there is none.
            rejected: Reason by row.
        """
        messages: list[Message] = []
        append, read, otherwise, failed = messages.append, self._read_fast, self._extracted, 0
        if read_form is not None:
            read, otherwise = read_form, self._read
        for start in range(0, len(raw), _CHUNK):
            if failed >= _FAILURES:  # messages no longer have this form
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
                            failed += 1  # the slower reader says what is wrong
                        else:
                            continue
                    append(otherwise(value, raw.keys[row]))
                except Rejected as rejection:
                    rejected[row] = rejection.why
        rows = np.arange(len(raw), dtype=np.int64)
        return (np.delete(rows, list(rejected)) if rejected else rows), messages

    def _pass(self, values: Sequence[bytes | None]) -> bool:
        """Return whether all values of a chunk pass ``check_bytes``, checked together."""
        try:
            sizes = list(map(len, values))  # type: ignore[arg-type]  # a missing value raises TypeError
            if min(sizes) == 0 or max(sizes) > self._events.max_record_bytes or sum(sizes) > _CHUNK_BYTES:
                return False
            # msgspec does not check the encoding of what it skips. A line feed is never part of a longer character,
            # so the joined text is valid exactly when each value is.
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
        """Return event times (K,), nanoseconds since the epoch; MALFORMED, OUT_OF_RANGE or AHEAD where invalid."""
        if self._events.fields.timestamp == RECORD:
            in_range = (record_times_ms >= 0) & (record_times_ms < _LAST_MS)
            return np.where(in_range, np.where(in_range, record_times_ms, 0) * _MS, OUT_OF_RANGE)
        stamps = [message.timestamp for message in messages]
        if self._events.timestamp_format == "rfc3339":
            times_ns = parse_rfc3339(stamps)
        else:
            times_ns = parse_epoch(stamps, self._events.timestamp_format)
        latest_ns = (np.clip(record_times_ms, 0, _LAST_MS - self._ahead_ms) + self._ahead_ms) * _MS
        # A record without a time (-1, from very old producers) gives no bound for the event's time.
        times_ns[(times_ns > latest_ns) & (record_times_ms >= 0)] = AHEAD
        return times_ns

    def _bad_time(self, stamp: object, code: int, record_time_ms: int) -> Why:
        settings = self._events
        if code == MALFORMED:
            wrong = "is not an RFC 3339 time with an offset"
        elif code == AHEAD:
            record_time = format_time(record_time_ms * _MS)
            wrong = f"is more than events.max_ahead_seconds ({settings.max_ahead_seconds:g}) after {record_time},"
            wrong += " when the record was written"
        else:
            wrong = f"is before 1970 or after 2262 (events.timestamp_format is {settings.timestamp_format})"
        return Why("timestamp", f"{settings.fields.timestamp}: {str(stamp)[:80]!r} {wrong}")
