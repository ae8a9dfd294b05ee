"""Pacing: event time goes as fast as told, never beyond its bounds, and stops when told."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_ad.evaluation.simulation.pacing import FULL_SPEED, Pace, parse_speed
from stream_ad.testing import ManualClock


class Patient:
    """Waits by turning the clock; told to stop at a time of that clock."""

    def __init__(self, clock, stop_at=math.inf):
        self.clock, self.stop_at = clock, stop_at

    def is_set(self):
        return self.clock() >= self.stop_at

    def wait(self, timeout):
        self.clock.advance(min(timeout, max(0.0, self.stop_at - self.clock())))
        return self.is_set()


@given(
    speed=st.floats(0.01, 1e5),
    ahead=st.just(math.inf) | st.floats(0, 1e4),
    times=st.lists(st.floats(0, 1e5), min_size=1),
)
def test_waits_exactly_so_long(speed, ahead, times):
    """After a wait that much event time has passed, and not more than had to, as exactly as the clock can say."""
    clock = ManualClock(5.0)
    pace = Pace(speed, ahead_s=ahead, stop=Patient(clock), clock=clock)
    for time in times:
        before = pace.passed_s()
        assert pace.wait_until(time)
        # The clock's own rounding, once in what it is waited for and once in what it says, is event time at this speed.
        assert pace.passed_s() == pytest.approx(max(time, before), abs=2 * speed * math.ulp(clock()))


def test_catches_up_then_keeps_step():
    """Event time gains what it may gain on the wall clock, then goes along with it."""
    clock = ManualClock()
    pace = Pace(60.0, ahead_s=590.0, stop=Patient(clock), clock=clock)
    assert pace.wait_until(600.0)
    assert clock() == 10.0
    assert pace.wait_until(605.0)
    assert clock() == 15.0


def test_full_speed_never_waits():
    """At full speed any event time has passed at once."""
    clock = ManualClock()
    pace = Pace(FULL_SPEED, stop=Patient(clock), clock=clock)
    assert pace.wait_until(1e12)
    assert clock() == 0.0


def test_limit_and_stop():
    """A wait ends at the limit of wall clock, or when told to stop, and says so."""
    clock = ManualClock()
    pace = Pace(2.0, limit_s=10.0, stop=Patient(clock), clock=clock)
    assert pace.wait_until(19.0)
    assert not pace.wait_until(21.0)
    assert clock() == 10.0
    clock = ManualClock()
    pace = Pace(2.0, stop=Patient(clock, stop_at=3.0), clock=clock)
    assert not pace.wait_until(21.0)
    assert clock() == 3.0


@pytest.mark.parametrize(("text", "speed"), [("60x", 60.0), ("0.5x", 0.5), ("10", 10.0), ("max", math.inf)])
def test_parse_speed(text, speed):
    """A speed is a number with or without x, or max."""
    assert parse_speed(text) == speed


@pytest.mark.parametrize("text", ["", "x", "0x", "-1x", "fast", "inf", "nan", "1e3x", "60 x"])
def test_parse_speed_refuses(text):
    """Anything else is refused by name."""
    with pytest.raises(ValueError, match="neither a speed"):
        parse_speed(text)
