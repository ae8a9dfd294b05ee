"""Dead letters: why a record cannot be used, and what is published instead."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from stream_ad.records.columns import OutRecord
from stream_ad.records.schemas import FORMAT

if TYPE_CHECKING:
    from stream_ad.records.columns import RawRecords

MAX_DEPTH = 500
"""Levels of nested objects and lists; msgspec reads that many on any stack that is not nearly full."""

_DETAIL_CHARACTERS = 500
"""Longest text of the header with the details: a detail may quote a key of any length."""
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


class Why(NamedTuple):
    """Why a record becomes a dead letter."""

    reason: str  # one of schemas.REASONS
    detail: str  # what is wrong and where, for the person who reads dead letters


class Rejected(Exception):  # noqa: N818 -- about one record, not an error of the program
    """A record becomes a dead letter.

    Keep only ``why``: the exception itself holds references to the frames it passed through.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.why = Why(reason, detail)


def dead_letters(raw: RawRecords, rejected: dict[int, Why]) -> list[OutRecord]:
    """Return dead letters in offset order: key and value unchanged, the rest in headers.

    Args:
        raw: The records of a poll.
        rejected: Reason by index into ``raw``.
    """
    return [_dead_letter(raw, index, rejected[index]) for index in sorted(rejected)]


def _dead_letter(raw: RawRecords, index: int, why: Why) -> OutRecord:
    headers = {
        "reason": why.reason,
        "detail": why.detail[:_DETAIL_CHARACTERS],
        "topic": raw.topic,
        "partition": str(raw.partition),
        "offset": str(raw.offsets[index]),
        "format": FORMAT,
    }
    return OutRecord(
        key=raw.keys[index],
        value=raw.values[index],
        time_ms=max(0, int(raw.times_ms[index])),  # a record without a time has -1, which cannot be written
        headers=tuple((f"stream_ad.{name}", text.encode(errors="backslashreplace")) for name, text in headers.items()),
    )


def check_bytes(value: bytes | None, max_bytes: int) -> bytes:
    """Return the value itself if it may be read.

    Raises:
        Rejected: It is missing, empty, too large, not UTF-8 or nested too deeply.
    """
    if not value:
        raise Rejected("empty", "the record has no value" if value is None else "the value is empty")
    if len(value) > max_bytes:
        raise Rejected("too_large", f"{len(value)} bytes, more than events.max_record_bytes ({max_bytes})")
    try:
        value.decode()
    except UnicodeDecodeError as error:
        raise Rejected("not_utf8", f"byte {error.start}: {error.reason}") from None
    if too_deep(value):
        raise Rejected("not_json", f"nested more than {MAX_DEPTH} levels deep")
    return value


def too_deep(value: bytes) -> bool:
    """Return whether objects and lists nest deeper than MAX_DEPTH.

    The limit of the JSON reader depends on how much stack the caller has left, so a replay might reject a record
    that the original run accepted.
    """
    if len(value) <= MAX_DEPTH or value.count(b"[") + value.count(b"{") <= MAX_DEPTH:
        return False
    brackets = np.frombuffer(_STRING.sub(b"", value), np.uint8) | np.uint8(ord("[") ^ ord("{"))  # [ as {, ] as }
    depth = np.cumsum((brackets == ord("{")).astype(np.int64) - (brackets == ord("}")))
    return bool(depth.max(initial=0) > MAX_DEPTH)


def unreadable(value: bytes, error: Exception) -> Rejected:
    """Return why a UTF-8 value cannot be read as JSON, given the error of the JSON reader."""
    try:
        # The lenient reader of the standard library accepts NaN, Infinity and numbers beyond float64.
        document = json.loads(value.decode(), parse_int=float)
    except ValueError:
        return Rejected("not_json", str(error))
    path = _not_finite(document)
    if path is None:
        return Rejected("not_json", str(error))
    return Rejected("not_finite", f"{path}: not a finite number")


def _not_finite(document: Any) -> str | None:
    """Return the path of a number that is not finite, or None."""
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, float) and not math.isfinite(value):
            return path or "the message"
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        waiting.extend((f"{path}.{name}" if path else str(name), part) for name, part in inner)
    return None


READ_ERRORS = (msgspec.DecodeError, UnicodeDecodeError)
"""What msgspec raises for bytes that pass ``check_bytes`` and still cannot be read."""
