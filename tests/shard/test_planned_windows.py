"""Planned windows at work: no incident opens in them, and what they show is learned apart or not at all."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from stream_ad.detector.alarms.excursions import UNSEEN
from stream_ad.detector.row_store import take_ring
from stream_ad.shard.shard import Shard
from tests.support.streams import Story, alarms, decisions, incidents, noise, options, total

CALM, STOP, AFTER = 640, 200, 320
NEVER = "9999-12-31T23:59:59Z"


def at(second):
    """The text of a second of a story."""
    return datetime.fromtimestamp(second, UTC).isoformat()


def stopped(shift=-9.0, sensor="a"):
    """Calm readings, a stop in which all of them are elsewhere, and calm readings again."""
    story, rng = Story(), np.random.default_rng(0)
    noise(story, CALM, sensors=(sensor,))
    for _ in range(STOP):
        story.event(sensor, {f"f{k}": float(value) for k, value in enumerate(rng.normal(10 + shift, 0.3, 3))})
    noise(story, AFTER, sensors=(sensor,), seed=1)
    return story


def window(start=CALM + 1, end=CALM + STOP + 1, **fields):
    return {"periods": [{"start": at(start), "end": at(end)}]} | fields


def with_windows(*windows, **sections):
    return options(alarms={"windows": windows}, **sections)


def in_stop(results):
    return alarms(results)[CALM : CALM + STOP]


@pytest.mark.parametrize("learn", ["apart", "no"])
def test_no_incident_opens_in_a_window(learn):
    """A stop that rings without a window is silent in one, from its first event to its last."""
    story = stopped()
    assert (in_stop(story.play(Shard(options()))) >= 1).any()
    results = story.play(Shard(with_windows(window(learn=learn))), cut=37)
    assert (in_stop(results) < 1).all()
    assert not [m for m in incidents(results) if CALM <= int(m.incident_id.rpartition("-")[2]) < CALM + STOP]


def test_a_window_is_for_the_sensors_that_its_pattern_names():
    """Another sensor with the same stop rings."""
    chosen = with_windows(window(sensors="press-*"))
    assert (in_stop(stopped(sensor="press-1").play(Shard(chosen))) < 1).all()
    assert (in_stop(stopped(sensor="pump-1").play(Shard(chosen))) >= 1).any()


def test_what_lasts_beyond_its_window_rings():
    """A stop that goes on after its window opens an incident there."""
    results = stopped().play(Shard(with_windows(window(end=CALM + 101))))
    alarm = in_stop(results)
    assert (alarm[:100] < 1).all()
    assert (alarm[100:164] >= 1).any()


def test_an_incident_that_is_open_when_a_window_begins_ends():
    """No alarm goes on in a window: the incident closes after its quiet events."""
    results = stopped().play(Shard(with_windows(window(start=CALM + 51))))
    assert (in_stop(results)[:50] >= 1).any()
    assert (in_stop(results)[50:] < 1).all()
    closed = [m for m in incidents(results) if m.state == "closed" and m.incident_id.startswith("a/e-64")]
    assert closed[0].reason == "over"


def test_what_is_learned_apart_teaches_the_model_and_not_the_alarm():
    """The model comes to expect the stop, while the histograms of the alarm hold none of its events."""
    shards = [Shard(with_windows(window(learn=learn))) for learn in ("apart", "no")]
    learned = [total(stopped().play(shard), "learned_normal") for shard in shards]
    assert learned[0] - learned[1] == pytest.approx(STOP, abs=32)
    apart, not_at_all = (shard.sensors.detectors[0] for shard in shards)
    assert not np.array_equal(apart.network.state("")["model.flat"], not_at_all.network.state("")["model.flat"])
    for detector in (apart, not_at_all):
        count, row = detector.pending.count[0], np.zeros(1, np.int64)
        kept = np.arange(count - detector.pending.capacity, count)[None]
        codes = take_ring(detector.evidence.codes, row, kept % detector.pending.capacity)[0]
        planned = detector.pending.planned(row, kept)[0] != 0
        assert (codes[planned] == UNSEEN).all()
        assert (codes[~planned] != UNSEEN).all()


def test_a_stop_in_a_window_costs_no_fault_afterwards():
    """After a window in which nothing was learned a fault rings as it would have without the stop."""
    plain, planned = Story(), stopped()
    noise(plain, CALM)
    noise(plain, AFTER, seed=1)
    for story in (plain, planned):
        story.event("a", {"f0": 20.0, "f1": 10.0, "f2": 10.0})
    without, with_window = (
        alarms(story.play(Shard(chosen)))[-1]
        for story, chosen in ((plain, options()), (planned, with_windows(window(learn="no"))))
    )
    assert without >= 1
    assert with_window >= 1


def test_cuts_and_restarts_change_nothing_in_windows():
    """However a stream with windows is cut, and through restarts in them, the decisions are the same."""
    story, chosen = stopped(), with_windows(window(), window(learn="no", start=CALM + 150, end=CALM + 250))
    whole = decisions(story.play(Shard(chosen)))
    shard, parts = Shard(chosen), []
    for start in range(0, story.second, 61):
        parts.append(shard.step(*story.columns(start, start + 61)))
        shard = Shard.restore(shard.snapshot(), chosen)
    assert decisions(parts) == whole


def test_a_window_that_never_ends_silences_its_sensors_alone():
    """A period until the year 9999 is a window for ever: its sensors are scored and never ring, the others do."""
    for_ever = {"periods": [{"start": at(CALM + 1), "end": NEVER}], "sensors": "off-*"}
    silent = stopped(sensor="off-1").play(Shard(with_windows(for_ever)))
    assert (alarms(silent)[CALM:] < 1).all()
    assert (silent[0].scores.score[CALM : CALM + 10] > 0.5).all()
    assert (in_stop(stopped().play(Shard(with_windows(for_ever)))) >= 1).any()
