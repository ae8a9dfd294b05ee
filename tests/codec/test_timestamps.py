"""Promises of timestamps: RFC 3339 and epoch numbers are exact to the nanosecond in both directions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ad.codec.timestamps import (
    MALFORMED,
    OUT_OF_RANGE,
    UNIT_NS,
    format_rfc3339,
    format_time,
    parse_epoch,
    parse_rfc3339,
)

SECOND = 1_000_000_000
END = (2**63 - 1) // SECOND * SECOND  # first nanosecond that is not taken
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
moments = st.integers(0, END - 1) | st.integers(0, END // SECOND - 1).map(lambda seconds: seconds * SECOND)


def written(time_ns, offset_minutes, digits, separator="T", zulu="Z"):
    """Return RFC 3339 text made with datetime, and by hand for what datetime cannot hold."""
    zone = timezone(timedelta(minutes=offset_minutes))
    moment = (EPOCH + timedelta(seconds=time_ns // SECOND)).astimezone(zone)
    fraction = f".{time_ns % SECOND:09d}{'7' * max(0, digits - 9)}"[: digits + 1] if digits else ""
    sign, minutes = ("-", -offset_minutes) if offset_minutes < 0 else ("+", offset_minutes)
    offset = f"{sign}{minutes // 60:02d}:{minutes % 60:02d}" if offset_minutes else zulu
    return f"{moment:%Y-%m-%d}{separator}{moment:%H:%M:%S}{fraction}{offset}"


spelled = st.tuples(
    moments, st.just(0) | st.integers(-1439, 1439), st.integers(0, 20), st.sampled_from("Tt "), st.sampled_from("Zz")
)


@settings(deadline=None, max_examples=300)
@given(st.lists(spelled, max_size=6))
def test_rfc_3339_is_read_to_the_nanosecond(spellings):
    """Any offset and any number of digits are read, mixed in one column; digits after the ninth are dropped."""
    times = parse_rfc3339([written(*spelling) for spelling in spellings])
    kept = [10 ** max(0, 9 - digits) for _, _, digits, _, _ in spellings]
    assert times.tolist() == [time_ns // unit * unit for (time_ns, *_), unit in zip(spellings, kept, strict=True)]
    assert times.dtype == np.int64


@settings(deadline=None)
@given(st.lists(moments, max_size=6))
def test_what_is_written_is_read_back(times_ns):
    """Formatting loses nothing, and uses the 0, 3, 6 or 9 digits that are needed, for one time as for many."""
    column = np.array(times_ns, dtype=np.int64)
    texts = format_rfc3339(column)
    assert parse_rfc3339(texts).tolist() == times_ns
    assert [format_time(time_ns) for time_ns in times_ns] == texts
    for time_ns, text in zip(times_ns, texts, strict=True):
        digits = len(text.partition(".")[2].removesuffix("Z"))
        assert text.endswith("Z")
        assert digits == next(digits for digits in (0, 3, 6, 9) if time_ns % 10 ** (9 - digits) == 0)


MALFORMED_TEXTS = [
    "", "Z", "2026", "2026-11-22", "2026-11-22T01:02:03", "2026-11-22T01:02Z", "2026-11-22T01:02:03.Z",
    "2026-11-22T01:02:03,5Z", "2026-11-22T01:02:03+01", "2026-11-22T01:02:03+0100", "2026-11-22T01:02:03+24:00",
    "2026-11-22T01:02:03+01:60", "2026-11-22T01:02:03.5+01:0", "2026-11-22T01:02:03*01:00", "2026-11-22T01:02:03+01.00",
    "2026-13-22T01:02:03Z", "2026-00-22T01:02:03Z", "2026-11-31T01:02:03Z", "2026-11-00T01:02:03Z",
    "2023-02-29T01:02:03Z", "1900-02-29T01:02:03Z", "2026-11-22T24:00:00Z", "2026-11-22T01:60:03Z",
    "2026-11-22T01:02:60Z", "2026/11/22T01:02:03Z", "2026-11-22_01:02:03Z", "2026-11-22T01.02.03Z",
    "2026-11-22T01:02:03Z ", " 2026-11-22T01:02:03Z", "2026-11-22T01:02:03Z\0", "2026-11-22T01:02:03.5\0Z",
    "2026-11-22T01:02:0٣Z", "2026-11-22T01:02:03−01:00", "+026-11-22T01:02:03Z", "2026-11-22T01:02:03.12a4567Z",
    "2026-11-22T01:02:03.1234567890123a5Z", "2026-11-22T01:02:03." + "1" * 40, "2026-11-22T01:02:03ZZ", "now", "NaT",
]  # fmt: skip


@pytest.mark.parametrize("text", MALFORMED_TEXTS)
def test_other_texts_are_malformed(text):
    """What RFC 3339 does not allow is malformed, and its neighbours in the column are still read."""
    good = "2026-11-22T01:02:03.5Z"
    (alone,) = parse_rfc3339([good]).tolist()
    assert parse_rfc3339([good, text, good]).tolist() == [alone, MALFORMED, alone]


@pytest.mark.parametrize(
    "text",
    [
        "1969-12-31T23:59:59.999Z",
        "1970-01-01T00:59:59+01:00",
        "2262-04-11T23:47:16Z",
        "9999-12-31T23:59:59Z",
        "0000-01-01T00:00:00Z",
    ],
)
def test_times_beyond_the_range_say_so(text):
    """Times before 1970 and times that do not fit into 64 bits of nanoseconds are out of range."""
    assert parse_rfc3339([text]).tolist() == [OUT_OF_RANGE]


def test_leap_days_are_known():
    """The 29th of February exists in leap years only."""
    assert (parse_rfc3339(["2000-02-29T00:00:00Z", "2024-02-29T00:00:00Z"]) > 0).all()
    assert parse_rfc3339(["2100-02-29T00:00:00Z"]).tolist() == [MALFORMED]


@settings(deadline=None)
@given(
    st.sampled_from(sorted(UNIT_NS)),
    st.lists(st.integers(0, END - 1) | st.integers(-5, 10**30), max_size=5),
    st.booleans(),
)
def test_whole_epoch_numbers_are_exact(unit, numbers, with_float):
    """No integer is rounded, whatever its neighbours; what does not fit is out of range."""
    expected = [time if 0 <= time < END else OUT_OF_RANGE for time in (number * UNIT_NS[unit] for number in numbers)]
    column = [*numbers, 0.0] if with_float else numbers
    assert parse_epoch(column, unit).tolist() == expected + [0] * with_float


@settings(deadline=None)
@given(st.sampled_from(sorted(UNIT_NS)), st.integers(0, 10**15 - 1), st.integers(0, 6))
def test_epoch_numbers_with_a_fraction_mean_what_was_written(unit, figures, digits):
    """A decimal of up to 15 digits is exact to the nanosecond, although it is read as a float64."""
    written_down = Fraction(figures, 10**digits)
    exact = int(written_down * UNIT_NS[unit])
    assert parse_epoch([float(written_down)], unit).tolist() == [exact if exact < END else OUT_OF_RANGE]
