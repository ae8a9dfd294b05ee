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


def label_of(shard: Shard, event_number: int, sensor: str = "a") -> str | None:
    """The label in force on an event of a sensor."""
    number = shard.sensors.numbers[sensor]
    pending = shard.sensors.detectors[shard.sensors.group[number]].pending
    value = int(pending.label[shard.sensors.row[number], event_number % pending.capacity])
    return None if value == UNLABELLED else list(shard.label_store.classes)[value]


def test_a_label_by_event_id_is_applied():
    """A label of an event in memory is applied to it and to no other."""
    story, ids = calm()
    shard = Shard(options())
    story.label("a", "leak", ids[90])
    assert outcomes(story, shard) == {"applied": 1}
    assert [label_of(shard, n) for n in (89, 90, 91)] == [None, "leak", None]


def test_the_same_label_twice_changes_nothing():
    """Repeated labels, of an event or an interval, leave the state as the first one left it, and are counted."""
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
    """The later of two labels of an event is in force, and is counted as a correction."""
    story, ids = calm()
    shard = Shard(options())
    story.label("a", "leak", ids[90])
    story.label("a", "normal", ids[90])
    assert outcomes(story, shard) == {"applied": 1, "corrected": 1}
    assert label_of(shard, 90) == "normal"


def test_null_retracts():
    """A null label retracts the earlier one; where there was none it changes nothing."""
    story, ids = calm()
    shard = Shard(options())
    story.label("a", "leak", ids[90])
    story.label("a", None, ids[90])
    story.label("a", None, ids[91])
    assert outcomes(story, shard) == {"applied": 1, "retracted": 1, "repeated": 1}
    assert label_of(shard, 90) is None


def test_an_interval_labels_past_events():
    """A label of an interval applies to every event from its start to its end, both included."""
    story, _ = calm()
    shard = Shard(options())
    story.interval("a", "leak", 80, 83)  # event number n is at second n + 1
    assert outcomes(story, shard) == {"interval": 1}
    assert [label_of(shard, n) for n in range(78, 84)] == [None, "leak", "leak", "leak", "leak", None]


def test_an_interval_may_lie_in_the_future():
    """A label of a planned maintenance applies to events that arrive later, within the interval only."""
    story, _ = calm()
    shard = Shard(options())
    story.interval("a", "maintenance", 110, 112)
    noise(story, 20, seed=1)
    outcomes(story, shard)
    labelled = [n for n in range(100, 120) if label_of(shard, n) == "maintenance"]
    assert [story.events[n][0] for n in labelled] == [110, 111, 112]


def test_an_event_label_outranks_an_interval():
    """A label of an event stays in force, whether an interval was labelled before it or after it."""
    story, ids = calm()
    shard = Shard(options())
    story.interval("a", "leak", 80, 90)
    story.label("a", "normal", ids[84])
    story.interval("a", "wear", 80, 95)
    outcomes(story, shard)
    assert [label_of(shard, n) for n in (83, 84, 85, 93)] == ["wear", "normal", "wear", "wear"]


def test_retracting_an_event_label_uncovers_the_interval():
    """When the label of an event is retracted, that of the interval around it is in force again."""
    story, ids = calm()
    shard = Shard(options())
    story.interval("a", "leak", 80, 90)
    story.label("a", "normal", ids[84])
    story.label("a", None, ids[84])
    outcomes(story, shard)
    assert label_of(shard, 84) == "leak"


def test_an_interval_is_corrected_and_retracted_by_its_bounds():
    """A label with the same bounds replaces the interval; null retracts it, and the interval under it counts again."""
    story, _ = calm()
    shard = Shard(options())
    story.interval("a", "leak", 70, 95)
    story.interval("a", "wear", 80, 90)
    story.interval("a", "overload", 80, 90)
    assert outcomes(story, shard) == {"interval": 2, "corrected": 1}
    assert label_of(shard, 84) == "overload"
    since = story.second
    story.interval("a", None, 80, 90)
    story.interval("a", None, 1, 2)
    (result,) = story.play(shard, since=since)
    assert (result.label_outcomes["retracted"], result.label_outcomes["repeated"]) == (1, 1)
    assert label_of(shard, 84) == "leak"


def test_a_label_before_its_event_waits_for_it():
    """A label of an event that has not come yet is kept, and applied when it comes."""
    story, _ = calm()
    shard = Shard(options())
    story.label("a", "leak", "to-come")
    story.event("a", {"f0": 1.0, "f1": 1.0, "f2": 1.0}, "to-come")
    story.event("a", {"f0": 1.0, "f1": 1.0, "f2": 1.0}, "another")
    story.play(shard, cut=1)
    assert [label_of(shard, n) for n in (100, 101)] == ["leak", None]


