"""What a shard promises: the same results on every cut, bounded state, state that survives."""

from __future__ import annotations

import hashlib
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from stream_ad.errors import DeviceError, StateError
from stream_ad.shard import shard as shard_module
from stream_ad.shard.event_hash import hash_ids
from stream_ad.shard.incidents import Incidents
from stream_ad.shard.label_store import LABEL_OUTCOMES
from stream_ad.shard.shard import COUNTERS, STATISTICS_RECORDS, Shard, next_statistics_record
from stream_ad.shard.snapshot_format import dump
from tests.support.streams import Story, noise, options, scores, total

NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)  # a story this long takes minutes to shrink


def busy_story(seed: int, records: int = 400) -> Story:
    """Sensors of two feature sets, missing readings, faults, and verdicts of every kind."""
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
    """One record at a time, 7, 500, all at once or at random: the same scores and the same state, bit for bit."""
    story, chosen = busy_story(seed), options(detector={"models": models})
    whole = Shard(chosen)
    with pytest.MonkeyPatch.context() as patch:  # the story is short: let importance change several times in it
        patch.setattr(shard_module, "FIRST_STATISTICS_RECORD", 32)
        patch.setattr(shard_module, "STATISTICS_RECORDS", 128)
        expected = scores(story.play(whole))
        state = whole.snapshot()
        bounds = sorted({0, story.second, *data.draw(st.lists(st.integers(1, story.second), max_size=12))})
        cuts = [range(0, story.second + n, n) for n in (1, 7, 500)] + [bounds]
        for cut in cuts:
            shard = Shard(chosen)
            results = [shard.step(*story.columns(a, b)) for a, b in pairwise(cut)]
            assert np.array_equal(scores(results), expected)
            assert shard.snapshot() == state


@given(st.integers(0, 100_000), st.integers(0, 20_000))
def test_importance_comes_into_force_at_places_of_the_stream(records, more):
    """Wherever a step ends, the next such place is the one that was the next before; places are never far apart."""
    place = next_statistics_record(records)
    assert 0 < place - records <= STATISTICS_RECORDS
    assert next_statistics_record(min(records + more, place - 1)) == place


def test_learned_weights_differ_when_a_record_differs():
    """The comparison above can fail: one other reading gives another state."""
    one, other = Story(), Story()
    noise(one, 200)
    noise(other, 200)
    second, sensor, values, event = other.events[50]
    other.events[50] = (second, sensor, {**values, "f0": 11.5}, event)
    digests = set()
    for story in (one, other):
        shard = Shard(options())
        story.play(shard)
        digests.add(hashlib.sha256(shard.snapshot()).hexdigest())
    assert len(digests) == 2


def test_restored_shard_goes_on_as_if_never_stopped():
    """Stopped anywhere and restored from its snapshot, a shard gives the scores of one that was never stopped, and
    ends in the same state, with the verdicts that wait for events to come.
    """
    story, whole = busy_story(3), Shard(options())
    expected = scores(story.play(whole))
    for stop in (1, 63, 300, 399):
        first = Shard(options())
        before = first.step(*story.columns(0, stop))
        second = Shard.restore(first.snapshot(), options())
        assert second.snapshot() == first.snapshot()
        after = second.step(*story.columns(stop, story.second))
        assert np.array_equal(scores([before, after]), expected)
        assert second.snapshot() == whole.snapshot()


def test_a_sensor_does_not_depend_on_its_neighbours():
    """A sensor's scores are the same alone and among others that arrive between its events (a model per sensor)."""
    alone, among = Story(), Story()
    random = np.random.default_rng(0)
    mine = []
    for number in range(300):
        values = {f"f{k}": float(v) for k, v in enumerate(random.normal(10, 1, 3))}
        alone.event("a", values, f"a-{number}")
        mine.append(len(among.events))
        among.event("a", values, f"a-{number}")
        for other in range(int(random.integers(0, 3))):
            among.event(f"b{other}", {f"f{k}": float(v) for k, v in enumerate(random.normal(0, 5, 3))})
    assert np.array_equal(scores(alone.play(Shard(options()))), scores(among.play(Shard(options())))[mine])


def test_the_seed_decides():
    """The same seed gives the same scores, another seed others."""
    story = Story()
    noise(story, 300)

    def play(seed: int) -> np.ndarray:
        return scores(story.play(Shard(options(detector={"seed": seed}))))

    assert np.array_equal(play(1), play(1))
    assert not np.array_equal(play(1), play(2))


