"""Promises of planned windows: which events fall into one, and which windows are refused."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from dateutil.rrule import rrulestr
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream_ad.detector.alarm_config import AlarmsConfig, AlarmWindow
from stream_ad.detector.alarms.calendar import DAYS_KEPT, Calendar
from stream_ad.errors import SettingsError

BERLIN = ZoneInfo("Europe/Berlin")
SECOND = 1_000_000_000


def nanoseconds(*parts, zone=UTC, fold=0) -> int:
    return int(datetime(*parts, tzinfo=zone, fold=fold).timestamp()) * SECOND


def calendar(*windows) -> Calendar:
    return Calendar(AlarmsConfig.model_validate({"windows": windows}).windows)


def code(planned: Calendar, moment: int, sensor: str = "a") -> int:
    return int(planned.covers([sensor], np.array([moment]))[0])


def ics(tmp_path, *events: str, head: str = "") -> dict[str, str]:
    """Write a calendar file, and return a window of it."""
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", head]
    for event in events:
        lines += ["BEGIN:VEVENT", "SUMMARY:Stop", *event.split(), "END:VEVENT"]
    path = tmp_path / "stops.ics"
    path.write_text("\r\n".join([*filter(None, lines), "END:VCALENDAR", ""]))
    return {"ics": str(path)}


def test_no_windows():
    """Without windows every event gets 0, and the calendar is false."""
    planned = calendar()
    assert not planned
    assert planned.covers(["a", "b"], np.array([0, 1])).tolist() == [0, 0]


def test_periods_sensors_and_learning():
    """A period holds its start and not its end, for the sensors that match; learn says which code."""
    planned = calendar(
        {"sensors": "press-*", "periods": [{"start": "2026-01-05T01:00:00Z", "end": "2026-01-05T03:00:00+01:00"}]},
        {
            "sensors": "*-2",
            "learn": "no",
            "periods": [{"start": "2026-01-05T00:00:00Z", "end": "2026-01-05T01:30:00Z"}],
        },
    )
    start, end = nanoseconds(2026, 1, 5, 1), nanoseconds(2026, 1, 5, 2)
    assert planned
    assert [code(planned, moment, "press-1") for moment in (start - 1, start, end - 1, end)] == [0, 1, 1, 0]
    assert code(planned, start, "Press-1") == 0
    both = planned.covers(["press-2"] * 4, np.array([end - 1, start, start - 1, end]))
    assert both.tolist() == [1, 2, 2, 0]
    assert both.dtype == np.int8


def test_a_rule_keeps_the_time_of_the_wall_clock():
    """A window at 02:00 in Berlin is at 02:00 in winter and in summer, and lasts as long."""
    rule = "DTSTART;TZID=Europe/Berlin:20260105T020000 RRULE:FREQ=WEEKLY;BYDAY=MO"
    planned = calendar({"rrule": rule, "duration": "2 hours"})
    for month, day in ((1, 12), (7, 6)):
        start = nanoseconds(2026, month, day, 2, zone=BERLIN)
        moments = (start - 1, start, start + 7200 * SECOND - 1, start + 7200 * SECOND)
        assert [code(planned, moment) for moment in moments] == [0, 1, 1, 0]
    assert nanoseconds(2026, 7, 6, 2, zone=BERLIN) == nanoseconds(2026, 7, 6, 0)


def test_a_whole_day_ends_at_midnight_when_clocks_change():
    """A window of a day covers the 25 hours of the day on which the clock goes back, and not an hour of the next."""
    planned = calendar({"rrule": "DTSTART;TZID=Europe/Berlin:20261025T000000", "duration": "1 day"})
    start, end = nanoseconds(2026, 10, 25, zone=BERLIN), nanoseconds(2026, 10, 26, zone=BERLIN)
    assert end - start == 25 * 3600 * SECOND
    assert [code(planned, moment) for moment in (start - 1, start, end - 1, end)] == [0, 1, 1, 0]


def test_an_hourly_rule_takes_place_in_both_of_two_equal_hours():
    """When the clock goes back, a rule for each hour has a window in the hour before and in the hour after."""
    planned = calendar(
        {"rrule": "DTSTART;TZID=Europe/Berlin:20261020T001000\nRRULE:FREQ=HOURLY", "duration": "5 minutes"}
    )
    first = nanoseconds(2026, 10, 25, 0, 10, zone=BERLIN)
    assert [code(planned, first + hour * 3600 * SECOND) for hour in range(6)] == [1] * 6
    spring = nanoseconds(2027, 3, 28, 0, 10, zone=BERLIN)
    assert [code(planned, spring + hour * 3600 * SECOND) for hour in range(6)] == [1] * 6
    assert code(planned, first + 600 * SECOND) == 0


def test_a_rule_for_every_second_hour_skips_an_hour_that_the_clock_skips():
    """On the day on which the clock goes forward, a rule has no window at the time of day that there is not."""
    planned = calendar(
        {"rrule": "DTSTART;TZID=Europe/Berlin:20270327T001000 RRULE:FREQ=HOURLY;INTERVAL=2", "duration": "5 minutes"}
    )
    first = nanoseconds(2027, 3, 28, 0, 10, zone=BERLIN)
    assert [code(planned, first + hour * 3600 * SECOND) for hour in range(5)] == [1, 0, 0, 1, 0]


def test_a_night_shift_lasts_as_long_when_clocks_change():
    """A window of eight hours lasts eight hours, also on the night on which the clock goes back or forward."""
    planned = calendar({"rrule": "DTSTART;TZID=Europe/Berlin:20260101T220000 RRULE:FREQ=DAILY", "duration": "8 hours"})
    for start in (nanoseconds(2026, 10, 24, 22, zone=BERLIN), nanoseconds(2027, 3, 27, 22, zone=BERLIN)):
        moments = (start - 1, start, start + 8 * 3600 * SECOND - 1, start + 8 * 3600 * SECOND)
        assert [code(planned, moment) for moment in moments] == [0, 1, 1, 0]


def test_exceptions_and_further_dates():
    """An EXDATE takes a window away, an RDATE adds one, and UNTIL includes its day."""
    rule = (
        "DTSTART;TZID=Europe/Berlin:20260105T020000\nRRULE:FREQ=DAILY;UNTIL=20260108\n"
        "EXDATE;TZID=Europe/Berlin:20260106T020000\nRDATE;TZID=Europe/Berlin:20260120T120000\n"
    )
    planned = calendar({"rrule": rule, "duration": 3600})
    days = [day for day in range(1, 31) if code(planned, nanoseconds(2026, 1, day, 2, 30, zone=BERLIN))]
    assert days == [5, 7, 8]
    assert code(planned, nanoseconds(2026, 1, 20, 12, zone=BERLIN)) == 1


def test_a_calendar_file(tmp_path):
    """Events of a file are windows: single, repeated, whole days, without those moved or cancelled."""
    window = ics(
        tmp_path,
        "UID:1 DTSTART:20260105T020000Z DTEND:20260105T030000Z RRULE:FREQ=DAILY;COUNT=4",
        "UID:1 RECURRENCE-ID:20260106T020000Z DTSTART:20260106T100000Z DTEND:20260106T110000Z",
        "UID:1 RECURRENCE-ID:20260107T020000Z DTSTART:20260107T020000Z DTEND:20260107T030000Z STATUS:CANCELLED",
        "UID:2 DTSTART:20260201T020000Z DURATION:PT30M",
        "UID:3 DTSTART;VALUE=DATE:20260301",
        "UID:4 DTSTART:20260401T020000 DTEND:20260401T030000",
        head="X-WR-TIMEZONE:Europe/Berlin",
    )
    planned = calendar(window)
    hours = [
        (day, hour) for day in range(4, 10) for hour in range(24) if code(planned, nanoseconds(2026, 1, day, hour, 59))
    ]
    assert hours == [(5, 2), (6, 10), (8, 2)]
    assert [code(planned, nanoseconds(2026, 2, 1, 2, minute)) for minute in (0, 29, 30)] == [1, 1, 0]
    day = nanoseconds(2026, 3, 1, zone=BERLIN)
    assert [code(planned, day + hour * 3600 * SECOND) for hour in (-1, 0, 23, 24)] == [0, 1, 1, 0]
    assert code(planned, nanoseconds(2026, 4, 1, 2, 30, zone=BERLIN)) == 1


@pytest.mark.parametrize(
    ("window", "said"),
    [
        ({}, "needs one of rrule, ics and periods, and has none"),
        ({"ics": "a", "rrule": "b"}, "and has rrule and ics"),
        ({"rrule": "DTSTART:20260105T020000Z"}, "without one it would never end"),
        ({"ics": "a", "duration": 1}, "duration belongs to an rrule"),
        ({"rrule": "FREQ=DAILY", "duration": 1}, "'FREQ=DAILY' does not begin with DTSTART"),
        ({"rrule": "RRULE:FREQ=DAILY", "duration": 1}, "needs its first start"),
        (
            {"rrule": "DTSTART:20260105T020000 RRULE:FREQ=DAILY", "duration": 1},
            "DTSTART has no time zone; end it with Z",
        ),
        ({"rrule": "DTSTART;TZID=Mars/Base:20260105T020000", "duration": 1}, "'Mars/Base' is not a known time zone"),
        ({"rrule": "DTSTART:2026 RRULE:FREQ=DAILY", "duration": 1}, "DTSTART cannot be read"),
        ({"rrule": "DTSTART:20260105T020000Z RRULE:FREQ=DALY", "duration": 1}, "RRULE cannot be read"),
        ({"rrule": "DTSTART:20260105T020000Z RRULE:FREQ=SECONDLY", "duration": 1}, "FREQ=SECONDLY is too fine"),
        ({"rrule": "DTSTART:20260105T020000Z RRULE:FREQ=DAILY;COUNT=10001", "duration": 1}, "at most 10,000"),
        (
            {"rrule": "DTSTART:20260105T020000Z RRULE:FREQ=DAILY;INTERVAL=0", "duration": 1},
            "INTERVAL=0 must be 1 or more",
        ),
        ({"rrule": "DTSTART:20260105T020000Z RRULE:COUNT=3", "duration": 1}, "RRULE needs FREQ"),
        ({"rrule": "DTSTART:20260105T020000Z RRULE:FREQ=HOURLY;BYHOUR=25", "duration": 1}, "its times make no sense"),
        ({"rrule": "DTSTART:99991231T235959Z", "duration": "1 day"}, "its times make no sense"),
        ({"rrule": "DTSTART:20260105T020000Z DTSTART:20260106T020000Z", "duration": 1}, "DTSTART is given twice"),
        (
            {"rrule": "DTSTART:20260105T020000Z RRULE:FREQ=MINUTELY;UNTIL=20270101T000000Z", "duration": "1 week"},
            "more than 1,000 of its occurrences overlap",
        ),
        (
            {"rrule": "DTSTART:20260105T020000Z RRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", "duration": 1},
            "never occurs",
        ),
        ({"rrule": "DTSTART:20260105T020000Z RRULE:FREQ=DAILY", "duration": "1 day"}, "the window never ends"),
        ({"rrule": "DTSTART;TZID=Europe/Berlin:20260105T000000 RRULE:FREQ=DAILY", "duration": "1 day"}, "never ends"),
        ({"rrule": "DTSTART:20260105T020000Z RRULE:FREQ=WEEKLY;BYDAY=MO,TH", "duration": "4 days"}, "never ends"),
        ({"periods": [{"start": "2026-01-05T01:00:00", "end": "2026-01-05T02:00:00Z"}]}, "has no time zone"),
        ({"periods": [{"start": "2026-01-05T01:00:00Z", "end": "2026-01-05T01:00:00Z"}]}, "is not after the start"),
    ],
)
def test_windows_that_are_refused(window, said):
    """A window that says nothing, never begins, never ends or has no time zone is refused with what to do."""
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        AlarmWindow.model_validate(window)


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ("DTSTART:20260105T020000Z", "event 'Stop' 2026-01-05T02:00.*: it has neither an end nor a duration"),
        ("DTSTART:20260105T020000 DTEND:20260105T030000", "has no time zone.*X-WR-TIMEZONE"),
        ("DTSTART:20260105T020000Z DTEND:20260105T020000Z", "its end is not after its start"),
        ("DTSTART:20260105T020000Z DTEND:20260106T030000Z RRULE:FREQ=DAILY", "the window never ends"),
        ("DTSTART:nonsense DTEND:20260106T030000Z", "DTSTART cannot be read"),
        ("DTEND:20260106T030000Z", "DTSTART is missing"),
        ("DTSTART;VALUE=DATE:20260105 DTEND:20260106T030000Z", "is a day, the other a time"),
    ],
)
def test_events_of_a_file_that_are_refused(tmp_path, event, said):
    """An event that never ends or cannot be read is refused with setting, file and event."""
    with pytest.raises(SettingsError, match=rf"alarms.windows: entry 2: ics file .*stops.ics: .*{said}"):
        calendar({"periods": [{"start": "2026-01-05T00:00:00Z", "end": "2026-01-06T00:00:00Z"}]}, ics(tmp_path, event))


def test_files_that_cannot_be_used(tmp_path):
    """A file that is missing or no calendar is refused with its name; one without events is an empty calendar."""
    with pytest.raises(SettingsError, match=r"entry 1: ics file .*none.ics cannot be read: No such file"):
        calendar({"ics": str(tmp_path / "none.ics")})
    for content in (b"", b"hello", b"\xff\xfe", b"BEGIN:VEVENT\r\nEND:VEVENT\r\n", b"BEGIN:VCALENDAR\r\n"):
        (tmp_path / "broken.ics").write_bytes(content)
        with pytest.raises(SettingsError, match=r"broken.ics: is not an iCalendar file"):
            calendar({"ics": str(tmp_path / "broken.ics")})
    assert code(calendar(ics(tmp_path)), 0) == 0


def test_a_file_is_read_once(tmp_path):
    """A file that changes while the worker runs does not give later shards other windows than earlier ones."""
    window = ics(tmp_path, "DTSTART:20260105T020000Z DTEND:20260105T030000Z")
    moment = nanoseconds(2026, 1, 5, 2)
    assert code(calendar(window), moment) == 1
    ics(tmp_path, "DTSTART:20270105T020000Z DTEND:20270105T030000Z")
    assert code(calendar(window), moment) == 1


ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"])
FREQUENCIES = ["YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY"]


@st.composite
def rules(draw):
    """Draw the text of a rule of a few years, and the duration of its windows in seconds."""
    zone, frequency = draw(ZONES), draw(st.sampled_from(FREQUENCIES))
    begin = draw(st.datetimes(datetime(2025, 1, 1), datetime(2026, 6, 1))).replace(microsecond=0)  # noqa: DTZ001
    least = {"MINUTELY": 180, "HOURLY": 2}.get(frequency, 1)
    parts = [f"FREQ={frequency}", f"INTERVAL={draw(st.integers(least, 4 * least))}"]
    if draw(st.booleans()):
        parts.append("BYDAY=" + ",".join(draw(st.lists(st.sampled_from(["MO", "WE", "SU"]), min_size=1, unique=True))))
    if draw(st.booleans()):
        parts.append(f"UNTIL={draw(st.datetimes(datetime(2026, 1, 1), datetime(2027, 6, 1))):%Y%m%dT%H%M%SZ}")  # noqa: DTZ001
    elif draw(st.booleans()):
        parts.append(f"COUNT={draw(st.integers(1, 300))}")
    text = f"DTSTART;TZID={zone}:{begin:%Y%m%dT%H%M%S}\nRRULE:{';'.join(parts)}"
    return text, draw(st.sampled_from([60, 3599, 5400, 86_400, 3 * 86_400])), zone, begin


def naive_intervals(text, duration, zone, begin):
    """Expand a rule from its start to 2027, as RFC 5545 says, with nothing left out."""
    zone = ZoneInfo(zone)
    rule_text = text.rpartition("RRULE:")[2]
    pieces = dict(part.split("=") for part in rule_text.split(";"))
    until = pieces.pop("UNTIL", None)
    within_day = pieces["FREQ"] in {"HOURLY", "MINUTELY"}
    if until is not None:
        until = (
            datetime.strptime(until, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).astimezone(zone).replace(tzinfo=None, fold=0)
        )
    intervals = []
    for wall in rrulestr(";".join(f"{key}={value}" for key, value in pieces.items()), dtstart=begin):
        if wall > datetime(2027, 1, 10) or (until is not None and wall > until):  # noqa: DTZ001
            break
        folds = {wall.replace(tzinfo=zone, fold=fold).timestamp() for fold in ((0, 1) if within_day else (0,))}
        for stamp in sorted(folds):
            start = datetime.fromtimestamp(stamp, zone)
            if within_day and start.replace(tzinfo=None, fold=0) != wall:
                continue
            end = stamp + duration
            if duration % 86_400 == 0:
                end = (wall.replace(tzinfo=zone) if not within_day else start) + timedelta(seconds=duration)
                end = end.timestamp()
            intervals.append((int(stamp) * SECOND, int(end) * SECOND))
    return intervals


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.tuples(rules(), st.sampled_from(["*", "a*", "b"]), st.sampled_from(["apart", "no"])), min_size=1, max_size=3
    ),
    st.lists(st.integers(0, 10**9), max_size=20),
    st.randoms(use_true_random=False),
)
def test_windows_are_those_of_every_occurrence(windows, moments, random):
    """For any rules, the code of an event is that of a search through all occurrences since the first, however the
    events are ordered or cut.
    """
    listed, plain = [], []
    for (text, duration, zone, begin), pattern, learn in windows:
        window = {"sensors": pattern, "rrule": text, "duration": duration, "learn": learn}
        try:
            AlarmWindow.model_validate(window)
        except ValueError as error:
            assert "never ends" in str(error) or "never occurs" in str(error)  # noqa: PT017
            continue
        listed.append(window)
        plain.append((pattern, 2 if learn == "no" else 1, naive_intervals(text, duration, zone, begin)))
    first = nanoseconds(2025, 1, 1)
    last = nanoseconds(2027, 1, 1)
    times = [first + moment * (last - first) // 10**9 for moment in moments]
    edges = [edge + off for _, _, intervals in plain for interval in intervals for edge in interval for off in (-1, 0)]
    times += [edge for edge in random.sample(edges, min(60, len(edges))) if edge < last]
    random.shuffle(times)
    sensors = [random.choice(["a", "ab", "b", "c"]) for _ in times]
    expected = [
        max((kind for pattern, kind, intervals in plain
             if fnmatchcase(sensor, pattern) and any(start <= moment < end for start, end in intervals)), default=0)
        for sensor, moment in zip(sensors, times, strict=True)
    ]  # fmt: skip
    planned = calendar(*listed)
    assert planned.covers(sensors, np.array(times, np.int64)).tolist() == expected
    cut = len(times) // 2
    parts = [planned.covers(sensors[part], np.array(times[part], np.int64)) for part in (slice(cut), slice(cut, None))]
    assert np.concatenate(parts).tolist() == expected


@settings(deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
@example([-(2**63), 2**63 - 1, 0])
def test_any_time_has_an_answer(moments):
    """Any time that 64 bits hold is answered, also centuries from the rule's start."""
    rule = "DTSTART;TZID=Europe/Berlin:20260105T020000 RRULE:FREQ=MINUTELY;INTERVAL=7"
    planned = calendar({"rrule": rule, "duration": 60}, {"rrule": rule, "duration": 30, "learn": "no"})
    codes = planned.covers(["a"] * len(moments), np.array(moments, np.int64))
    assert set(codes.tolist()) <= {0, 1, 2}


def test_memory_is_bounded():
    """What is kept of days that were asked for does not grow beyond its bound."""
    planned = calendar({"rrule": "DTSTART:20000105T020000Z RRULE:FREQ=DAILY", "duration": 60})
    days = nanoseconds(2000, 1, 6, 2) + np.arange(DAYS_KEPT + 100) * 86_400 * SECOND
    assert planned.covers(["a"] * len(days), days).all()
    assert planned._day.cache_info().currsize == DAYS_KEPT


def test_the_time_zone_of_the_machine_does_not_count(monkeypatch):
    """Windows are the same on a machine with another time zone."""
    rule = "DTSTART;TZID=Europe/Berlin:20260105T020000 RRULE:FREQ=DAILY"
    moments = np.array([nanoseconds(2026, 7, 6, hour, 30) for hour in range(24)])
    answers = []
    try:
        for zone in ("UTC", "Pacific/Auckland"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            answers.append(calendar({"rrule": rule, "duration": 3600}).covers(["a"] * 24, moments).tolist())
    finally:
        monkeypatch.undo()
        os.environ.setdefault("TZ", "")
        time.tzset()
    assert answers[0] == answers[1]
    assert answers[0].index(1) == 0
