"""Labels in every form: by event, by interval, late, early, repeated, corrected, retracted, unknown."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from stream_ad.detector.feedback.event_buffer import UNLABELLED
from stream_ad.shard.label_store import OTHER_NAME
from stream_ad.shard.shard import Shard
from tests.support.streams import Story, noise, options, scores, total


def calm(events: int = 100) -> tuple[Story, list[str]]:
    story = Story()
    return story, noise(story, events)


def outcomes(story: Story, shard: Shard | None = None) -> dict[str, int]:
    """Outcomes that occurred, all records in one step."""
    (result,) = story.play(shard or Shard(options()))
    return {name: number for name, number in result.label_outcomes.items() if number}


def verdict(shard: Shard, place: int, sensor: str = "a") -> str | None:
    """The verdict in force on a sensor's event."""
    number = shard.sensors.numbers[sensor]
    pending = shard.sensors.detectors[shard.sensors.group[number]].pending
    value = int(pending.label[shard.sensors.row[number], place % pending.capacity])
    return None if value == UNLABELLED else list(shard.label_store.classes)[value]


def test_a_label_by_event_id_is_applied():
    """A verdict on an event that waits is applied to it and to no other."""
    story, ids = calm()
    shard = Shard(options())
    story.label("a", "leak", ids[90])
    assert outcomes(story, shard) == {"applied": 1}
    assert [verdict(shard, place) for place in (89, 90, 91)] == [None, "leak", None]


def test_the_same_label_twice_changes_nothing():
    """Repeated verdicts, by event or by interval, leave the state exactly as one leaves it; they are counted."""
    states = []
    for times in (1, 3):
        story, ids = calm()
        shard = Shard(options())
        story.play(shard)
        for _ in range(times):
            since = story.second
            story.label("a", "leak", ids[90])
            story.interval("a", "wear", 80, 85)
            results = story.play(shard, since=since)
        if times > 1:
            assert total(results, "repeated") == 2
        state = shard.label_store.state()
        pending = shard.sensors.detectors[0].pending.state("")
        states.append(
            (state["label_results"], state["labels"], pending["label"].tolist(), pending["queued_from"].tolist())
        )
    assert states[0] == states[1]


def test_a_later_label_corrects_the_earlier():
    """The later of two verdicts on one event counts, and is counted as a correction."""
    story, ids = calm()
    shard = Shard(options())
    story.label("a", "leak", ids[90])
    story.label("a", "normal", ids[90])
    assert outcomes(story, shard) == {"applied": 1, "corrected": 1}
    assert verdict(shard, 90) == "normal"


def test_null_retracts():
    """A null label takes the verdict back; where there was none it changes nothing."""
    story, ids = calm()
    shard = Shard(options())
    story.label("a", "leak", ids[90])
    story.label("a", None, ids[90])
    story.label("a", None, ids[91])
    assert outcomes(story, shard) == {"applied": 1, "retracted": 1, "repeated": 1}
    assert verdict(shard, 90) is None


def test_an_interval_judges_past_events():
    """An interval gives its verdict to every event from its start to its end, both included."""
    story, _ = calm()
    shard = Shard(options())
    story.interval("a", "leak", 80, 83)  # event number n is at second n + 1
    assert outcomes(story, shard) == {"interval": 1}
    assert [verdict(shard, place) for place in range(78, 84)] == [None, "leak", "leak", "leak", "leak", None]


def test_an_interval_may_lie_in_the_future():
    """A planned maintenance judges events that arrive later, within the interval only."""
    story, _ = calm()
    shard = Shard(options())
    story.interval("a", "maintenance", 110, 112)
    noise(story, 20, seed=1)
    outcomes(story, shard)
    label_results = [place for place in range(100, 120) if verdict(shard, place) == "maintenance"]
    assert [story.events[place][0] for place in label_results] == [110, 111, 112]


