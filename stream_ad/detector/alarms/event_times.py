"""The times of an event as RFC 5545 (iCalendar) writes it, from the settings or from a calendar file."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, cast

from dateutil.rrule import rrule, rrulestr
from icalendar import Event, vRecur

from stream_ad.detector.alarms.recurrence import STEPS, Exceptions, Length, Recurrence, Times, to_ns, wall_clock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MOST_COUNTED = 10_000
"""Occurrences of a rule with COUNT, which are all kept in memory."""
EXAMINED = 20_000
"""Occurrences among which an endless rule must leave a gap."""
MOST_OVERLAPPING = 1_000
"""Occurrences of a rule that may be open at the same time."""
SINGLE = ("DTSTART", "DTEND", "DURATION", "RECURRENCE-ID")
PROPERTIES = (*SINGLE, "RRULE", "RDATE", "EXDATE")
UNREADABLE = (ArithmeticError, AttributeError, LookupError, TypeError)
"""What the libraries raise, besides ValueError, where a property makes no sense."""

_LINE = re.compile(r"(DTSTART|RRULE|RDATE|EXDATE)[;:]", re.IGNORECASE)
_NO_ZONE = "has no time zone; end it with Z for UTC, or name the zone, as in DTSTART;TZID=Europe/Berlin:20260105T020000"


def read_rule(text: str, duration_ns: int) -> Times:
    """Read lines of DTSTART, RRULE, RDATE and EXDATE; on a single line, spaces separate them.

    Raises:
        ValueError: They cannot be read, have no time zone, or leave no time between their occurrences.
    """
    lines = text.split("\n") if "\n" in text.strip() else text.split()
    lines = [line.strip() for line in lines if line.strip()]
    for line in lines:
        if not _LINE.match(line):
            raise ValueError(f"'{line}' does not begin with DTSTART, RRULE, RDATE or EXDATE, as RFC 5545 writes them")
    if not any(line.upper().startswith("DTSTART") for line in lines):
        raise ValueError("the rule needs its first start, such as DTSTART;TZID=Europe/Berlin:20260105T020000")
    event = Event.from_ical("\r\n".join(["BEGIN:VEVENT", *lines, "END:VEVENT", ""]))
    return read_event(event, length=Length.of(timedelta(microseconds=duration_ns // 1000)))


def read_event(
    event: Any, *, length: Length | None = None, zone: tzinfo | None = None, moved: Iterable[Any] = ()
) -> Times:
    """Read the times of an event of a calendar.

    Args:
        event: A VEVENT of the icalendar package.
        length: How long it lasts; None takes its DTEND or DURATION.
        zone: Time zone of times that have none; None refuses them.
        moved: Values of RECURRENCE-ID: starts of occurrences that other events replace.

    Raises:
        ValueError: The event cannot be read, has no time zone, or never ends.
    """
    check_properties(event)
    try:
        return _read_event(event, length, zone, moved)
    except UNREADABLE as error:
        raise ValueError(f"its times make no sense: {error}") from error


def check_properties(event: Any) -> None:
    """Refuse an event whose times cannot be read, or are given twice.

    Raises:
        ValueError: See above.
    """
    for name, problem in event.errors:
        if name is None or name.upper() in PROPERTIES:
            raise ValueError(f"{name or 'a line'} cannot be read: {problem}")
    for name in SINGLE:
        if isinstance(event.get(name), list):
            raise ValueError(f"{name} is given twice")  # noqa: TRY004 -- the calendar is wrong, not the program


def _read_event(event: Any, length: Length | None, zone: tzinfo | None, moved: Iterable[Any]) -> Times:
    if "EXRULE" in event:
        raise ValueError("EXRULE is not supported; list the exceptions as EXDATE")
    if "DTSTART" not in event:
        raise ValueError("DTSTART is missing")
    length = length or _length(event, zone)
    first = _aware(event["DTSTART"], "DTSTART", zone)
    if length.total <= timedelta(0):
        raise ValueError("its end is not after its start")
    others = zone or first.tzinfo
    excluded = Exceptions()
    for value in (*_dates(event, "EXDATE"), *moved):
        if isinstance(value.dt, datetime):
            excluded.instants.add(to_ns(_aware(value, "EXDATE", others)))
        else:
            excluded.days.add(value.dt)
    starts = [_aware(value, "RDATE", others) for value in _dates(event, "RDATE")]
    rules = event.get("RRULE", [])
    times = Times()
    for rule in rules if isinstance(rules, list) else [rules]:
        _add_rule(times, _recurrence(rule, first, length, excluded), counted="COUNT" in rule)
    starts = starts if rules else [first, *starts]
    times.intervals += [length.interval_from(start) for start in starts if start not in excluded]
    return times


def _recurrence(value: vRecur, first: datetime, length: Length, excluded: Exceptions) -> Recurrence:
    """Return a rule in the time of the wall clock of its first start."""
    frequency, zone = str(value.get("FREQ", [""])[0]).upper(), first.tzinfo or UTC
    interval = int(value.get("INTERVAL", [1])[0])
    if not frequency:
        raise ValueError("RRULE needs FREQ, such as RRULE:FREQ=WEEKLY;BYDAY=MO")
    if frequency == "SECONDLY":
        raise ValueError("FREQ=SECONDLY is too fine for windows; use MINUTELY and a longer duration")
    if not 1 <= value.get("COUNT", [1])[0] <= MOST_COUNTED:
        raise ValueError(f"COUNT must be 1 to at most {MOST_COUNTED:,}; use UNTIL")
    if interval < 1:
        raise ValueError(f"INTERVAL={interval} must be 1 or more")
    if frequency in STEPS and length.total > MOST_OVERLAPPING * interval * STEPS[frequency]:
        raise ValueError(f"more than {MOST_OVERLAPPING:,} of its occurrences overlap; shorten them")
    until = value.get("UNTIL", [None])[0]
    if until is not None and not isinstance(until, datetime):
        until = datetime.combine(until, time.max)  # all of that day
    elif until is not None and until.tzinfo is not None:
        until = wall_clock(until, zone)
    parts: Any = vRecur({name: part for name, part in value.items() if name.upper() != "UNTIL"})
    begin = first.replace(tzinfo=None)
    rule = cast("rrule", rrulestr(parts.to_ical().decode(), dtstart=begin))
    if until is not None:
        rule = rule.replace(until=until)
    return Recurrence(rule, frequency, interval, begin, until, zone, length, excluded)


def _add_rule(times: Times, recurrence: Recurrence, *, counted: bool) -> None:
    """Keep a rule, or its occurrences if it counts them; refuse one that never begins or never ends."""
    if not list(islice(recurrence.rule, 1)):
        raise ValueError("the rule never occurs")
    if counted:
        times.intervals += [interval for wall in recurrence.rule for interval in recurrence.intervals_at(wall)]
        return
    if recurrence.until is None:
        starts = pairwise(islice(recurrence.rule, EXAMINED))
        if not any(after - before > recurrence.length.total for before, after in starts):
            raise ValueError("the window never ends: its occurrences leave no time between them; shorten them")
    times.rules.append(recurrence)


def _length(event: Any, zone: tzinfo | None) -> Length:
    if "DURATION" in event:
        return Length.of(event["DURATION"].dt)
    whole_days = not isinstance(event["DTSTART"].dt, datetime)
    if "DTEND" not in event:
        if whole_days:
            return Length(1, timedelta(0))
        raise ValueError("it has neither an end nor a duration, so it would never end; add DTEND or DURATION")
    if whole_days == isinstance(event["DTEND"].dt, datetime):
        raise ValueError("one of DTSTART and DTEND is a day, the other a time")
    if whole_days:
        return Length((event["DTEND"].dt - event["DTSTART"].dt).days, timedelta(0))
    start, end = (_aware(event[name], name, zone).astimezone(UTC) for name in ("DTSTART", "DTEND"))
    return Length.of(end - start)


def _dates(event: Any, name: str) -> Iterator[Any]:
    """Yield the values of a property that lists moments."""
    lists = event.get(name, [])
    for listed in lists if isinstance(lists, list) else [lists]:
        for value in listed.dts:
            if not isinstance(value.dt, date):
                raise ValueError(  # noqa: TRY004 -- the calendar is wrong, not the program
                    f"{name} with periods is not supported; write each as an event of its own"
                )
            yield value


def _aware(value: Any, name: str, zone: tzinfo | None) -> datetime:
    """Return the moment of a property with its time zone; a day begins at midnight."""
    moment = value.dt
    if not isinstance(moment, datetime):
        moment = datetime.combine(moment, time.min)
    if moment.tzinfo is not None:
        return moment
    if named := value.params.get("TZID"):
        raise ValueError(f"'{named}' is not a known time zone; use a name of the IANA database, such as Europe/Berlin")
    if zone is None:
        raise ValueError(f"{name} {_NO_ZONE}")
    return moment.replace(tzinfo=zone)
