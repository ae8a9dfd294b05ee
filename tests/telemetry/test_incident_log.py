"""Promises of the log lines about incidents."""

from __future__ import annotations

import io
import json
import logging

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from stream_ad.settings import LogSettings, Settings
from stream_ad.telemetry.incident_log import LINES, SECONDS, IncidentLog
from stream_ad.telemetry.logging import configure_logging
from stream_ad.testing import ManualClock
from tests.support.incidents import CLOSED, OPENED, WORSE, incident


def test_an_incident_is_a_line_when_it_opens_gets_worse_and_closes():
    """The first line says what deviates from what is expected, the last one why it closed, how long it lasted, its
    alarming events and its peak.
    """
    with capture_logs() as logs:
        IncidentLog(ManualClock()).add([OPENED, WORSE, CLOSED])
    common = {
        "sensor": "press-1", "kind": "sustained", "since": "2026-11-30T01:03:51.926503Z", "incident": "press-1/7",
        "log_level": "info",
    }  # fmt: skip
    assert logs == [
        common | {"event": "incident opened", "severity": "minor", "feature": "vibration", "value": 3.557,
                  "expected": 1.133},
        common | {"event": "incident got worse", "severity": "major", "events": 70, "peak_alarm": 1.23},
        common | {"event": "incident closed", "severity": "minor", "events": 80, "peak_alarm": 2.5, "reason": "over",
                  "lasted_s": 540.0},
    ]  # fmt: skip


@pytest.fixture
def _restored():
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before
    structlog.reset_defaults()


@pytest.mark.usefixtures("_restored")
def test_both_formats_have_every_line():
    """Neither format holds back equal lines, as it does with warnings, and a name cannot command the terminal."""
    for form in ("json", "console"):
        stream = io.StringIO()
        configure_logging(Settings(logs=LogSettings(format=form)), stream=stream)
        IncidentLog(ManualClock()).add([OPENED, OPENED, incident(sensor_id="a\x1b[2Jb")])
        lines = stream.getvalue().splitlines()
        assert len(lines) == 3
        assert "\x1b" not in stream.getvalue()
        if form == "json":
            assert json.loads(lines[0]).items() >= {"event": "incident opened", "value": 3.557}.items()
        else:
            assert "value=3.557" in lines[0]


def test_a_flood_is_counted():
    """In a minute at most 60 lines are logged; a minute after the first that is not, one line says how many were left
    out, without waiting for a further incident.
    """
    clock, dropped = ManualClock(), []
    log = IncidentLog(clock, on_drop=dropped.append)
    with capture_logs() as logs:
        log.add([OPENED] * (LINES + 7))
        clock.advance(SECONDS / 2)
        log.tell_left_out()
        log.add([CLOSED] * 3)
        assert len(logs) == LINES == 60
        clock.advance(SECONDS / 2)
        log.tell_left_out()
        log.tell_left_out()
        assert [(line["event"], line["number"]) for line in logs[LINES:]] == [("changes of incidents left out", 10)]
        log.add([CLOSED] * LINES)
    assert [line["event"] for line in logs[LINES + 1 :]] == ["incident closed"] * LINES
    assert dropped == [10]


def test_the_end_does_not_wait_for_the_minute():
    """A worker that ends says at once how many lines were left out; where none were, it says nothing."""
    log = IncidentLog(ManualClock())
    with capture_logs() as logs:
        log.add([OPENED] * LINES)
        log.tell_left_out(force=True)
        assert len(logs) == LINES
        log.add([OPENED] * 3)
        log.tell_left_out(force=True)
    assert logs[-1]["number"] == 3


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 40)), max_size=30))
def test_every_change_is_logged_or_counted(bursts):
    """However changes come, no minute has more than 60 lines of them, and those not logged are counted."""
    clock, times = ManualClock(), []
    log = IncidentLog(clock)
    with capture_logs() as logs:
        for number, pause in bursts:
            before = sum(line["event"] == "incident opened" for line in logs)
            log.add([OPENED] * number)
            times += [clock()] * (sum(line["event"] == "incident opened" for line in logs) - before)
            clock.advance(pause)
            log.tell_left_out()
        log.tell_left_out(force=True)
    assert len(times) + sum(line.get("number", 0) for line in logs) == sum(number for number, _ in bursts)
    windows = [[time for time in times if start <= time < start + SECONDS] for start in times]
    assert max(map(len, windows), default=0) <= LINES
