"""Times that repeat: a rule of RFC 5545 (iCalendar), with its exceptions and the length of its occurrences.

A rule counts in the time of the wall clock of its zone: a window at 02:00 is at 02:00 in summer and in winter. Its
length is exact, but for whole days, which end at the same time of day.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dateutil.rrule import rrule

DAY = timedelta(days=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_NS = 2**63 - 1

STEPS = {
    "WEEKLY": timedelta(weeks=1),
    "DAILY": DAY,
    "HOURLY": timedelta(hours=1),
    "MINUTELY": timedelta(minutes=1),
}
"""Frequencies of equally long steps; the others are MONTHLY and YEARLY."""

Interval = tuple[int, int]
"""First nanosecond, and the first one after."""


@dataclass(frozen=True, slots=True)
class Length:
    """Length of an occurrence: days by the calendar, and exact time beside them."""

    days: int
    rest: timedelta

    @classmethod
    def of(cls, length: timedelta) -> Length:
        """Return whole days as days, anything else as exact time."""
        return cls(length.days, timedelta(0)) if length % DAY == timedelta(0) else cls(0, length)

    @property
    def total(self) -> timedelta:
        """Return its length where no clock changes."""
        return self.days * DAY + self.rest

    def interval_from(self, start: datetime) -> Interval:
        """Return the interval of an occurrence by its start, which has a time zone."""
        end = start + self.days * DAY if self.days else start.astimezone(UTC) + self.rest
        return to_ns(start), to_ns(end)


@dataclass(slots=True)
class Exceptions:
    """Occurrences that do not take place: by instant, or all that begin on a day."""

    instants: set[int] = field(default_factory=set)
    days: set[date] = field(default_factory=set)

    def __contains__(self, start: datetime) -> bool:
        return start.date() in self.days or to_ns(start) in self.instants


@dataclass(frozen=True, slots=True)
class Recurrence:
    """A rule in the time of a wall clock, all of whose occurrences last equally long."""

    rule: rrule
    """Its first start and its end have no zone."""
    frequency: str
    interval: int
    first: datetime
    until: datetime | None
    zone: tzinfo
    length: Length
    excluded: Exceptions

    def between(self, first_ns: int, last_ns: int) -> Iterator[Interval]:
        """Yield the occurrences that overlap a stretch of time, by their start.

        It takes about as long where the stretch is far from the first occurrence. The rule must not have COUNT.
        """
        low = from_ns(first_ns).replace(tzinfo=None) - self.length.total - 2 * DAY
        high = from_ns(last_ns).replace(tzinfo=None) + 2 * DAY
        begin = self.first
        if self.frequency in STEPS:  # leave out a whole number of steps, but not the one that begins before ``low``
            step = STEPS[self.frequency] * self.interval
            begin += max(0, (low - begin) // step - 1) * step
        for wall in self.rule.replace(dtstart=begin, until=min(high, self.until or high)):
            if wall >= low:
                for interval in self.intervals_at(wall):
                    if interval[1] > first_ns and interval[0] < last_ns:
                        yield interval

    def intervals_at(self, wall: datetime) -> list[Interval]:
        """Return the occurrence that starts when the wall clock shows a time, unless it is excluded.

        When clocks change, the clock shows a time twice, or never. Rules within a day follow it; of others the
        occurrence takes place once: the first time, or as long after midnight as on other days.
        """
        start = wall.replace(tzinfo=self.zone)
        starts = [start]
        if self.frequency in {"HOURLY", "MINUTELY"}:
            shown = {moment.astimezone(UTC): moment for moment in (start, start.replace(fold=1))}
            starts = [moment for instant, moment in shown.items() if wall_clock(instant, self.zone) == wall]
        return [self.length.interval_from(moment) for moment in starts if moment not in self.excluded]


@dataclass(slots=True)
class Times:
    """When a window is open: intervals, and rules that give more of them."""

    intervals: list[Interval] = field(default_factory=list)
    rules: list[Recurrence] = field(default_factory=list)

    def between(self, first_ns: int, last_ns: int) -> Iterator[Interval]:
        """Yield what overlaps a stretch of time, in no order."""
        for interval in self.intervals:
            if interval[1] > first_ns and interval[0] < last_ns:
                yield interval
        for rule in self.rules:
            yield from rule.between(first_ns, last_ns)

    def add(self, other: Times) -> None:
        """Add all times of another window."""
        self.intervals += other.intervals
        self.rules += other.rules


def wall_clock(moment: datetime, zone: tzinfo) -> datetime:
    """Return what the wall clock of a zone shows."""
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


def to_ns(moment: datetime) -> int:
    """Return nanoseconds since the epoch, within 64 bits."""
    return max(-LAST_NS, min(LAST_NS, (moment - EPOCH) // timedelta(microseconds=1) * 1000))


def from_ns(nanoseconds: int) -> datetime:
    """Return the moment in UTC, to the microsecond."""
    return EPOCH + timedelta(microseconds=nanoseconds // 1000)