def test_a_label_for_an_unknown_sensor_waits_too():
    """Labels of an unknown sensor are counted as such, and applied to its events when they come."""
    story, _ = calm()
    shard = Shard(options())
    story.label("b", "leak", "b-1")
    story.interval("b", "wear", 100, 1000)
    assert outcomes(story, shard) == {"unknown_sensor": 2}
    since = story.second
    story.event("b", {"f0": 1.0}, "b-1")
    story.event("b", {"f0": 1.0}, "b-2")
    story.play(shard, since=since)
    assert [label_of(shard, n, "b") for n in (0, 1)] == ["leak", "wear"]


def test_a_label_for_an_event_long_gone_changes_no_event():
    """A label of an event that has left memory is counted as early (it cannot be distinguished from one to come), kept
    within limits, and changes no event.
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
    """A label of an event that was learned without it counts as late, and the event is learned again with it."""
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
    """Beyond learning.max_early_labels and max_intervals the oldest are evicted, and each is counted."""
    story = Story()
    shard = Shard(options(learning={"max_early_labels": 3, "max_intervals": 2}))
    for number in range(8):
        story.label("b", "leak", f"never-{number}")
    for number in range(5):
        story.interval("b", "wear", 10 * number, 10 * number + 5)
    noise(story, 1100)  # limits are enforced at fixed record numbers
    results = story.play(shard)
    assert total(results, "early_labels_evicted") == 5
    assert total(results, "intervals_evicted") == 3
    assert [interval.start for interval in shard.label_store.intervals["b"]] == [30_000_000_000, 40_000_000_000]


def test_intervals_of_the_past_are_forgotten():
    """An interval that ends before all events of its sensor in memory is forgotten."""
    story, shard = Story(), Shard(options())
    noise(story, 600)
    story.interval("a", "leak", 1, 5)
    noise(story, 1100, seed=1)
    story.play(shard)
    assert shard.label_store.intervals == {}


def test_classes_are_bounded():
    """Beyond importance.max_classes further names share the class "other"."""
    story, ids = calm()
    shard = Shard(options(learning={"importance": {"max_classes": 3}}))
    for number in range(6):
        story.label("a", f"class-{number}", ids[90 + number])
    story.play(shard)
    assert list(shard.label_store.classes) == ["normal", "class-0", "class-1", "class-2", OTHER_NAME]
    assert label_of(shard, 95) == OTHER_NAME


def test_importance_follows_the_published_decision():
    """A class that the detector misses has a larger weight than one that it detects, and miss rates say so."""
    story, shard = Story(), Shard(options())
    ids = noise(story, 400)
    random = np.random.default_rng(4)
    for number in range(300):
        loud, silent = number % 10 == 0, number % 10 == 5
        event = story.event("a", {f"f{k}": float(v) + 50 * loud for k, v in enumerate(random.normal(10, 1, 3))})
        story.label("a", "loud" if loud else "silent" if silent else "normal", event)
    for event in ids[300:]:
        story.label("a", "normal", event)
    noise(story, 1024, seed=8)
    story.play(shard)
    weights, misses = shard.status().class_importance, shard.status().miss_rate
    assert weights["silent"] > weights["loud"]
    assert misses["silent"] > 0.8
    assert misses["loud"] < 0.2
    assert misses["normal"] < 0.1


def test_labels_change_later_scores():
    """The same readings with and without labels get different scores, once labels have been learned."""
    plain, labelled = Story(), Story()
    noise(plain, 800)
    for number, (_, sensor, values, event) in enumerate(plain.events):
        labelled.event(sensor, values, event)
        if number >= 30:
            labelled.label(sensor, "leak" if number % 9 == 0 else "normal", plain.events[number - 30][3])
    without, with_them = (scores(story.play(Shard(options()))) for story in (plain, labelled))
    assert np.array_equal(without[:64], with_them[:64])
    assert not np.array_equal(without[-64:], with_them[-64:])


@pytest.mark.parametrize("horizon", [{"label_horizon_events": 64}, {"label_horizon_seconds": 64.0}])
def test_unlabelled_events_are_learned_after_the_horizon(horizon):
    """Calm events without a label are learned as normal once their horizon has passed, in events or seconds."""
    story, shard = Story(), Shard(options(learning={"label_horizon_events": 500, **horizon}))
    noise(story, 500)
    (result,) = story.play(shard)
    learned = result.counts["learned_normal"] + result.counts["dropped_gate"]
    # Learn points after the warm-up of 64: at each, up to two batches of the events past the horizon.
    assert 500 - 64 - 2 * 32 <= learned <= 500 - 64
    assert result.counts["learned_normal"] > 0.8 * learned


def test_a_label_counts_from_when_it_arrives():
    """The delay of a label is the time from its event to its own record."""
    story, ids = calm()
    story.second += 41
    story.label("a", "normal", ids[95])
    (result,) = story.play(Shard(options()))
    assert result.label_delays_s.tolist() == pytest.approx([story.second - 96])
