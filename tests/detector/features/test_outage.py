"""Outages: a sensor that comes back after weeks may behave differently, and is learned again."""

from __future__ import annotations

import numpy as np
import pytest

from stream_ad.detector.config import DetectorOptions
from stream_ad.detector.features.outage import Outage
from stream_ad.records.columns import Events, Labels, ValueBlock
from stream_ad.shard.shard import Shard

MINUTE, DAY = 60 * 10**9, 86_400 * 10**9
NO_LABELS = Labels(*[np.empty(0, np.int64)] * 2, [], [], [], *[np.empty(0, np.int64)] * 2)
OPTIONS = {"learning": {"outage_intervals": 64, "warmup_events": 64, "label_horizon_events": 64}}


def outages(intervals_ns, *, intervals=64):
    """Numbers of the events that are the first after an outage, for one sensor with these intervals."""
    outage = Outage(1, intervals=intervals)
    outage.append(1)
    times = np.cumsum(np.concatenate([[0], intervals_ns])).astype(np.int64)
    return outage.arrive(np.zeros(len(times), np.int64), np.arange(len(times)), times).tolist()


def test_a_silence_of_many_intervals_is_an_outage():
    """Weeks without a reading of a minute's sensor are one; some minutes, an hour, or a sensor's first day are none."""
    usual = np.full(200, MINUTE)
    assert outages([*usual, 21 * DAY, *usual]) == [201]
    assert outages([*usual, 30 * MINUTE, *usual, 61 * MINUTE, *usual]) == []
    assert outages([*usual[:20], 21 * DAY, *usual[:20]]) == []
    assert outages([*usual, 21 * DAY, *usual], intervals=0) == []


def test_what_pauses_as_a_habit_has_no_outages():
    """Nights that stand still are an outage once at the most; a silence far longer than they are is one again."""
    day = [*np.full(200, MINUTE), 14 * 60 * MINUTE]
    results = outages([*day * 5, *np.full(200, MINUTE), 21 * DAY, MINUTE])
    assert results == [201, 6 * 201]


def test_short_pauses_of_a_quick_sensor_are_none():
    """A sensor that speaks many times a second may be still for minutes: machines do not change in that time."""
    usual = np.full(500, 10**7)
    assert outages([*usual, 10 * MINUTE, *usual]) == []


def events_of(values, *, outage_at=None):
    rows = np.arange(len(values))
    times = rows * MINUTE + (0 if outage_at is None else np.where(rows >= outage_at, 21 * DAY, 0))
    return Events(
        offsets=rows,
        record_times_ms=times // 10**6,
        times_ns=times,
        sensor_ids=["a"] * len(rows),
        event_ids=[f"e{row}" for row in rows.tolist()],
        blocks=(ValueBlock(tuple(f"f{k}" for k in range(values.shape[1])), rows, values),),
    )


def changed(rows=640, at=400):
    """Readings that move by ten standard deviations from one event on."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(rows, 4)) + np.sin(np.arange(rows) / 20)[:, None]
    values[at:] += 10
    return values


def part_of(events, start, end):
    return Events(
        offsets=events.offsets[start:end],
        record_times_ms=events.record_times_ms[start:end],
        times_ns=events.times_ns[start:end],
        sensor_ids=events.sensor_ids[start:end],
        event_ids=events.event_ids[start:end],
        blocks=(ValueBlock(events.blocks[0].features, np.arange(end - start), events.blocks[0].values[start:end]),),
    )


def test_what_follows_an_outage_is_learned_at_once():
    """A change during an outage soon scores as usual and is no alarm, without any label; the same change without an
    outage scores high, and alarms at once.
    """
    options = DetectorOptions.model_validate(OPTIONS)
    values = changed()
    scores = [Shard(options).step(events_of(values, outage_at=at), NO_LABELS).scores for at in (400, None)]
    after, without = (each.score[500:] for each in scores)
    assert np.median(after) < 0.5 < np.median(without)
    assert (scores[0].alarm[500:] < 1).all()
    assert (scores[1].alarm[405:500] >= 1).all()


@pytest.mark.parametrize("cut", [1, 7, 403])
def test_cuts_change_nothing_around_an_outage(cut):
    """However the stream is cut, and from a snapshot too, an outage gives the same scores bit for bit."""
    options = DetectorOptions.model_validate(OPTIONS)
    events = events_of(changed(), outage_at=400)
    whole = Shard(options).step(events, NO_LABELS).scores.score
    shard, results = Shard(options), []
    for start in range(0, len(whole), cut):
        end = min(start + cut, len(whole))
        results.append(shard.step(part_of(events, start, end), NO_LABELS).scores.score)
        if start <= 410 < end:
            shard = Shard.restore(shard.snapshot(), options)
    np.testing.assert_array_equal(np.concatenate(results), whole)
