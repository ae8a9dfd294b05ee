"""Quantities in settings that people write as text: "week", "10000 events", "2 hours", "5 %"."""

from __future__ import annotations

import re
from typing import NamedTuple

SECONDS = {
    "second": 1.0,
    "minute": 60.0,
    "hour": 3600.0,
    "day": 86_400.0,
    "week": 7 * 86_400.0,
    "month": 365.25 / 12 * 86_400.0,
    "year": 365.25 * 86_400.0,
}
"""A month is a twelfth of a year of 365.25 days."""
LONGEST_S = 100 * SECONDS["year"]
"""A hundred years: in nanoseconds this still fits into 64 bits when added to any event time."""
MOST_EVENTS = 10**12

_COUNTED = re.compile(r"(?:([0-9][0-9,_]*)\s+)?([a-z]+?)s?", re.IGNORECASE)
_LENGTH = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]+?)s?", re.IGNORECASE)
_SHARE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*%")
_PER = "write hour, day, week, month or year, a number of them such as '3 days', or a number of events: '10000 events'"
_DURATION = "write seconds, or a text such as '90 minutes', '2 hours' or '1 day'"
_DEVIATION = "write a number in the unit of the feature, or a share of the expected value such as '5 %'"


class Per(NamedTuple):
    """What a budget is for: so many events, or so many nanoseconds; the other is None."""

    events: int | None
    nanoseconds: int | None


def parse_per(text: str) -> Per:
    """Return what a budget is for.

    Raises:
        ValueError: The text is none of "hour", "day", "week", "month", "year", "3 days", "10000 events".
    """
    match = _COUNTED.fullmatch(text.strip())
    count, unit = (match[1], match[2].lower()) if match else (None, "")
    number = 1 if count is None else float(re.sub("[,_]", "", count))
    if unit == "event" and count is not None:
        if not 1 <= number <= MOST_EVENTS:
            raise ValueError(f"'{text}' must be 1 to {MOST_EVENTS:,} events")
        return Per(int(number), None)
    if unit not in SECONDS or unit in {"second", "minute"}:
        raise ValueError(f"'{text}' is no period; {_PER}")
    if not 0 < number * SECONDS[unit] <= LONGEST_S:
        raise ValueError(f"'{text}' must be longer than nothing and at most 100 years")
    return Per(None, int(number * SECONDS[unit]) * 1_000_000_000)


def parse_duration(value: float | str) -> int:
    """Return the nanoseconds of a duration: a number of seconds, or a text such as "2 hours".

    Raises:
        ValueError: It is neither, is not positive or exceeds 100 years.
    """
    if isinstance(value, str):
        match = _LENGTH.fullmatch(value.strip())
        if match is None or match[2].lower() not in SECONDS.keys() - {"month", "year"}:
            raise ValueError(f"'{value}' is no duration; {_DURATION}")
        seconds = float(match[1]) * SECONDS[match[2].lower()]
    else:
        seconds = float(value) if isinstance(value, int | float) else 0.0
    if not 1e-3 <= seconds <= LONGEST_S:
        raise ValueError(f"the duration {value} must be at least a millisecond and at most 100 years")
    return round(seconds * 1_000_000) * 1_000


def parse_deviation(value: float | str) -> tuple[float, float]:
    """Return the least deviation in the unit of the feature, and as a share of the expected value; one of them is 0.

    Raises:
        ValueError: The value is neither a number, 0 or above, nor a percentage.
    """
    if isinstance(value, str) and (match := _SHARE.fullmatch(value.strip())):
        return 0.0, float(match[1]) / 100
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = -1.0
    if not 0 <= number < float("inf"):
        raise ValueError(f"{value!r} is no deviation; {_DEVIATION}")
    return number, 0.0
