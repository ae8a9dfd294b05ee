"""A shard: the same results on every cut, bounded state, snapshots that continue exactly."""

from __future__ import annotations

import hashlib
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from stream_ad.detector.alarm_config import USUAL_INCIDENTS, IncidentSettings
from stream_ad.errors import DeviceError, StateError
from stream_ad.shard import shard as shard_module
from stream_ad.shard.event_hash import hash_ids
from stream_ad.shard.incidents import Incidents
from stream_ad.shard.label_store import LABEL_OUTCOMES
from stream_ad.shard.shard import COUNTERS, STATISTICS_RECORDS, Shard, next_statistics_record
from stream_ad.shard.snapshot_format import dump
from tests.support.streams import Story, decisions, incidents, noise, options, scores, total

NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)  # a story this long takes minutes to shrink


def busy_story(seed: int, records: int = 400) -> Story:
    """Sensors of two feature sets, missing readings, faults, and labels of every kind."""
    random, story = np.random.default_rng(seed), Story()
    ids: list[tuple[str, str]] = []
    for _ in range(records):
        sensor = f"s{random.integers(4)}"
        if ids and random.random() < 0.3:
            target, event = ids[max(0, len(ids) - int(random.integers(1, 120)))]
            name = random.choice(["normal", "normal", "normal", "leak", "wear", ""]) or None
            if random.random() < 0.2:
                story.interval(target, name, story.second - 40, story.second + 10)
            else:
                story.label(target, name, event if random.random() < 0.95 else "never-seen")
        else:
            features = 2 if sensor == "s3" and story.second < records // 2 else 3
            level = 20.0 if random.random() < 0.05 else 10.0
            values = {
                f"f{k}": (None if random.random() < 0.05 else float(random.normal(level))) for k in range(features)
            }
            ids.append((sensor, story.event(sensor, values)))
    return story


@pytest.mark.parametrize("models", ["per-sensor", "shared"])
@settings(max_examples=5, deadline=None, phases=NO_SHRINKING, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10_000), data=st.data())
def test_cuts_change_nothing(models, seed, data):
    """Steps of one record, 7, 500, all or random numbers give the same scores, alarms, incidents and state, bit for
    bit.
    """
    story, chosen = busy_story(seed), options(detector={"models": models})
    whole = Shard(chosen)
    with pytest.MonkeyPatch.context() as patch:  # the story is short: let statistics apply several times in it
        patch.setattr(shard_module, "FIRST_STATISTICS_RECORD", 32)
        patch.setattr(shard_module, "STATISTICS_RECORDS", 128)
        expected = decisions(story.play(whole))
        state = whole.snapshot()
        bounds = sorted({0, story.second, *data.draw(st.lists(st.integers(1, story.second), max_size=12))})
        cuts = [range(0, story.second + n, n) for n in (1, 7, 500)] + [bounds]
        for cut in cuts:
            shard = Shard(chosen)
            results = [shard.step(*story.columns(a, b)) for a, b in pairwise(cut)]
            assert decisions(results) == expected
            assert shard.snapshot() == state


@given(st.integers(0, 100_000), st.integers(0, 20_000))
def test_statistics_apply_at_fixed_record_numbers(records, more):
    """Wherever a step ends, the next record number is the same as before, and two of them are never far apart."""
    expected = next_statistics_record(records)
    assert 0 < expected - records <= STATISTICS_RECORDS
    assert next_statistics_record(min(records + more, expected - 1)) == expected


def test_learned_weights_differ_when_a_record_differs():
    """The comparison above can fail: a single different reading gives another state."""
    original, other = Story(), Story()
    noise(original, 200)
    noise(other, 200)
    second, sensor, values, event = other.events[50]
    other.events[50] = (second, sensor, {**values, "f0": 11.5}, event)
    digests = set()
    for story in (original, other):
        shard = Shard(options())
        story.play(shard)
        digests.add(hashlib.sha256(shard.snapshot()).hexdigest())
    assert len(digests) == 2


def test_a_restored_shard_continues_as_if_never_stopped():
    """Stopped anywhere and restored from its snapshot, a shard decides like one that was never stopped, and ends in the
    same state, labels that wait for events included.
    """
    story, whole = busy_story(3), Shard(options())
    expected = decisions(story.play(whole))
    for stop in (1, 63, 300, 399):
        first = Shard(options())
        before = first.step(*story.columns(0, stop))
        second = Shard.restore(first.snapshot(), options())
        assert second.snapshot() == first.snapshot()
        after = second.step(*story.columns(stop, story.second))
        assert decisions([before, after]) == expected
        assert second.snapshot() == whole.snapshot()


