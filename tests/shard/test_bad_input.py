"""Bad input: what the alarm makes of streams that no machine should send, and what it keeps."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from stream_ad.detector.config import DetectorOptions
from stream_ad.records.columns import Events, Labels, ValueBlock
from stream_ad.shard.shard import Shard
from tests.support.streams import SECOND, alarms, incidents, options

NO_LABELS = Labels(*[np.empty(0, np.int64)] * 2, [], [], [], *[np.empty(0, np.int64)] * 2)
DAY = 86_400 * SECOND
BUDGET = options(alarms={"false_incidents": 1, "per": "1000 events"})


def events_of(values, times_ns, sensors=None, first=0):
    """Events with (N, F) readings at these times."""
    rows = np.arange(len(values))
    return Events(
        offsets=rows + first,
        record_times_ms=(rows + first) * 1000,
        times_ns=np.asarray(times_ns, np.int64),
        sensor_ids=["a"] * len(rows) if sensors is None else sensors,
        event_ids=[f"e{row}" for row in (rows + first).tolist()],
        blocks=(ValueBlock(tuple(f"f{k}" for k in range(values.shape[1])), rows, values),),
    )


def played(values, times_ns, chosen=BUDGET, cuts=()):
    """Results of a shard, and the shard."""
    shard, results = Shard(chosen), []
    for start, stop in pairwise([0, *cuts, len(values)]):
        results.append(shard.step(events_of(values[start:stop], times_ns[start:stop], first=start), NO_LABELS))
    return results, shard


def waves(events, seed=0):
    """Readings with memory."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(events, 3))
    for event in range(1, events):
        values[event] = 0.8 * values[event - 1] + 0.6 * values[event]
    return values


def test_events_without_a_reading_are_scored_and_ring_nothing():
    """A sensor all of whose features are missing, for ever or for a time, has finite scores and no alarm by that."""
    nothing, gap = np.full((700, 3), np.nan), waves(1400)
    gap[900:1200] = np.nan
    for values in (nothing, gap):
        results, shard = played(values, np.arange(len(values)) * SECOND)
        assert np.isfinite(results[0].scores.score).all()
        assert (results[0].scores.alarm[np.isnan(values).all(axis=1)] < 1).all()
        assert Shard.restore(shard.snapshot(), BUDGET).snapshot() == shard.snapshot()
    assert not incidents(played(nothing, np.arange(700) * SECOND)[0])


@pytest.mark.parametrize("value", [0.0, -3.5, 1e9])
def test_one_constant_feature_rings_nothing(value):
    """A sensor whose only feature never moves has no alarm: a reading that never moved is not stuck."""
    results, _ = played(np.full((1500, 1), value), np.arange(1500) * SECOND)
    assert np.isfinite(results[0].scores.score).all()
    assert (results[0].scores.alarm < 1).all()


def test_one_event_a_month_is_scored_for_ever_in_warm_up():
    """A sensor with an event a month never leaves the warm-up in five years: scored, never an alarm, nothing lost."""
    values = waves(60)
    values[50] += 100
    results, shard = played(values, np.arange(60) * 30 * DAY, options())
    assert np.isfinite(results[0].scores.score).all()
    assert not results[0].scores.live.any()
    assert not incidents(results)
    assert (shard.status().warming_sensors, shard.status().pending_events) == (1, 60)


def test_one_event_a_month_has_levels_in_the_end():
    """After decades the budget is for event time as ever: a level is low where a week has less than one event."""
    results, shard = played(waves(400), np.arange(400) * 30 * DAY, options(alarms={"per": "week"}))
    detector = shard.sensors.detectors[0]
    assert detector.rules.rate[0, 0] == 0.5
    assert np.isfinite(detector.evidence.levels[0]).all()
    assert np.isfinite(results[0].scores.alarm).all()


JUMPS = {
    "back a day": lambda times: np.where(np.arange(len(times)) >= 700, times - DAY, times),
    "forward ten years": lambda times: np.where(np.arange(len(times)) >= 700, times + 3650 * DAY, times),
    "back and forth": lambda times: times + (np.arange(len(times)) % 7 - 3) * 3600 * SECOND,
    "one absurd": lambda times: np.where(np.arange(len(times)) == 700, 2**62, times),
    "standing still": np.zeros_like,
    "before the epoch": lambda times: times - 40_000 * DAY,
}


@pytest.mark.parametrize("jump", JUMPS)
def test_clocks_that_jump_open_no_incident(jump):
    """Whatever the clock of a sensor does, readings that go on as usual cost no more incidents than with a good clock,
    every number stays finite, and a fault is found all the same.
    """
    values = waves(1400)
    values[1380:] += 12
    good = np.arange(1400) * 60 * SECOND
    plain, _ = played(values, good)
    results, shard = played(values, JUMPS[jump](good), cuts=(1, 650, 701, 1000))
    alarm = alarms(results)
    assert np.isfinite(alarm).all()
    assert np.isfinite(np.concatenate([result.scores.score for result in results])).all()
    opened = [m for m in incidents(results) if m.opens]
    assert len(opened) <= len([m for m in incidents(plain) if m.opens]) + 1
    assert (alarm[1380:] >= 1).any()
    assert Shard.restore(shard.snapshot(), BUDGET).snapshot() == shard.snapshot()


def test_ten_thousand_sensors_of_ten_events_each_ring_nothing():
    """Sensors too young for a level ring nothing, and each takes a tenth at most of the memory of one that goes on."""
    sensors, shard = 10_000, Shard(DetectorOptions())
    rng, ringing = np.random.default_rng(0), 0
    for first in range(0, sensors, 500):
        names = [f"s{first + i // 10}" for i in range(5000)]
        values = rng.normal(size=(5000, 3))
        values[::97] *= 1e6
        at = first * 10
        result = shard.step(events_of(values, (at + np.arange(5000)) * SECOND, names, first=at), NO_LABELS)
        ringing += int((result.scores.alarm >= 1).sum()) + len(result.incidents)
    assert ringing == 0
    assert len(shard.sensors) == sensors
    _, active = played(waves(64), np.arange(64) * SECOND, DetectorOptions())
    assert shard.status().state_bytes / sensors < active.status().state_bytes / 10
