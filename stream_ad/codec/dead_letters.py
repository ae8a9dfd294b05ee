"""Records that cannot be used: why, and what is published of them."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from stream_ad.records.columns import OutRecord

if TYPE_CHECKING:
    from stream_ad.records.columns import RawRecords

MAX_DEPTH = 500
"""Levels of nested objects and lists; msgspec reads that many on any stack that is not about to overflow."""

_DETAIL_CHARACTERS = 500
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


class Why(NamedTuple):
    """Why a record goes to the dead letters."""

    reason: str  # one of schemas.REASONS
    detail: str  # what is wrong and where, for the person who reads the dead letters


class Rejected(Exception):  # noqa: N818 - a word on one record, not an error of the program
    """One record is to go to the dead letters.

    ``why`` is what to keep of it: the exception itself holds on to the frames it came through.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.why = Why(reason, detail)


def dead_letters(raw: RawRecords, rejected: dict[int, Why]) -> list[OutRecord]:
    """The rejected records, by index into ``raw``, in offset order: key and value untouched, the rest in headers."""
    return [_dead_letter(raw, index, rejected[index]) for index in sorted(rejected)]


def _dead_letter(raw: RawRecords, index: int, why: Why) -> OutRecord:
    headers = {
        "reason": why.reason,
        "detail": why.detail[:_DETAIL_CHARACTERS],
        "topic": raw.topic,
        "partition": str(raw.partition),
        "offset": str(raw.offsets[index]),
    }
    return OutRecord(
        key=raw.keys[index],
        value=raw.values[index],
        time_ms=max(0, int(raw.times_ms[index])),  # a record without a time says -1, which none may be written with
        headers=tuple((f"stream_ad.{name}", text.encode(errors="backslashreplace")) for name, text in headers.items()),
    )


def check_bytes(value: bytes | None, max_bytes: int) -> bytes:
    """The value itself.

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
    """Whether objects and lists nest deeper than MAX_DEPTH.

    Left to the JSON reader, the limit would be what the caller's stack has left, and a replay might
    judge a record otherwise than the run that it repeats.
    """
    if len(value) <= MAX_DEPTH or value.count(b"[") + value.count(b"{") <= MAX_DEPTH:
        return False
    brackets = np.frombuffer(_STRING.sub(b"", value), np.uint8) | np.uint8(ord("[") ^ ord("{"))  # [ as {, ] as }
    depth = np.cumsum((brackets == ord("{")).astype(np.int64) - (brackets == ord("}")))
    return bool(depth.max(initial=0) > MAX_DEPTH)


def unreadable(value: bytes, error: Exception) -> Rejected:
    """Why a value in UTF-8 cannot be read as JSON, given what the JSON reader said."""
    try:
        # The forgiving reader of the standard library knows NaN, Infinity and numbers beyond float64.
        document = json.loads(value.decode(), parse_int=float)
    except ValueError:
        return Rejected("not_json", str(error))
    found = _not_finite(document)
    if found is None:
        return Rejected("not_json", str(error))
    return Rejected("not_finite", f"{found}: not a finite number")


def _not_finite(document: Any) -> str | None:
    """Path of the first number that is none."""
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, float) and not math.isfinite(value):
            return path or "the message"
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        waiting.extend((f"{path}.{name}" if path else str(name), one) for name, one in inner)
    return None


READ_ERRORS = (msgspec.DecodeError, UnicodeDecodeError)
"""What msgspec raises for bytes that passed ``check_bytes`` and still cannot be read."""
