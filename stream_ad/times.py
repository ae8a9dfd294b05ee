"""RFC 3339 timestamps to nanoseconds since the epoch, and back."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND_NS = 1_000_000_000
_LIMIT_NS = 2**63


def parse_rfc3339(text: str) -> int:
    """Nanoseconds since the epoch; digits beyond nanoseconds are dropped.

    Raises:
        ValueError: Says why, to be put after the text.

    >>> parse_rfc3339("2026-11-22T01:02:03.5Z")
    1795309323500000000
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError("is not an RFC 3339 time with a zone")
    date, time, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{time}{'+00:00' if zone in 'Zz' else zone}")
        seconds = (moment - _EPOCH) // timedelta(seconds=1)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"is not a time: {error}") from error
    time_ns = seconds * _SECOND_NS + int((fraction or "0")[:9].ljust(9, "0"))
    if not -_LIMIT_NS <= time_ns < _LIMIT_NS:
        raise ValueError("lies outside the years 1678 to 2261")
    return time_ns


def format_rfc3339(time_ns: int) -> str:
    """As short as it can be without losing anything, in UTC.

    >>> format_rfc3339(1795309323500000000)
    '2026-11-22T01:02:03.5Z'
    """
    seconds, rest = divmod(time_ns, _SECOND_NS)
    text = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest:09d}".rstrip("0") + "Z" if rest else text + "Z"