def test_an_event_label_outranks_an_interval():
    """A verdict that names an event stands, whether an interval came before it or comes after it."""
    story, ids = calm()
    shard = Shard(options())
    story.interval("a", "leak", 80, 90)
    story.label("a", "normal", ids[84])
    story.interval("a", "wear", 80, 95)
    outcomes(story, shard)
    assert [verdict(shard, place) for place in (83, 84, 85, 93)] == ["wear", "normal", "wear", "wear"]


def test_retracting_an_event_label_uncovers_the_interval():
    """When a verdict on an event is retracted, that of the interval around it counts again."""
    story, ids = calm()
    shard = Shard(options())
    story.interval("a", "leak", 80, 90)
    story.label("a", "normal", ids[84])
    story.label("a", None, ids[84])
    outcomes(story, shard)
    assert verdict(shard, 84) == "leak"


def test_an_interval_is_corrected_and_retracted_by_its_bounds():
    """A label with the same bounds replaces the interval; null takes it back and uncovers what lay under it."""
    story, _ = calm()
    shard = Shard(options())
    story.interval("a", "leak", 70, 95)
    story.interval("a", "wear", 80, 90)
    story.interval("a", "overload", 80, 90)
    assert outcomes(story, shard) == {"interval": 2, "corrected": 1}
    assert verdict(shard, 84) == "overload"
    since = story.second
    story.interval("a", None, 80, 90)
    story.interval("a", None, 1, 2)
    (result,) = story.play(shard, since=since)
    assert (result.label_outcomes["retracted"], result.label_outcomes["repeated"]) == (1, 1)
    assert verdict(shard, 84) == "leak"


def test_a_label_before_its_event_waits_for_it():
    """A verdict on an event that is not here yet is kept and given to it when it comes."""
    story, _ = calm()
    shard = Shard(options())
    story.label("a", "leak", "to-come")
    story.event("a", {"f0": 1.0, "f1": 1.0, "f2": 1.0}, "to-come")
    story.event("a", {"f0": 1.0, "f1": 1.0, "f2": 1.0}, "another")
    story.play(shard, cut=1)
    assert [verdict(shard, place) for place in (100, 101)] == ["leak", None]


def test_a_label_for_an_unknown_sensor_waits_too():
    """Verdicts on a sensor never seen are counted as such, and given to its events when it appears."""
    story, _ = calm()
    shard = Shard(options())
    story.label("b", "leak", "b-1")
    story.interval("b", "wear", 100, 1000)
    assert outcomes(story, shard) == {"unknown_sensor": 2}
    since = story.second
    story.event("b", {"f0": 1.0}, "b-1")
    story.event("b", {"f0": 1.0}, "b-2")
    story.play(shard, since=since)
    assert [verdict(shard, place, "b") for place in (0, 1)] == ["leak", "wear"]


def test_a_label_for_an_event_long_gone_changes_no_event():
    """A verdict on an event that left memory is counted as early (nobody can tell it from one to come), kept
    within bounds, and moves nothing.
    """
    story, ids = calm(600)
    shard = Shard(options())
    story.play(shard)
    before = copy.deepcopy(shard.sensors.detectors[0].pending.state(""))
    since = story.second
    story.label("a", "leak", ids[3])
    (result,) = story.play(shard, since=since)
    assert result.label_outcomes["early"] == 1
    after = shard.sensors.detectors[0].pending.state("")
    assert all(np.array_equal(before[name], after[name], equal_nan=True) for name in before)


def test_a_late_label_is_learned_after_all():
    """A verdict on an event learned without it counts as late, and the event is learned again as it says."""
    story, ids = calm(300)
    shard = Shard(options())
    story.play(shard)
    since = story.second
    story.label("a", "leak", ids[190])  # its horizon of 64 events has passed, it is still in memory
    noise(story, 64, seed=1)
    (result,) = story.play(shard, since=since)
    assert result.label_outcomes["late"] == 1
    assert result.counts["learned_anomaly"] == 1