def test_a_sensor_does_not_depend_on_its_neighbours():
    """A sensor's scores are the same alone and among others that arrive between its events (a model per sensor)."""
    alone, among = Story(), Story()
    random = np.random.default_rng(0)
    rows = []
    for number in range(300):
        values = {f"f{k}": float(v) for k, v in enumerate(random.normal(10, 1, 3))}
        alone.event("a", values, f"a-{number}")
        rows.append(len(among.events))
        among.event("a", values, f"a-{number}")
        for other in range(int(random.integers(0, 3))):
            among.event(f"b{other}", {f"f{k}": float(v) for k, v in enumerate(random.normal(0, 5, 3))})
    assert np.array_equal(scores(alone.play(Shard(options()))), scores(among.play(Shard(options())))[rows])


def test_the_seed_decides():
    """The same seed gives the same scores, another seed others."""
    story = Story()
    noise(story, 300)

    def play(seed: int) -> np.ndarray:
        return scores(story.play(Shard(options(detector={"seed": seed}))))

    assert np.array_equal(play(1), play(1))
    assert not np.array_equal(play(1), play(2))


def test_an_outlier_is_an_anomaly_and_names_its_feature():
    """A reading 30 standard deviations off is a live anomaly that names its feature first, with the expected value."""
    story, shard = Story(), Shard(options())
    noise(story, 400)
    story.event("a", {"f0": 10.0, "f1": 40.0, "f2": 10.0})
    (result,) = story.play(shard)
    assert result.scores.live[-1]
    assert result.scores.alarm[-1] >= 1
    assert result.scores.score[-1] == result.scores.score.max() < 1
    first = result.scores.contributions[400][0]
    assert (first.feature, first.value) == ("f1", 40.0)
    assert abs(first.expected - 10) < 3
    assert sum(contribution.share for contribution in result.scores.contributions[400]) == pytest.approx(1)


def test_the_farther_the_higher():
    """Of readings beyond the clipping of the scaler, a farther one scores higher."""
    outlier_scores = []
    for far in (14.0, 16.0, 20.0):
        story = Story()
        noise(story, 400)
        story.event("a", {"f0": far, "f1": 10.0, "f2": 10.0})
        outlier_scores.append(scores(story.play(Shard(options())))[-1])
    assert outlier_scores[0] < outlier_scores[1] < outlier_scores[2]


def test_warm_up_is_marked_and_ends():
    """The first events of every sensor are marked as warm-up, later ones are live."""
    story, shard = Story(), Shard(options())
    noise(story, 400, sensors=("a", "b"))
    (result,) = story.play(shard)
    assert not result.scores.live[:128].any()
    assert result.scores.live[-100:].all()
    assert shard.status().warming_sensors == 0


def test_incidents_open_once_and_close_after_quiet_events():
    """A run of alarms is one incident, published when it opens and after enough events without an alarm."""
    story, shard = Story(), Shard(options(), incidents=IncidentSettings(quiet_events=4))
    noise(story, 400)
    fault = [story.event("a", {"f0": 40.0, "f1": 10.0, "f2": 10.0}) for _ in range(3)]
    noise(story, 60, seed=5)
    messages = incidents(story.play(shard, cut=7))
    ours = [incident for incident in messages if incident.incident_id == f"a/{fault[0]}"]
    assert [incident.state for incident in ours] == ["open", "closed"]
    assert ours[1].reason == "over"
    assert ours[1].events >= 3
    assert ours[1].features[0] == ours[1].contributions[0].feature == "f0"
    assert shard.status().alarmed_sensors == 0


@given(
    st.text(min_size=1, max_size=256), st.lists(st.text(min_size=1, max_size=320), min_size=2, max_size=2, unique=True)
)
@example("s" * 256, ["e1", "e2"])
@example("s" * 255, ["e1", "e2"])
@example("s", ["e" * 320, "e" * 319 + "f"])
def test_incident_ids_differ_however_long_names_are(sensor, events):
    """Two incidents of a sensor have different, stable ids of at most 256 characters, and short ones are whole."""
    made = {}
    for event in events * 2:
        kept = Incidents(USUAL_INCIDENTS)
        fields = {"first_event": event, "start_ns": 0, "end_ns": 0, "events": 1, "peak": 0.9, "peak_event": event}
        fields |= {"kind": 1, "severity": 0, "peak_alarm": 1.0, "contributions": [], "classes": [], "quiet": 0}
        kept.load({sensor: fields})
        (closed,) = kept.close_all_but(())
        assert made.setdefault(event, closed.incident_id) == closed.incident_id
        assert len(closed.incident_id) <= 256
        if len(f"{sensor}/{event}") <= 256:
            assert closed.incident_id == f"{sensor}/{event}"
    assert len(set(made.values())) == 2


