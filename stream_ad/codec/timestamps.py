"""Convert times on the wire to nanoseconds since the epoch and back, a whole column at a time.

Text is RFC 3339: ``2026-11-22T01:02:03.5Z``, with a blank or ``t`` instead of ``T``, any fraction (digits after the
ninth are dropped), and ``Z`` or an offset, which is required. Leap seconds (``:60``) do not exist in epoch time and
are refused.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MALFORMED = -1
"""Instead of a time: the text is not an RFC 3339 time with an offset."""
OUT_OF_RANGE = -2
"""Instead of a time: before 1970 or after 2262-04-11, the last day that fits into 64 bits."""

Unit = Literal["s", "ms", "us", "ns"]
UNIT_NS: dict[Unit, int] = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}

_LAST_SECOND = (2**63 - 1) // UNIT_NS["s"] - 1
_LAST_NS = _LAST_SECOND * UNIT_NS["s"] + UNIT_NS["s"] - 1
_WIDTH = len("2026-11-22T01:02:03.123456789+01:00")
_LONG_FRACTION = re.compile(r"(\.[0-9]{9})[0-9]+")
_DIGITS = [0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18]  # columns of YYYY-MM-DDTHH:MM:SS
_FRACTION = 20  # column of the first digit after the point
_SEPARATORS = ((4, b"-"), (7, b"-"), (10, b"Tt "), (13, b":"), (16, b":"))


def parse_rfc3339(texts: Sequence[str]) -> NDArray[np.int64]:
    """Return exact nanoseconds since the epoch, (N,); MALFORMED or OUT_OF_RANGE where a text is invalid."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    if lengths.max(initial=0) > _FRACTION + len("123456789Z"):
        texts = [_LONG_FRACTION.sub(r"\1", text) for text in texts]
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    columns = _columns(texts)  # (35, N) characters
    valid = (lengths >= _FRACTION) & (lengths <= _WIDTH)
    for column, allowed in _SEPARATORS:
        valid &= _is_any_of(columns[column], allowed)
    digits = columns[_DIGITS] - np.uint8(ord("0"))  # (14, N); other characters wrap to 10 or more
    valid &= (digits < 10).all(axis=0)
    high, low = digits[0::2].astype(np.int64), digits[1::2]
    century, year, month, day, hour, minute, second = high * 10 + low

    body, offset_s = _offset(columns, lengths, valid)
    nanos = _fraction(columns, body, valid)

    months = ((century * 100 + year - 1970) * 12 + month - 1).astype("datetime64[M]")
    first_day = months.astype("datetime64[D]")
    month_days = ((months + 1).astype("datetime64[D]") - first_day).astype(np.int64)
    valid &= (month >= 1) & (month <= 12) & (day >= 1) & (day <= month_days)
    valid &= (hour < 24) & (minute < 60) & (second < 60)
    seconds = ((first_day.astype(np.int64) + day - 1) * 24 + hour) * 3600 + minute * 60 + second - offset_s
    in_range = (seconds >= 0) & (seconds <= _LAST_SECOND)
    times: NDArray[np.int64] = np.where(in_range, seconds, 0) * UNIT_NS["s"] + nanos
    times[~in_range] = OUT_OF_RANGE
    times[~valid] = MALFORMED
    return times


def _columns(texts: Sequence[str]) -> NDArray[np.uint8]:
    try:
        fixed = np.array(texts, dtype=f"S{_WIDTH}")
    except UnicodeEncodeError:
        fixed = np.array([text if text.isascii() else "" for text in texts], dtype=f"S{_WIDTH}")
    return np.ascontiguousarray(fixed.view(np.uint8).reshape(len(texts), _WIDTH).T)


def _is_any_of(column: NDArray[np.uint8], allowed: bytes) -> NDArray[np.bool_]:
    matches = np.zeros(len(column), np.bool_)
    for character in allowed:
        matches |= column == character
    return matches


