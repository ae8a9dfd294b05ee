"""Late labels: which rows get one, and when."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ad.evaluation.backtest.label_schedule import Delay, Protocol, Schedule, due_after, parse_delay
from stream_ad.evaluation.backtest.stream import Stream
from tests.support.recordings import START_NS, recording

HOUR_NS = 3_600_000_000_000


def stream(labels, **more):
    return Stream([recording(labels, **more)], warmup=0, default_warmup=0)


@pytest.mark.parametrize(
    ("text", "delay", "shown"),
    [
        ("500", Delay(500), "500 events"),
        ("0", Delay(0), "0 events"),
        ("2h", Delay(0, 2 * HOUR_NS), "2 h"),
        ("90 s", Delay(0, HOUR_NS // 40), "90 s"),
        ("1.5d", Delay(0, 36 * HOUR_NS), "36 h"),
        ("30m", Delay(0, HOUR_NS // 2), "30 min"),
    ],
)
def test_delays_are_read_and_shown(text, delay, shown):
    """A delay is a number of events or a duration, and is shown as one."""
    assert parse_delay(text) == delay
    assert str(delay) == shown


@pytest.mark.parametrize("text", ["", "h", "-1", "1.5", "2 weeks", "1e3", "٣"])
def test_other_delays_are_refused(text):
    """What is neither is refused."""
    with pytest.raises(ValueError, match="neither"):
        parse_delay(text)


def test_delay_in_events_counts_those_of_the_sensor():
    """A label comes after so many more rows of the same sensor, whatever others do in between."""
    sensor = np.array([0, 1, 1, 1, 0, 0, 1])
    assert due_after(sensor, np.zeros(7, np.int64), Delay(2)).tolist() == [5, 3, 6, 7, 7, 7, 7]


def test_delay_in_time_follows_the_clock_of_the_sensor():
    """A label comes after the first row of the sensor that is so much later, and never before its own row."""
    times = np.array([0, 10, 20, 5, 30, 31]) * 1_000_000_000
    assert due_after(np.zeros(6, np.int64), times, Delay(0, 20_000_000_000)).tolist() == [2, 4, 6, 4, 6, 6]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 20)), min_size=1, max_size=40),
    st.integers(0, 6) | st.integers(0, 30).map(lambda seconds: -seconds),
)
def test_no_label_comes_before_its_row_or_from_another_sensor(rows, delay):
    """Every due row belongs to the same sensor and is the row itself or a later one."""
    sensor, seconds = np.array(rows, np.int64).T
    wait = Delay(delay) if delay >= 0 else Delay(0, -delay * 1_000_000_000)
    for row, due in enumerate(due_after(sensor, seconds * 1_000_000_000, wait).tolist()):
        assert due == len(rows) or (due >= row and sensor[due] == sensor[row])


def test_labels_on_rows():
    """Each labelled row gets a single label, between the row that makes it due and the next one."""
    labels = ["normal", None, "leak", "normal", "normal"]
    schedule = Schedule(stream(labels), Protocol(delay=Delay(1)))
    assert schedule.after.tolist() == [1, 3, 4]  # that on the last row never comes
    labels_due = schedule.labels(0, 5)
    assert labels_due.event_ids == ["tiny-1", "tiny-3", "tiny-4"]
    assert labels_due.names == ["normal", "leak", "normal"]
    events = stream(labels).events(0, 5)
    for record_time, after in zip(labels_due.record_times_ms, schedule.after, strict=True):
        assert events.record_times_ms[after] < record_time
        assert after == 4 or record_time < events.record_times_ms[after + 1]


def test_labels_on_segments():
    """With intervals, each stretch of equal labels gets a single label, the delay after its last row."""
    labels = ["normal", "normal", "leak", "leak", None, "normal", "normal", "normal"]
    schedule = Schedule(stream(labels), Protocol(delay=Delay(1), intervals=True))
    labels_due = schedule.labels(0, 8)
    assert labels_due.event_ids == [None, None]
    assert labels_due.names == ["normal", "leak"]
    assert schedule.after.tolist() == [2, 4]  # the last stretch has not ended in time
    assert ((labels_due.starts_ns - START_NS) // 10**9).tolist() == [0, 2]
    assert ((labels_due.ends_ns - START_NS) // 10**9).tolist() == [1, 3]


@settings(deadline=None)
@given(st.lists(st.integers(0, 60), max_size=4))
def test_cuts_give_the_same_labels(cuts):
    """However the rows are cut, the same labels come in the same order."""
    rng = np.random.default_rng(3)
    recorded = stream([("normal", "leak", None)[i] for i in rng.integers(0, 3, 60)], sensors=rng.choice(["a", "b"], 60))
    schedule = Schedule(recorded, Protocol(delay=Delay(3)))
    bounds = sorted({0, 60, *cuts})
    parts = [schedule.labels(a, b) for a, b in itertools.pairwise(bounds)]
    assert [event for part in parts for event in part.event_ids] == schedule.labels(0, 60).event_ids


def test_coverage_is_seeded():
    """A share of the rows gets a label: the same one for the same seed, another one for another."""
    recorded = stream(["normal"] * 4000)

    def rows(seed, coverage):
        return Schedule(recorded, Protocol(delay=Delay(0), coverage=coverage, seed=seed)).rows.tolist()

    assert rows(1, 0.1) == rows(1, 0.1)
    assert rows(1, 0.1) != rows(2, 0.1)
    assert 300 < len(rows(1, 0.1)) < 500  # 400 expected; 5 standard deviations are 95
    assert rows(1, 0.0) == []
    assert len(rows(1, 1.0)) == 4000
    assert set(rows(1, 0.1)) <= set(rows(1, 0.2))  # more coverage takes no label away
