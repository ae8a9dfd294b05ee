"""The times of planned windows, read from the settings and from calendar files."""

from __future__ import annotations

from datetime import datetime, tzinfo
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import icalendar

from stream_ad.detector.alarms.event_times import UNREADABLE, check_properties, read_event, read_rule
from stream_ad.detector.alarms.quantities import parse_duration
from stream_ad.detector.alarms.recurrence import Times, to_ns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ad.detector.alarm_config import AlarmWindow

FILES_KEPT = 256
_NO_ZONE = "; or name the zone of all such times in the file, as in X-WR-TIMEZONE:Europe/Berlin"


def read_windows(windows: Sequence[AlarmWindow]) -> tuple[list[Times], list[str]]:
    """Read the times of windows, and calendar files that they name.

    Returns:
        The times of each window, and what is wrong with any; each problem names its window.
    """
    times, problems = [], []
    for number, window in enumerate(windows, 1):
        try:
            times.append(_read(window))
        except ValueError as error:
            problems.append(f"entry {number}: {error}")
    return times, problems


def _read(window: AlarmWindow) -> Times:
    if window.ics is not None:
        try:
            return _read_file(window.ics)
        except OSError as error:
            raise ValueError(f"ics file {window.ics} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ValueError(f"ics file {window.ics}: {error}") from error
    if window.rrule is not None and window.duration is not None:
        return read_rule(window.rrule, parse_duration(window.duration))
    return Times([(to_ns(period.start), to_ns(period.end)) for period in window.periods])


@lru_cache(FILES_KEPT)
def _read_file(path: str) -> Times:
    """Read a calendar file once in a process: shards that come later have the windows of those that came first."""
    return read_calendar(Path(path).read_bytes())


def read_calendar(content: bytes) -> Times:
    """Read the times of all events of a calendar file; cancelled ones do not count.

    Raises:
        ValueError: The content is no calendar, or an event cannot be read, has no time zone or never ends.
    """
    try:
        calendars = icalendar.Calendar.from_ical(content, multiple=True)
    except (ValueError, *UNREADABLE) as error:
        raise ValueError(f"is not an iCalendar file: {error}") from error
    if not calendars or any(calendar.name != "VCALENDAR" for calendar in calendars):
        raise ValueError("is not an iCalendar file: it has no VCALENDAR")
    times = Times()
    for calendar in calendars:
        _add_calendar(times, calendar)
    return times


def _add_calendar(times: Times, calendar: Any) -> None:
    """Add the events of a calendar; an event with a RECURRENCE-ID takes the place of an occurrence of another."""
    zone = _zone_of(calendar)
    events = calendar.walk("VEVENT")
    moved: dict[str, list[Any]] = {}
    for event in events:
        if "RECURRENCE-ID" in event:
            _checked(event)
            if event["RECURRENCE-ID"].params.get("RANGE"):
                raise ValueError(f"event {_name(event)}: RANGE=THISANDFUTURE is not supported; split the series in two")
            moved.setdefault(str(event.get("UID", "")), []).append(event["RECURRENCE-ID"])
    for event in events:
        if str(event.get("STATUS", "")).upper() == "CANCELLED":
            continue
        replaced = [] if "RECURRENCE-ID" in event else moved.get(str(event.get("UID", "")), [])
        try:
            times.add(read_event(event, zone=zone, moved=replaced))
        except ValueError as error:
            hint = _NO_ZONE if "has no time zone" in str(error) else ""
            raise ValueError(f"event {_name(event)}: {error}{hint}") from error


def _checked(event: Any) -> None:
    try:
        check_properties(event)
    except ValueError as error:
        raise ValueError(f"event {_name(event)}: {error}") from error


def _zone_of(calendar: Any) -> tzinfo | None:
    """Return the time zone of times without one, or None where the calendar names none."""
    name = calendar.get("X-WR-TIMEZONE")
    if name is None:
        return None
    try:
        return ZoneInfo(str(name))
    except (ValueError, LookupError, OSError) as error:
        raise ValueError(f"X-WR-TIMEZONE '{name}' is not a known time zone") from error


def _name(event: Any) -> str:
    """Return how to call an event in a message: its title and its start."""
    start = None if event.errors else getattr(event.get("DTSTART"), "dt", None)
    shown = start.isoformat(timespec="minutes") if isinstance(start, datetime) else start
    return " ".join(str(part) for part in (repr(str(event.get("SUMMARY", "without title"))), shown) if part)