def _offset(
    columns: NDArray[np.uint8], lengths: NDArray[np.int64], valid: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the column (N,) where the offset begins and its seconds (N,); clear ``valid`` where there is none."""
    rows = np.arange(len(lengths))
    last = columns[np.clip(lengths - 1, 0, _WIDTH - 1), rows]
    zulu = _is_any_of(last, b"Zz")
    body = np.where(zulu, lengths - 1, lengths - 6)
    seconds = np.zeros(len(lengths), np.int64)
    rest = np.flatnonzero(valid & ~zulu)
    if len(rest):
        start = np.clip(body[rest], 0, _WIDTH - 6)
        sign, tens_h, ones_h, colon, tens_m, ones_m = (columns[start + column, rest] for column in range(6))
        figures = np.stack([tens_h, ones_h, tens_m, ones_m]) - np.uint8(ord("0"))
        hours, minutes = figures[0::2].astype(np.int64) * 10 + figures[1::2]
        valid[rest] &= (figures < 10).all(axis=0) & (hours < 24) & (minutes < 60)
        valid[rest] &= _is_any_of(sign, b"+-") & (colon == ord(":"))
        seconds[rest] = np.where(sign == ord("-"), -1, 1) * (hours * 3600 + minutes * 60)
    return body, seconds


def _fraction(columns: NDArray[np.uint8], body: NDArray[np.int64], valid: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the nanoseconds (N,) between seconds and offset; clear ``valid`` where anything else is there."""
    bare = body == _FRACTION - 1
    valid &= bare | ((body > _FRACTION) & (columns[_FRACTION - 1] == ord(".")))
    nanos = np.zeros(len(body), np.int64)
    for column in range(_FRACTION, _FRACTION + 9):
        inside = body > column
        digit = columns[column] - np.uint8(ord("0"))
        valid &= ~inside | (digit < 10)
        nanos = nanos * 10 + np.where(inside, digit, 0)
    valid &= body <= _FRACTION + 9
    return nanos


def parse_epoch(numbers: Sequence[float], unit: Unit) -> NDArray[np.int64]:
    """Return nanoseconds since the epoch, (N,), of numbers in a unit; OUT_OF_RANGE where one does not fit.

    Whole numbers are exact. A number with a fraction counts as the shortest decimal that reads as the same float64:
    as it was written, up to 15 digits.

    Args:
        numbers: Integers or finite floats, (N,).
        unit: One of UNIT_NS.
    """
    scale = UNIT_NS[unit]
    if float not in set(map(type, numbers)):
        try:
            whole = np.fromiter(numbers, np.int64, len(numbers))
        except OverflowError:
            pass
        else:
            in_range = (whole >= 0) & (whole <= _LAST_NS // scale)
            return np.where(in_range, np.where(in_range, whole, 0) * scale, OUT_OF_RANGE)
    exact = (int(Decimal(repr(number)) * scale) if type(number) is float else number * scale for number in numbers)
    return np.fromiter((ns if 0 <= ns <= _LAST_NS else OUT_OF_RANGE for ns in exact), np.int64, len(numbers))


def format_rfc3339(times_ns: NDArray[np.int64]) -> list[str]:
    """Return RFC 3339 texts in UTC with ``Z``, each with the 0, 3, 6 or 9 digits of fraction it needs.

    Args:
        times_ns: Nanoseconds since the epoch, (N,).
    """
    seconds, nanos = np.divmod(times_ns, UNIT_NS["s"])
    different, which = np.unique(seconds, return_inverse=True)  # neighbouring events often share their second
    texts, ends = np.datetime_as_string(different.astype("datetime64[s]")).tolist(), _ENDS
    return [texts[second] + ends[fraction] for second, fraction in zip(which.tolist(), nanos.tolist(), strict=True)]


def format_time(time_ns: int) -> str:
    """Return a single time as ``format_rfc3339`` does, without the cost of an array."""
    seconds, nanos = divmod(int(time_ns), UNIT_NS["s"])
    return _second(seconds) + _ENDS[nanos]


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return str(np.datetime64(seconds, "s"))


class _Ends(dict[int, str]):
    """What follows the seconds, by nanoseconds: whole milliseconds are prepared, everything else is made on demand."""

    def __missing__(self, nanos: int) -> str:
        return f".{nanos:09}Z" if nanos % UNIT_NS["us"] else f".{nanos // UNIT_NS['us']:06}Z"


_ENDS = _Ends((number * UNIT_NS["ms"], f".{number:03}Z" if number else "Z") for number in range(1000))