def test_a_new_feature_keeps_what_was_learned():
    """A sensor that gains a feature stays live and keeps its state and scores."""
    story, shard = Story(), Shard(options())
    noise(story, 400, features=2)
    noise(story, 200, features=3, seed=1)
    (result,) = story.play(shard)
    assert result.scores.live[150:].all()
    assert np.isfinite(result.scores.score).all()
    assert (result.scores.alarm[410:] >= 1).mean() < 0.2
    assert len(shard.sensors) == 1


def test_a_vanished_feature_is_missing_and_raises_no_alarm():
    """A feature that stops arriving, or arrives as null, is left out of the score."""
    story = Story()
    noise(story, 400)
    for number in range(100):
        story.event("a", {"f0": 10.0 + np.sin(number), "f1": None} if number % 2 else {"f0": 10.0 + np.sin(number)})
    (result,) = story.play(Shard(options()))
    assert np.isfinite(result.scores.score).all()
    assert (result.scores.alarm[400:] >= 1).mean() < 0.2


def test_an_event_without_any_reading_is_no_anomaly():
    """An event whose readings are all missing raises no alarm and changes no model."""
    story, shard = Story(), Shard(options())
    noise(story, 400)
    for _ in range(5):
        story.event("a", {"f0": None, "f1": None, "f2": None})
    (result,) = story.play(shard)
    assert (result.scores.alarm[400:] < 1).all()
    assert np.isfinite(result.scores.score).all()


@pytest.mark.parametrize("glitch", [1e308, -1e308, 1e20])
def test_an_absurd_reading_is_an_anomaly_without_a_trace(glitch):
    """A finite but absurd reading, even one labelled normal, alarms and leaves no trace a hundred events later: few
    events alarm, and a fault scores above all of them.
    """
    story = Story()
    noise(story, 400)
    event = story.event("a", {"f0": glitch, "f1": 10.0, "f2": 10.0})
    story.label("a", "normal", event)
    noise(story, 300, seed=2)
    result = Story.play(story, Shard(options()))[0]
    assert np.isfinite(result.scores.score).all()
    assert result.scores.alarm[400] >= 1
    assert (result.scores.alarm[500:] >= 1).mean() < 0.1
    noise(story, 1, seed=3)
    story.event("a", {"f0": 40.0, "f1": 10.0, "f2": 10.0})
    later = scores(story.play(Shard(options())))[500:]
    assert later[-1] > later[:-1].max()


def test_inputs_are_not_changed():
    """A step does not change its input arrays."""
    story = busy_story(1, 300)
    events, labels = story.columns(0, 300)
    copies = [(block.values.copy(), block.rows.copy()) for block in events.blocks]
    Shard(options()).step(events, labels)
    for block, (values, rows) in zip(events.blocks, copies, strict=True):
        assert np.array_equal(block.values, values, equal_nan=True)
        assert np.array_equal(block.rows, rows)


def test_sensors_are_bounded():
    """Beyond detector.max_sensors the sensor silent for longest is evicted, counted, and comes back as new."""
    story, shard = Story(), Shard(options(detector={"max_sensors": 2}))
    noise(story, 120, sensors=("a", "b"))
    noise(story, 1, sensors=("c",))
    noise(story, 1, sensors=("b",))
    noise(story, 1, sensors=("a",))
    results = story.play(shard, cut=50)
    assert sorted(shard.sensors.numbers) == ["a", "b"]
    assert total(results, "sensors_evicted") == 2
    assert not results[-1].scores.live[-1]


def test_evicting_on_every_cut_gives_the_same():
    """Sensors that evict one another do so at the same records on every cut."""
    story = Story()
    noise(story, 400, sensors=("a", "b", "c"))
    noise(story, 100, sensors=("d", "a"), seed=1)
    chosen = options(detector={"max_sensors": 2})
    expected = scores(story.play(Shard(chosen)))
    for cut in (1, 13):
        assert np.array_equal(scores(story.play(Shard(chosen), cut=cut)), expected)