def test_waiting_labels_are_bounded():
    """Beyond learning.max_early_labels and max_intervals the oldest make room, and each is counted."""
    story = Story()
    shard = Shard(options(learning={"max_early_labels": 3, "max_intervals": 2}))
    for number in range(8):
        story.label("b", "leak", f"never-{number}")
    for number in range(5):
        story.interval("b", "wear", 10 * number, 10 * number + 5)
    noise(story, 1100)  # bounds are kept at fixed places of the stream
    results = story.play(shard)
    assert total(results, "early_labels_evicted") == 5
    assert total(results, "intervals_evicted") == 3
    assert [one.start for one in shard.label_store.intervals["b"]] == [30_000_000_000, 40_000_000_000]


def test_intervals_of_the_past_are_forgotten():
    """An interval that ends before everything a sensor has in memory does not stay for ever."""
    story, shard = Story(), Shard(options())
    noise(story, 600)
    story.interval("a", "leak", 1, 5)
    noise(story, 1100, seed=1)
    story.play(shard)
    assert shard.label_store.intervals == {}


def test_classes_are_bounded():
    """Beyond importance.max_classes further names share the class «other»."""
    story, ids = calm()
    shard = Shard(options(learning={"importance": {"max_classes": 3}}))
    for number in range(6):
        story.label("a", f"class-{number}", ids[90 + number])
    story.play(shard)
    assert list(shard.label_store.classes) == ["normal", "class-0", "class-1", "class-2", OTHER_NAME]
    assert verdict(shard, 95) == OTHER_NAME


def test_importance_follows_the_published_decision():
    """A class the detector misses weighs more in the loss than one it finds; normal without false alarms least."""
    story, shard = Story(), Shard(options())
    ids = noise(story, 400)
    random = np.random.default_rng(4)
    for number in range(300):
        found, missed = number % 10 == 0, number % 10 == 5
        event = story.event("a", {f"f{k}": float(v) + 50 * found for k, v in enumerate(random.normal(10, 1, 3))})
        story.label("a", "loud" if found else "silent" if missed else "normal", event)
    for event in ids[300:]:
        story.label("a", "normal", event)
    noise(story, 1024, seed=8)
    story.play(shard)
    weights, misses = shard.status().class_importance, shard.status().miss_rate
    assert weights["silent"] > weights["loud"]
    assert misses["silent"] > 0.8
    assert misses["loud"] < 0.2
    assert misses["normal"] < 0.1


def test_verdicts_change_what_comes():
    """The same readings with and without verdicts get different scores, once the verdicts were learned."""
    plain, label_results = Story(), Story()
    noise(plain, 800)
    for number, (_, sensor, values, event) in enumerate(plain.events):
        label_results.event(sensor, values, event)
        if number >= 30:
            label_results.label(sensor, "leak" if number % 9 == 0 else "normal", plain.events[number - 30][3])
    without, with_them = (scores(story.play(Shard(options()))) for story in (plain, label_results))
    assert np.array_equal(without[:64], with_them[:64])
    assert not np.array_equal(without[-64:], with_them[-64:])


@pytest.mark.parametrize("horizon", [{"label_horizon_events": 64}, {"label_horizon_seconds": 64.0}])
def test_unlabelled_events_are_learned_after_the_horizon(horizon):
    """Calm events that nobody judges are learned as normal once their horizon has passed, by events or seconds."""
    story, shard = Story(), Shard(options(learning={"label_horizon_events": 500, **horizon}))
    noise(story, 500)
    (result,) = story.play(shard)
    learned = result.counts["learned_normal"] + result.counts["dropped_gate"]
    # Learn points after the warm-up of 64: at each, up to two batches of what is past the horizon then.
    assert 500 - 64 - 2 * 32 <= learned <= 500 - 64
    assert result.counts["learned_normal"] > 0.8 * learned


def test_a_label_counts_from_when_it_arrives():
    """The delay of a verdict is the time from its event to its own record."""
    story, ids = calm()
    story.second += 41
    story.label("a", "normal", ids[95])
    (result,) = story.play(Shard(options()))
    assert result.label_delays_s.tolist() == pytest.approx([story.second - 96])
