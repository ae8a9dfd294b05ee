"""Rules of features and budgets of sensors at work: what operators know better than statistics."""

from __future__ import annotations

import numpy as np
import pytest

from stream_ad.shard.shard import Shard
from tests.support.streams import Story, alarms, noise, options

CALM = 640


def faulty(value, *, sensor="press-1", feature="f0", calm=CALM, seed=0):
    """Calm readings about 10, of which the last event has another value of a feature."""
    story = Story()
    noise(story, calm, sensors=(sensor,), seed=seed)
    story.event(sensor, {"f0": 10.0, "f1": 10.0, "f2": 10.0} | {feature: value})
    return story


def last_alarm(story, *overrides):
    return alarms(story.play(Shard(options(alarms={"overrides": overrides}))))[-1]


def rule(sensors="press-*", feature="f0", **fields):
    return {"sensors": sensors, "features": {feature: fields}}


def test_an_ignored_feature_rings_no_alarm_and_hides_none():
    """However far it is off, an ignored feature is no alarm; another one beside it still is."""
    assert last_alarm(faulty(60.0)) >= 1
    assert last_alarm(faulty(60.0), rule(ignore=True)) < 1
    assert last_alarm(faulty(60.0, feature="f1"), rule(ignore=True)) >= 1


@pytest.mark.parametrize(("direction", "value"), [("above", -40.0), ("below", 60.0)])
def test_only_the_direction_that_counts_rings(direction, value):
    """A reading on the other side of the expected value is no alarm, however far; on the side that counts it is one."""
    assert last_alarm(faulty(value)) >= 1
    assert last_alarm(faulty(value), rule(direction=direction)) < 1
    assert last_alarm(faulty(20.0 - value), rule(direction=direction)) >= 1


@pytest.mark.parametrize("least", [15, "150 %"])
def test_a_deviation_below_the_least_is_no_alarm(least):
    """A reading ten beyond the expected ten is no alarm where 15, or 150 %, is the least that counts; thirty is one."""
    assert last_alarm(faulty(20.0)) >= 1
    assert last_alarm(faulty(20.0), rule(min_deviation=least)) < 1
    assert last_alarm(faulty(40.0), rule(min_deviation=least)) >= 1


def test_rules_are_for_the_sensors_and_features_that_their_patterns_name():
    """A rule for other sensors, or for other features, changes nothing."""
    plain = faulty(60.0).play(Shard(options()))[0].scores
    for other in (rule(sensors="pump-*", ignore=True), rule(feature="temp*", ignore=True)):
        ruled = faulty(60.0).play(Shard(options(alarms={"overrides": [other]})))[0].scores
        np.testing.assert_array_equal(ruled.score, plain.score)
        np.testing.assert_array_equal(ruled.alarms, plain.alarms)
    assert last_alarm(faulty(60.0), rule(feature="f[01]", ignore=True)) < 1


def test_an_ignored_feature_is_not_named():
    """The explanation of an alarm names no feature that is ignored."""
    story = faulty(60.0)
    story.event("press-1", {"f0": 60.0, "f1": 60.0, "f2": 10.0})
    (result,) = story.play(Shard(options(alarms={"overrides": [rule(ignore=True)]})))
    named = [contribution.feature for contribution in result.scores.contributions[CALM + 1]]
    assert named[0] == "f1"
    assert "f0" not in named


def test_the_budget_of_a_pattern_is_for_its_sensors_alone():
    """Sensors with a smaller budget have higher levels, those of other names have the usual ones; scores are alike."""
    few = {"sensors": "press-*", "false_incidents": 1, "per": "100000 events"}
    by_sensor = {}
    for sensor in ("press-1", "pump-1"):
        for overrides in ((), (few,)):
            result = faulty(20.0, sensor=sensor).play(Shard(options(alarms={"overrides": overrides})))[0]
            by_sensor[sensor, len(overrides)] = result.scores
    np.testing.assert_array_equal(by_sensor["press-1", 0].score, by_sensor["press-1", 1].score)
    assert by_sensor["press-1", 1].alarm[-1] < by_sensor["press-1", 0].alarm[-1]
    np.testing.assert_array_equal(by_sensor["pump-1", 0].alarms, by_sensor["pump-1", 1].alarms)


def test_rules_are_those_in_force_after_a_restart():
    """Settings are no part of a snapshot: a rule that is new at a restart takes effect, and one that is gone ends."""
    story = faulty(60.0)
    chosen = {count: options(alarms={"overrides": [rule(ignore=True)] * count}) for count in (0, 1)}
    for before, after in ((0, 1), (1, 0)):
        shard = Shard(chosen[before])
        shard.step(*story.columns(0, CALM))
        result = Shard.restore(shard.snapshot(), chosen[after]).step(*story.columns(CALM, story.second))
        assert (result.scores.alarm[-1] < 1) == bool(after)


def test_rules_follow_a_sensor_that_gains_a_feature():
    """A sensor that shows a new feature keeps its rules, and those of the new feature apply."""
    story = Story()
    noise(story, CALM, sensors=("press-1",))
    rng = np.random.default_rng(1)
    for _ in range(CALM):
        story.event("press-1", {"a": float(rng.normal(10)), **{f"f{k}": float(rng.normal(10)) for k in range(3)}})
    story.event("press-1", {"a": 60.0, "f0": 60.0, "f1": 10.0, "f2": 10.0})
    assert last_alarm(story) >= 1
    assert last_alarm(story, rule(ignore=True), rule(feature="a", ignore=True)) < 1
