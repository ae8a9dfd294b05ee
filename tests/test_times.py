"""Timestamps: RFC 3339 text and nanoseconds say the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_ad.times import format_rfc3339, parse_rfc3339


@given(time_ns=st.integers(-(2**63), 2**63 - 1))
def test_round_trip(time_ns):
    """Every nanosecond that fits is written and read back exactly."""
    assert parse_rfc3339(format_rfc3339(time_ns)) == time_ns


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:00.000000001z", 1),
        ("1970-01-01 01:00:00+01:00", 0),
        ("1969-12-31T23:59:59.25Z", -750_000_000),
        ("1970-01-01T00:00:00.1234567899Z", 123_456_789),
    ],
)
def test_forms(text, time_ns):
    """All forms of RFC 3339 are read: zones, lower case, a space, any number of digits."""
    assert parse_rfc3339(text) == time_ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1970-01-01",
        "1970-01-01T00:00:00",
        "1970-01-01T00:00Z",
        "1970-02-30T00:00:00Z",
        "1970-01-01T00:00:00+99:00",
        "1600-01-01T00:00:00Z",
        "2300-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "١٩٧٠-01-01T00:00:00Z",
        "1970-01-01T00:00:00Z\n",
    ],
)
def test_refused(text):
    """What is no time with a zone, or does not fit into nanoseconds, is a ValueError."""
    with pytest.raises(ValueError, match=r"is not|lies outside"):
        parse_rfc3339(text)