def test_an_outlier_is_an_anomaly_and_names_its_feature():
    """A reading 30 sd off is a live anomaly that names its feature first, with value and usual value."""
    story, shard = Story(), Shard(options())
    noise(story, 400)
    story.event("a", {"f0": 10.0, "f1": 40.0, "f2": 10.0})
    (result,) = story.play(shard)
    assert result.scores.live[-1]
    assert result.scores.score[-1] > 1
    first = result.scores.contributions[400][0]
    assert (first.feature, first.value) == ("f1", 40.0)
    assert abs(first.expected - 10) < 3
    assert sum(one.share for one in result.scores.contributions[400]) == pytest.approx(1)


def test_the_farther_the_higher():
    """Beyond what scaling would clip, a farther reading still scores no lower."""
    found = []
    for far in (14.0, 16.0, 20.0):
        story = Story()
        noise(story, 400)
        story.event("a", {"f0": far, "f1": 10.0, "f2": 10.0})
        found.append(scores(story.play(Shard(options())))[-1])
    assert found[0] < found[1] < found[2]


def test_warm_up_is_marked_and_ends():
    """The first events of every sensor are marked as warm-up, later ones are live."""
    story, shard = Story(), Shard(options())
    noise(story, 400, sensors=("a", "b"))
    (result,) = story.play(shard)
    assert not result.scores.live[:128].any()
    assert result.scores.live[-100:].all()
    assert shard.status().warming_sensors == 0


def test_incidents_open_once_and_close_after_a_quiet_time():
    """A run of anomalies is one incident: published when it opens and when it has been quiet long enough."""
    story, shard = Story(), Shard(options(), quiet_events=4)
    noise(story, 400)
    fault = [story.event("a", {"f0": 40.0, "f1": 10.0, "f2": 10.0}) for _ in range(3)]
    noise(story, 60, seed=5)
    incidents = [one for result in story.play(shard, cut=7) for one in result.incidents]
    ours = [one for one in incidents if one.incident_id == f"a/{fault[0]}"]
    assert [one.state for one in ours] == ["open", "closed"]
    assert ours[1].events >= 3
    assert ours[1].features[0] == "f0"
    assert shard.status().alarmed_sensors == 0


@given(
    st.text(min_size=1, max_size=256), st.lists(st.text(min_size=1, max_size=320), min_size=2, max_size=2, unique=True)
)
@example("s" * 256, ["e1", "e2"])
@example("s" * 255, ["e1", "e2"])
@example("s", ["e" * 320, "e" * 319 + "f"])
def test_incidents_keep_apart_however_long_their_names(sensor, events):
    """Two incidents of a sensor have two ids of 256 characters at most, always the same; short ones say all."""
    made = {}
    for event in events * 2:
        incidents = Incidents(quiet_events=1)
        known = {"first_event": event, "start_ns": 0, "end_ns": 0, "events": 1, "peak": 1.0, "peak_event": event}
        incidents.load({sensor: known | {"features": [], "quiet": 0}})
        (closed,) = incidents.close_all_but(())
        assert made.setdefault(event, closed.incident_id) == closed.incident_id
        assert len(closed.incident_id) <= 256
        if len(f"{sensor}/{event}") <= 256:
            assert closed.incident_id == f"{sensor}/{event}"
    assert len(set(made.values())) == 2


def test_a_new_feature_joins_what_was_learned():
    """A sensor that shows a further feature stays live, keeps its state, and scores without it as before."""
    story, shard = Story(), Shard(options())
    noise(story, 400, features=2)
    noise(story, 200, features=3, seed=1)
    (result,) = story.play(shard)
    assert result.scores.live[150:].all()
    assert np.isfinite(result.scores.score).all()
    assert (result.scores.score[410:] >= 1).mean() < 0.2
    assert len(shard.sensors) == 1


def test_a_vanished_feature_is_missing_and_raises_no_alarm():
    """A feature that stops arriving, or arrives as null, is left out of the score."""
    story = Story()
    noise(story, 400)
    for number in range(100):
        story.event("a", {"f0": 10.0 + np.sin(number), "f1": None} if number % 2 else {"f0": 10.0 + np.sin(number)})
    (result,) = story.play(Shard(options()))
    assert np.isfinite(result.scores.score).all()
    assert (result.scores.score[400:] >= 1).mean() < 0.2


def test_an_event_without_any_reading_scores_like_nothing():
    """An event whose readings are all missing is no anomaly and moves no model."""
    story, shard = Story(), Shard(options())
    noise(story, 400)
    for _ in range(5):
        story.event("a", {"f0": None, "f1": None, "f2": None})
    (result,) = story.play(shard)
    assert (result.scores.score[400:] < 1).all()
    assert np.isfinite(result.scores.score).all()


