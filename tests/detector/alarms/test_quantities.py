"""Promises of quantities in settings: what a text means, and what is refused."""

import pytest

from stream_ad.detector.alarms.quantities import parse_deviation, parse_duration, parse_per

HOUR = 3_600_000_000_000


@pytest.mark.parametrize(
    ("text", "events", "nanoseconds"),
    [
        ("hour", None, HOUR),
        ("day", None, 24 * HOUR),
        ("Week", None, 168 * HOUR),
        ("3 days", None, 72 * HOUR),
        ("month", None, int(365.25 / 12 * 24 * HOUR)),
        ("1 year", None, int(365.25 * 24 * HOUR)),
        ("10000 events", 10_000, None),
        (" 10,000 events ", 10_000, None),
        ("1 event", 1, None),
    ],
)
def test_what_a_budget_is_for(text, events, nanoseconds):
    """A budget is for event time, or for a number of events of the sensor."""
    assert parse_per(text) == (events, nanoseconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "events",
        "minute",
        "0 days",
        "-1 day",
        "1.5 days",
        "0 events",
        "101 years",
        "9" * 400 + " events",
        "fortnight",
    ],
)
def test_what_a_budget_is_not_for(text):
    """Anything else is refused, with the text and what may be written."""
    with pytest.raises(ValueError, match=text[:20] or "''"):
        parse_per(text)


@pytest.mark.parametrize(
    ("value", "hours"),
    [(7200, 2), ("2 hours", 2), ("90 minutes", 1.5), ("1.5h our", None), ("1 day", 24), (0.5, 0.5 / 3600)],
)
def test_durations(value, hours):
    """A duration is a number of seconds, or a number with a unit."""
    if hours is None:
        with pytest.raises(ValueError, match="no duration; write seconds"):
            parse_duration(value)
    else:
        assert parse_duration(value) == round(hours * HOUR)


@pytest.mark.parametrize("value", [0, -1, float("nan"), 1e12, "2 months", "soon", [1]])
def test_durations_that_are_refused(value):
    """A duration that is not positive, longer than a century, or not a duration is refused."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration(value)


def test_deviations():
    """A deviation is a number in the unit of the feature, or a percentage of the expected value."""
    assert parse_deviation(2) == parse_deviation("2") == (2.0, 0.0)
    assert parse_deviation("5 %") == parse_deviation("5%") == (0.0, 0.05)
    for wrong in ("5 percent", -1, "nan", float("inf"), [1], "-5 %"):
        with pytest.raises(ValueError, match="is no deviation"):
            parse_deviation(wrong)
