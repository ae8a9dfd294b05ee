"""Alarms, incidents and their state: the same on every cut, through every restart, with labels of any age."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from stream_ad.shard import shard as shard_module
from stream_ad.shard.shard import Shard
from tests.support.streams import Story, decisions, options

NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)  # a story this long takes minutes to shrink
OPTIONS = options(alarms={"false_incidents": 1, "per": "200 events", "accept_after": 60.0})
EVENTS, STICKS = 1300, 1150


def eventful(seed, events=EVENTS):
    """Two sensors with memory: short and long faults, a reading that sticks, gaps, and labels of any age."""
    rng, story = np.random.default_rng(seed), Story()
    states, ids = {name: rng.normal(size=3) for name in "ab"}, []
    fault = dict.fromkeys("ab", 0)
    for number in range(events):
        name = "ab"[number % 2]
        states[name] = 0.9 * states[name] + np.sqrt(1 - 0.81) * rng.normal(size=3)
        fault[name] = max(0, fault[name] - 1) or (rng.random() < 0.01) * int(rng.choice([1, 5, 30, 200]))
        values = 10 + states[name] + (fault[name] > 0) * np.array([5.0, 5.0, 0.0])
        if STICKS <= number < STICKS + 80:
            values[2] = 10.5
        readings = {f"f{k}": None if rng.random() < 0.01 else float(value) for k, value in enumerate(values)}
        ids.append((name, story.event(name, readings)))
        if rng.random() < 0.15:
            target, event = ids[max(0, len(ids) - 1 - int(rng.geometric(0.02)))]
            label = [None, "normal", "normal", "leak", "wear"][int(rng.integers(5))]
            if rng.random() < 0.2:
                story.interval(target, label, story.second - int(rng.integers(80)), story.second + 5)
            else:
                story.label(target, label, event)
    return story


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    """Let statistics apply, and young sensors learn from one another, several times in a short story."""
    monkeypatch.setattr(shard_module, "FIRST_STATISTICS_RECORD", 32)
    monkeypatch.setattr(shard_module, "STATISTICS_RECORDS", 128)


FEW = settings(
    max_examples=3,
    deadline=None,
    phases=NO_SHRINKING,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@FEW
@given(st.integers(0, 10_000), st.data())
def test_any_two_cuts_decide_alike(seed, data):
    """Alarms, kinds, endings, incidents and state are the same, bit for bit, however records with labels are cut."""
    story = eventful(seed)
    whole = Shard(OPTIONS)
    expected = decisions(story.play(whole))
    cuts = data.draw(st.lists(st.integers(1, story.second - 1), max_size=20))
    single = data.draw(st.integers(0, story.second - 150))  # from here on, some records one by one
    for bounds in (sorted({0, story.second, *cuts}), [0, *range(single + 1, single + 150), story.second]):
        shard = Shard(OPTIONS)
        results = [shard.step(*story.columns(start, stop)) for start, stop in pairwise(bounds)]
        assert decisions(results) == expected
        assert shard.snapshot() == whole.snapshot()


def test_the_stories_have_what_is_to_be_tested():
    """Among them are alarms of every kind, incidents, and some that a label ends."""
    stories = [decisions(eventful(seed).play(Shard(OPTIONS))) for seed in range(4)]
    assert {kind for each in stories for kind in each["kinds"]} == {0, 1, 2, 3}
    assert {ending for each in stories for ending in each["endings"]} >= {0, 2}
    assert sum(bool(each["incidents"]) for each in stories) >= 3


@FEW
@given(st.integers(0, 10_000), st.integers(23, 61))
def test_a_snapshot_at_any_point_is_the_whole_state(seed, step):
    """At every point, with excursions that are open and others that wait, a shard restored from a snapshot gives the
    same snapshot again, and decides what follows as the one that went on.
    """
    story = eventful(seed)
    shard, restored, results, again, open_ones, waiting = Shard(OPTIONS), Shard(OPTIONS), [], [], 0, 0
    for second in range(0, story.second, step):
        data = restored.snapshot()
        restored = Shard.restore(data, OPTIONS)
        assert restored.snapshot() == data
        results.append(shard.step(*story.columns(second, second + step)))
        again.append(restored.step(*story.columns(second, second + step)))
        evidence = shard.sensors.detectors[0].evidence
        open_ones += int((evidence.start[: evidence.size] >= 0).any())
        waiting += int((evidence.pending_top[: evidence.size] >= 0).any())
    assert decisions(results) == decisions(again)
    assert shard.snapshot() == restored.snapshot()
    assert open_ones > 0
    assert waiting > 0