@pytest.mark.parametrize("glitch", [1e308, -1e308, 1e20])
def test_an_absurd_reading_is_an_anomaly_and_then_over(glitch):
    """A finite but absurd reading, even one labelled normal, alarms and leaves no trace a hundred events later."""
    story = Story()
    noise(story, 400)
    event = story.event("a", {"f0": glitch, "f1": 10.0, "f2": 10.0})
    story.label("a", "normal", event)
    noise(story, 300, seed=2)
    result = Story.play(story, Shard(options()))[0]
    assert np.isfinite(result.scores.score).all()
    assert result.scores.score[400] > 1
    assert (result.scores.score[500:] >= 1).mean() < 0.1
    noise(story, 1, seed=3)
    story.event("a", {"f0": 40.0, "f1": 10.0, "f2": 10.0})
    assert scores(story.play(Shard(options())))[-1] > 1


def test_inputs_are_not_changed():
    """A step leaves the arrays it was given as they were."""
    story = busy_story(1, 300)
    events, labels = story.columns(0, 300)
    copies = [(block.values.copy(), block.rows.copy()) for block in events.blocks]
    Shard(options()).step(events, labels)
    for block, (values, rows) in zip(events.blocks, copies, strict=True):
        assert np.array_equal(block.values, values, equal_nan=True)
        assert np.array_equal(block.rows, rows)


def test_sensors_are_bounded():
    """Beyond detector.max_sensors the longest silent sensor makes room, is counted, and comes back as new."""
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
    """Sensors that push one another out do so at the same records on every cut."""
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
    """Every counter and outcome is there at every step, and what was learned, dropped or waits is what came."""
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


def test_drift_is_detected_and_counted():
    """A lasting change of a sensor's level is counted as drift; a calm stream has none."""
    calm, moving = Story(), Story()
    noise(calm, 3000)
    noise(moving, 2000)
    random = np.random.default_rng(9)
    for _ in range(1000):
        moving.event("a", {f"f{k}": float(v) for k, v in enumerate(random.normal(14, 1, 3))})
    assert total(calm.play(Shard(options())), "drift") == 0
    assert total(moving.play(Shard(options())), "drift") > 0


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
        (lambda data: re.sub(rb'\\"format\\": \\"\d+\\"', b'\\"format\\": \\"9\\"', data), "format '9'"),
    ],
)
def test_a_damaged_snapshot_is_refused(hurt, says):
    """Cut off, altered, foreign or of another format: a StateError that says so, never another exception."""
    story, shard = Story(), Shard(options())
    noise(story, 100)
    story.play(shard)
    with pytest.raises(StateError, match=says):
        Shard.restore(hurt(shard.snapshot()), options())


def test_a_snapshot_of_other_settings_is_refused():
    """A snapshot made with another batch size names the settings that must fit; a new threshold is just applied."""
    story, shard = Story(), Shard(options())
    noise(story, 100)
    story.play(shard)
    with pytest.raises(StateError, match=r"learning\.batch_events"):
        Shard.restore(shard.snapshot(), options(learning={"batch_events": 16}))
    Shard.restore(shard.snapshot(), options(threshold={"false_alarm_rate": 0.2}, learning={"rate": 0.01}))


def test_a_snapshot_with_a_fitting_checksum_and_nonsense_inside_is_refused():
    """Even a well-formed snapshot whose tables do not match is a StateError."""
    data = dump(options(), {"records": 1, "events": 1, "watermark_ns": 0, "sensors": {"ids": ["a"]}}, {})
    with pytest.raises(StateError, match="cannot be used"):
        Shard.restore(data, options())


def test_a_device_that_is_not_there_is_an_error():
    """detector.device cuda without a GPU says what to do."""
    import torch  # noqa: PLC0415 - only to ask for the GPU

    if torch.cuda.is_available():
        assert Shard(options(detector={"device": "cuda"})).sensors.device == "cuda"
        return
    with pytest.raises(DeviceError, match=r"detector\.device is cuda"):
        Shard(options(detector={"device": "cuda"}))


@given(st.lists(st.text(max_size=30), min_size=1, max_size=20, unique=True))
def test_hashes_depend_on_the_text_alone(ids):
    """An id's hash is the same alone and among others, and different ids differ."""
    together = hash_ids(ids).tolist()
    assert together == [hash_ids([one])[0] for one in ids]
    assert len(set(together)) == len(ids)