def test_memory_does_not_grow_with_time():
    """After every sensor is known, more events take no more memory."""
    story, shard = Story(), Shard(options())
    noise(story, 400, sensors=("a", "b"))
    story.play(shard)
    before, size = shard.status().state_bytes, len(shard.snapshot())
    since = story.second
    noise(story, 1500, sensors=("a", "b"), seed=2)
    story.play(shard, since=since)
    assert shard.status().state_bytes == before
    assert len(shard.snapshot()) < size * 1.05


def test_counts_are_complete_and_add_up():
    """Every step has every counter and outcome, and they add up to the events and labels."""
    story, shard = busy_story(7), Shard(options())
    results = story.play(shard, cut=100)
    for result in results:
        assert set(result.counts) == set(COUNTERS)
        assert set(result.label_outcomes) == set(LABEL_OUTCOMES)
    assert total(results, "events") == len(story.events)
    assert sum(total(results, outcome) for outcome in LABEL_OUTCOMES) == len(story.labels)


def test_a_frozen_detector_scores_and_learns_nothing():
    """With learning.enabled false the weights and thresholds stay as they were restored."""
    story, shard = Story(), Shard(options())
    noise(story, 400)
    story.play(shard)
    frozen = Shard.restore(shard.snapshot(), options(learning={"enabled": False}))
    before = frozen.sensors.detectors[0].network.state("")
    since = story.second
    noise(story, 200, seed=3)
    results = story.play(frozen, since=since)
    after = frozen.sensors.detectors[0].network.state("")
    assert all(np.array_equal(before[name], after[name], equal_nan=True) for name in before)
    assert total(results, "learn_steps") == 0
    assert (scores(results) > 0).all()


def damaged(data: bytes) -> bytes:
    middle = len(data) * 2 // 3
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize(
    ("hurt", "says"),
    [
        (lambda data: data[:100], "cannot be read"),
        (lambda _: b"", "cannot be read"),
        (lambda _: b"\x80\x04\x95 a pickle", "cannot be read"),
        (damaged, "checksum does not match"),
        (lambda data: data[: len(data) // 2], "cannot be used"),
        (lambda data: re.sub(rb'\\"format\\": \\"\d+\\"', b'\\"format\\": \\"99\\"', data), "format '99'"),
    ],
)
def test_a_damaged_snapshot_is_refused(hurt, says):
    """A truncated, altered or foreign snapshot, or one of another format, is a StateError that says so."""
    story, shard = Story(), Shard(options())
    noise(story, 100)
    story.play(shard)
    with pytest.raises(StateError, match=says):
        Shard.restore(hurt(shard.snapshot()), options())


def test_a_snapshot_of_other_settings_is_refused():
    """A snapshot of another batch size is refused with the settings that must fit; a new threshold is just applied."""
    story, shard = Story(), Shard(options())
    noise(story, 100)
    story.play(shard)
    with pytest.raises(StateError, match=r"learning\.batch_events"):
        Shard.restore(shard.snapshot(), options(learning={"batch_events": 16}))
    Shard.restore(shard.snapshot(), options(alarms={"false_incidents": 5, "per": "day"}, learning={"rate": 0.01}))


def test_nonsense_with_a_valid_checksum_is_refused():
    """A well-formed snapshot whose tables do not match is a StateError."""
    data = dump(options(), {"records": 1, "events": 1, "watermark_ns": 0, "sensors": {"ids": ["a"]}}, {})
    with pytest.raises(StateError, match="cannot be used"):
        Shard.restore(data, options())


def test_a_missing_device_is_an_error():
    """detector.device cuda without a GPU says what to do."""
    import torch  # noqa: PLC0415 - only to ask for the GPU

    if torch.cuda.is_available():
        assert Shard(options(detector={"device": "cuda"})).sensors.device == "cuda"
        return
    with pytest.raises(DeviceError, match=r"detector\.device is cuda"):
        Shard(options(detector={"device": "cuda"}))


@given(st.lists(st.text(max_size=30), min_size=1, max_size=20, unique=True))
def test_hashes_depend_on_the_text_alone(ids):
    """The hash of an id is the same alone and among others, and different ids differ."""
    together = hash_ids(ids).tolist()
    assert together == [hash_ids([event_id])[0] for event_id in ids]
    assert len(set(together)) == len(ids)
