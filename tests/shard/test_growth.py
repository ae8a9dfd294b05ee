"""Sensors and features that come and go: memory follows those present, on every cut, without an effect on others."""

from __future__ import annotations

import gc
import json
import tracemalloc
import weakref
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load

from stream_ad.detector.alarm_config import IncidentSettings
from stream_ad.detector.config import DetectorOptions
from stream_ad.detector.detector import Detector
from stream_ad.diagnostics.snapshot_inspect import _set_sizes
from stream_ad.errors import DamagedStateError, StateError
from stream_ad.shard import resting_sensors as resting_module
from stream_ad.shard.shard import Shard
from stream_ad.shard.snapshot_format import dump, metadata
from tests.support.streams import Story, noise, options, scores, total

NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)  # a story this long takes minutes to shrink
BLOCK = 16  # records without an event after which a sensor rests: the stories are short


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def resting_soon(monkeypatch):
    monkeypatch.setattr(resting_module, "REST_RECORDS", BLOCK)


def opened(data):
    """Header and arrays of a snapshot, as copies."""
    return json.loads(metadata(data)["header"]), {name: array.copy() for name, array in load(data).items()}


def features_of(shard, sensor="a"):
    return shard.sensors.features[shard.sensors.group[shard.sensors.numbers[sensor]]]


def one_feature_more_each(story, sensors, features, seed=0):
    """Each sensor gains its features one by one, in its own order."""
    random = np.random.default_rng(seed)
    for sensor in range(sensors):
        order = random.permutation(features).tolist()
        for count in range(1, features + 1):
            story.event(f"s{sensor}", {f"f{k}": float(random.normal(10)) for k in order[:count]})


# ---------------------------------------------------------------- detectors


@pytest.mark.parametrize("models", ["per-sensor", "shared"])
def test_a_detector_goes_with_its_last_sensor(models):
    """Feature sets that no sensor has any more leave neither a detector nor data in a snapshot."""
    story, shard = Story(), Shard(options(detector={"models": models}))
    one_feature_more_each(story, 6, 6)
    story.play(shard, cut=10)
    assert len(shard.sensors.detectors) == 1
    header, arrays = opened(shard.snapshot())
    assert [len(owners) for owners in header["sensors"]["owners"]] == [6]
    assert not any(name.startswith("g1.") for name in arrays)
    assert Shard.restore(shard.snapshot(), shard.options).snapshot() == shard.snapshot()


def test_memory_of_a_detector_goes_with_it():
    """A dropped detector is freed at once, without a garbage collection."""
    story, shard = Story(), Shard(options())
    noise(story, 100, features=2)
    story.play(shard)
    old, since = weakref.ref(shard.sensors.detectors[0]), story.second
    noise(story, 100)
    gc.disable()
    try:
        story.play(shard, since=since)
        assert old() is None
    finally:
        gc.enable()


def test_the_detector_of_an_evicted_sensor_goes():
    """Sensors with different features that evict one another leave no detectors behind."""
    story, shard = Story(), Shard(options(detector={"max_sensors": 3}))
    for number in range(40):
        story.event(f"s{number}", {f"f{number}": 1.0, "x": 2.0})
    results = story.play(shard, cut=7)
    assert total(results, "sensors_evicted") == 37
    assert len(shard.sensors.detectors) == 3


def test_replayed_events_of_a_removed_sensor_keep_a_scale():
    """Where a sensor of a shared model is removed, its replayed events count as those of one that is left."""
    story, shard = Story(), Shard(options(detector={"models": "shared", "max_sensors": 2}))
    noise(story, 200, sensors=("a", "b"))
    noise(story, 3, sensors=("a",))
    noise(story, 1, sensors=("c",), features=2)
    story.play(shard)
    left = shard.sensors.detectors[shard.sensors.group[shard.sensors.numbers["a"]]]
    assert left.size == 1
    assert left.network.replay.sensor[0].max() < left.size


def test_an_incident_of_an_evicted_sensor_closes():
    """The incident of an evicted sensor is closed, although its detector is dropped."""
    story, shard = Story(), Shard(options(detector={"max_sensors": 1}))
    noise(story, 400)
    fault = story.event("a", {"f0": 90.0, "f1": 10.0, "f2": 10.0})
    noise(story, 1, sensors=("b",), features=2)
    incidents = [incident for result in story.play(shard, cut=7) for incident in result.incidents]
    assert [incident.state for incident in incidents if incident.incident_id == f"a/{fault}"] == ["open", "closed"]
    assert len(shard.sensors.detectors) == 1


def test_detectors_without_sensors_in_older_snapshots_are_dropped():
    """A snapshot of an earlier version with detectors that no sensor uses is restored without them."""
    story, shard = Story(), Shard(options())
    noise(story, 100, sensors=("a", "b"))
    story.play(shard)
    whole = shard.snapshot()
    header, arrays = opened(whole)
    arrays = {name.replace("g0.", "g1."): array for name, array in arrays.items()}
    for number, features in ((0, 1), (2, 2)):
        arrays.update(Detector(features, options(), "cpu").state(f"g{number}."))
    sensors = header["sensors"]
    sensors["features"] = [["f0"], *sensors["features"], ["f0", "f1"]]
    sensors["owners"], sensors["arrived"] = [[], *sensors["owners"], []], [7, *sensors["arrived"], 9]
    assert Shard.restore(dump(options(), header, arrays), options()).snapshot() == whole


# ---------------------------------------------------------------- features


def test_the_feature_absent_for_longest_is_replaced():
    """Beyond detector.max_features a new feature replaces the one that has been absent for longest."""
    story, shard = Story(), Shard(options(detector={"max_features": 3}))
    noise(story, 10)
    for names in (("f2",), ("f0",), ("f1",), ("f0", "f9"), ("f8",)):
        story.event("a", dict.fromkeys(names, 10.0))
    results = story.play(shard, cut=4)
    assert total(results, "features_evicted") == 2
    assert total(results, "features_refused") == 0
    assert set(features_of(shard)) == {"f0", "f9", "f8"}


def test_an_event_of_too_many_features_changes_nothing():
    """An event with more features than a sensor may have is scored by those already present, and the refusal is
    counted. A new sensor gets the first ones by name.
    """
    story, shard = Story(), Shard(options(detector={"max_features": 3}))
    noise(story, 10)
    wide = {f"f{number}": 10.0 for number in range(5)}
    story.event("a", wide)
    story.event("b", wide)
    results = story.play(shard)
    assert total(results, "features_refused") == 2
    assert total(results, "features_evicted") == 0
    assert features_of(shard, "a") == features_of(shard, "b") == ("f0", "f1", "f2")
    assert np.isfinite(scores(results)).all()


@pytest.mark.parametrize("company", [False, True])
def test_a_replaced_feature_affects_no_other_feature(company):
    """Where a feature replaces another, the state of the others stays bit for bit, the model with its moments included,
    whether the sensor is alone in its detector or not.
    """
    story, shard = Story(), Shard(options(detector={"max_features": 3}))
    noise(story, 200, sensors=("a", "b") if company else ("a",))
    if company:  # as many events of the sensor as without company
        noise(story, 100, sensors=("a",), seed=0)
    story.play(shard)
    before, row = shard.sensors.detectors[0], int(shard.sensors.row[0])
    rows = {name: part.snapshot_row(row) for name, part in before.parts().items()}
    network = {name: array[row].copy() for name, array in before.network.stack.state("").items()}
    since = story.second
    story.event("a", {"f0": 10.0, "f2": 10.0})
    story.event("a", {"f0": 10.0, "g": 10.0})
    shard.step(*story.columns(since, story.second - 1))
    shard.sensors.add_features(0, ("f0", "g"))
    assert features_of(shard) == ("f0", "g", "f2")
    after, row = shard.sensors.detectors[shard.sensors.group[0]], int(shard.sensors.row[0])
    for part, name in (("scaler.", "mean"), ("scaler.", "count"), ("scoring.", "variance")):
        rest = [column for column in range(9) if column % 3 != 1]
        array = getattr(after.parts()[part], name)[row]
        assert np.array_equal(array[rest], rows[part][name][rest])
        assert len(set(array[1:9:3].tolist())) == 1
    assert np.isnan(after.pending.readings[row, :, 1]).all()
    width = after.network.width
    for name in ("flat", "first", "second"):
        left, stack = after.network.stack.state("")[name][row], after.network.stack
        changed = np.flatnonzero(left != network[name])
        first, last = stack.layers[0], stack.layers[-1]
        inputs = (changed < first.bias) & np.isin(changed // first.outputs % width, [1, 4, 7])
        outputs = (changed >= last.start) & np.isin((changed - last.start) % last.outputs, [1, 4, 7])
        assert (inputs | outputs).all()
        assert not left[changed].any()


def test_company_does_not_change_which_feature_is_replaced():
    """A sensor whose features are replaced scores the same alone and beside another that had the same features."""
    alone, among, rows = Story(), Story(), []
    random = np.random.default_rng(0)
    for number in range(200):
        values = {"x": float(random.normal(10)), "y": float(random.normal(10)), f"n{number // 20}": 1.0 * number}
        alone.event("a", values)
        if number < 20 or number % 3 == 0:
            among.event("b", {**values, "x": 3.0})
        rows.append(len(among.events))
        among.event("a", values)
    chosen = options(detector={"max_features": 4, "forget_features_after_events": 30})
    assert np.array_equal(scores(alone.play(Shard(chosen))), scores(among.play(Shard(chosen)))[rows])


def test_features_of_the_past_are_replaced_before_the_set_grows():
    """A new feature replaces one that has been absent for detector.forget_features_after_events; a feature that has
    always been rare is kept.
    """
    story = Story()
    for number in range(300):
        values = {"x": 10.0 + number % 3, f"n{number // 4}": 1.0}
        if number % 25 == 0:
            values["seldom"] = 5.0
        story.event("a", values)
    shard = Shard(options(detector={"forget_features_after_events": 30}))
    results = story.play(shard, cut=9)
    assert {"x", "seldom"} <= set(features_of(shard))
    assert len(features_of(shard)) <= 2 + 30 // 4 + 2
    assert total(results, "features_evicted") == 75 - (len(features_of(shard)) - 2)
    assert total(results, "features_refused") == 0
    assert len(shard.sensors.detectors) == 1


def test_features_without_a_reading_age_from_their_first_event():
    """A feature that only comes as null is not replaced at once, to be added again by the next event."""
    story, shard = Story(), Shard(options(detector={"forget_features_after_events": 30}))
    noise(story, 100, features=1)
    for number in range(20):
        story.event("a", {"f0": 10.0, "pq"[number % 2]: None})
    assert total(story.play(shard), "features_evicted") == 0
    assert features_of(shard) == ("f0", "p", "q")


def test_older_snapshots_lack_when_features_were_seen():
    """Where a snapshot lacks them, its readings show which feature has been absent for longest."""
    story, shard = Story(), Shard(options(detector={"max_features": 3}))
    noise(story, 100)
    for names in (("f2",), ("f0",), ("f1",)):
        story.event("a", dict.fromkeys(names, 10.0))
    story.play(shard)
    header, arrays = opened(shard.snapshot())
    arrays = {name: array for name, array in arrays.items() if ".shown." not in name}
    restored = Shard.restore(dump(shard.options, header, arrays), shard.options)
    since = story.second
    story.event("a", {"g": 1.0})
    for either in (shard, restored):
        story.play(either, since=since)
        assert features_of(either) == ("f0", "f1", "g")


def test_an_incident_outlives_the_replacement_of_features():
    """An open incident of a sensor whose features are replaced continues, and closes after its quiet events."""
    story, shard = Story(), Shard(options(detector={"max_features": 3}), incidents=IncidentSettings(quiet_events=4))
    noise(story, 400)
    fault = story.event("a", {"f0": 40.0, "f1": 10.0, "f2": 10.0})
    for number in range(40):
        story.event("a", {"f0": 10.0 + 0.1 * (number % 5), f"n{number % 20}": 1.0})
    incidents = [incident for result in story.play(shard, cut=7) for incident in result.incidents]
    assert [incident.state for incident in incidents if incident.incident_id == f"a/{fault}"] == ["open", "closed"]


# ---------------------------------------------------------------- rest


def visits(story, sensors, *, events=10, labels=False, features=3):
    """Sensors that come one after the other, with a few events each; now and then one comes back."""
    random, ids = np.random.default_rng(1), []
    for number in range(sensors):
        ids.append(noise(story, events, sensors=(f"s{number}",), seed=number, features=features))
        if labels and number % 2 == 0:
            back = int(random.integers(0, number + 1))
            story.label(f"s{back}", "leak", ids[back][number % 5])
            story.interval(f"s{back}", "normal", 1, story.second + 20)
        if number % 7 == 6:
            noise(story, 3, sensors=(f"s{number - 5}",), seed=number, features=features + number % 2)


def test_rest_changes_nothing(monkeypatch):
    """Scores, labels and learning of sensors that have rested are the same, bit for bit, as if they had not."""
    story = Story()
    visits(story, 40, labels=True)
    noise(story, 400, sensors=tuple(f"s{number}" for number in range(0, 40, 5)), seed=7)
    outcomes = []
    for block in (10**9, BLOCK):
        monkeypatch.setattr(resting_module, "REST_RECORDS", block)
        shard, rested = Shard(options()), 0
        results = []
        for start in range(0, story.second, 10):
            results.append(shard.step(*story.columns(start, start + 10)))
            rested = max(rested, len(shard.sensors.resting))
        outcomes.append((scores(results), [result.label_outcomes for result in results], shard.label_store.state()))
        assert (rested > 20) == (block == BLOCK)
    assert np.array_equal(outcomes[0][0], outcomes[1][0])
    assert outcomes[0][1:] == outcomes[1][1:]


def test_a_resting_sensor_is_counted_and_evicted_like_any_other(resting_soon):
    """Resting sensors count as warming up with events that wait, and the one silent for longest is evicted first."""
    story, shard = Story(), Shard(options(detector={"max_sensors": 5}))
    visits(story, 5)
    story.play(shard, cut=11)
    assert len(shard.sensors.resting) == 3
    status = shard.status()
    assert (status.sensors, status.warming_sensors, status.pending_events) == (5, 5, 50)
    since = story.second
    noise(story, 1, sensors=("new",))
    story.play(shard, since=since)
    assert "s0" not in shard.sensors.numbers
    assert len(shard.sensors.resting) == 2
    assert shard.status().sensors == 5
    header, _ = opened(shard.snapshot())
    assert _set_sizes(header["sensors"]) == (3,)


@pytest.fixture(scope="module")
def with_resting():
    """A snapshot in which most sensors rest, one of them with a model that was widened."""
    story, shard = Story(), Shard(options())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resting_module, "REST_RECORDS", BLOCK)
        visits(story, 10)
        story.event("w", {"f0": 1.0})
        story.event("w", {"f0": 1.0, "f1": 2.0})
        visits(story, 3, events=20)
        story.play(shard)
        assert len(shard.sensors.resting) > 5
        return shard.snapshot()


@pytest.mark.parametrize(
    "change",
    [
        lambda header, arrays: header["numbers"].reverse(),
        lambda header, arrays: header["numbers"].__setitem__(0, 10**6),
        lambda header, arrays: header["features"].clear(),
        lambda header, arrays: header["features_of"].__setitem__(0, 99),
        lambda header, arrays: header["events"].__setitem__(0, 5),
        lambda header, arrays: header["columns"].reverse(),
        lambda header, arrays: arrays.pop("resting.data"),
        lambda header, arrays: arrays.update({"resting.data": arrays["resting.data"][:-1]}),
        lambda header, arrays: arrays.update({"resting.lengths": arrays["resting.lengths"][:, :-1]}),
        lambda header, arrays: arrays["resting.lengths"].__setitem__((0, 0), 2**32 - 1),
        lambda header, arrays: arrays["resting.data"].__setitem__(slice(None), 255),
    ],
    ids=range(11),
)
def test_forged_resting_sensors_are_refused(with_resting, change):
    """Resting sensors in an impossible state are refused when a snapshot is read, not when they wake."""
    header, arrays = opened(with_resting)
    assert Shard.restore(dump(options(), header, arrays), options()).snapshot() == with_resting
    change(header["sensors"]["resting"], arrays)
    with pytest.raises(DamagedStateError, match="cannot be used"):
        Shard.restore(dump(options(), header, arrays), options())


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_bytes_of_resting_sensors_are_refused_or_harmless(with_resting, data):
    """Any bytes in the data of resting sensors are refused or give a shard that can continue."""
    header, arrays = opened(with_resting)
    array = arrays[data.draw(st.sampled_from(["resting.data", "resting.lengths"]))].reshape(-1)
    for _ in range(3):
        array[data.draw(st.integers(0, len(array) - 1))] = data.draw(st.integers(0, 255))
    try:
        shard = Shard.restore(dump(options(), header, arrays), options())
    except StateError:
        return
    story = Story()
    noise(story, 80, sensors=tuple(shard.sensors.numbers))
    story.play(shard)
    shard.snapshot()


# ---------------------------------------------------------------- cuts


def churn(seed: int, records: int = 260) -> Story:
    """Sensors and features that come and go, with labels on some of them."""
    random, story = np.random.default_rng(seed), Story()
    ids: list[tuple[str, str]] = []
    for number in range(records):
        sensor = f"s{random.integers(max(0, number // 20 - 2), number // 20 + 3)}"
        if random.random() < 0.05:
            sensor = f"s{random.integers(0, 16)}"
        if ids and random.random() < 0.15:
            target, event = ids[int(random.integers(len(ids)))]
            name = random.choice(["normal", "leak", ""]) or None
            if random.random() < 0.3:
                story.interval(target, name, story.second - 60, story.second + 30)
            else:
                story.label(target, name, event)
            continue
        first = number // 40 if random.random() < 0.9 else int(random.integers(0, 8))
        names = [f"f{first + k}" for k in range(int(random.integers(1, 5)))]
        ids.append((sensor, story.event(sensor, {name: float(random.normal(10)) for name in names})))
    return story


@pytest.mark.parametrize("models", ["per-sensor", "shared"])
@settings(max_examples=6, deadline=None, phases=NO_SHRINKING, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10_000), data=st.data())
def test_churn_gives_the_same_on_every_cut(models, seed, data):
    """With sensors and features that come and go, are evicted, rest, and wake or get labels, scores, outcomes and
    snapshots are the same on every cut and through restarts; there are never more detectors than sensors.
    """
    story = churn(seed)
    bounds = {
        "models": models,
        "max_sensors": data.draw(st.sampled_from([3, 7, 100])),
        "max_features": data.draw(st.sampled_from([4, 6, 64])),
        "forget_features_after_events": data.draw(st.sampled_from([1, 10, 1000])),
    }
    chosen = options(
        detector=bounds,
        learning={"batch_events": 8, "label_horizon_events": 16, "warmup_events": 64, "replay_events": 32},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resting_module, "REST_RECORDS", data.draw(st.sampled_from([4, 16, 64])))
        whole = Shard(chosen)
        expected, state = scores(story.play(whole)), whole.snapshot()
        random = sorted({0, story.second, *data.draw(st.lists(st.integers(1, story.second), max_size=12))})
        for cut in (range(story.second + 1), random):
            shard, restarted, results, others = Shard(chosen), Shard(chosen), [], []
            for number, (start, stop) in enumerate(pairwise(cut)):
                results.append(shard.step(*story.columns(start, stop)))
                if cut is random or number % 9 == 0:
                    restarted = Shard.restore(restarted.snapshot(), chosen)
                others.append(restarted.step(*story.columns(start, stop)))
                sensors = shard.sensors
                assert len(sensors.detectors) <= len(sensors) - len(sensors.resting)
                assert all(sensors.owners)
            assert np.array_equal(scores(results), expected)
            assert np.array_equal(scores(others), expected)
            assert shard.snapshot() == restarted.snapshot() == state


def test_a_label_comes_before_the_event_that_evicts_its_sensor():
    """A label just before the event that evicts its sensor is joined first, also where a step begins with it."""
    story = Story()
    event = noise(story, 20)[3]
    noise(story, 1, sensors=("b",))
    story.label("a", "leak", "to-come")
    story.label("a", "leak", event)
    label = story.second
    noise(story, 40, sensors=("c",))
    chosen = options(detector={"max_sensors": 2})
    snapshots, outcomes = set(), set()
    for cut in ([0, story.second], [0, label - 2, story.second], [0, label - 1, story.second], range(story.second + 1)):
        shard = Shard(chosen)
        results = [shard.step(*story.columns(start, stop)) for start, stop in pairwise(cut)]
        snapshots.add(shard.snapshot())
        outcomes.add((total(results, "applied"), total(results, "early"), total(results, "unknown_sensor")))
    assert len(snapshots) == 1
    assert outcomes == {(1, 1, 0)}


# ---------------------------------------------------------------- memory


def memory(shard, story):
    """Bytes after each tenth of a story: those that the shard reports, and those that Python has allocated."""
    tenth, measured = story.second // 10, []
    tracemalloc.start()
    try:
        for start in range(0, 10 * tenth, tenth):
            shard.step(*story.columns(start, start + tenth))
            gc.collect()
            measured.append((shard.status().state_bytes, tracemalloc.get_traced_memory()[0]))
    finally:
        tracemalloc.stop()
    return np.array(measured)


@pytest.mark.parametrize("bounds", [{}, {"max_sensors": 20}])
def test_memory_stays_flat_with_sensors_that_come_and_go(bounds):
    """A thousand sensors of ten events each take at most a tenth more memory than the first two hundred."""
    story = Story()
    for number in range(1000):
        noise(story, 10, sensors=(f"s{number}",), seed=number)
    shard = Shard(DetectorOptions.model_validate({"detector": bounds}))
    measured = memory(shard, story)
    assert (measured[-1] <= 1.1 * measured[1]).all(), measured
    assert len(shard.sensors) == bounds.get("max_sensors", 1000)


def test_memory_stays_flat_with_changing_features():
    """A sensor with a new feature every four events takes at most a tenth more memory than after a fifth of them."""
    story = Story()
    for number in range(1200):
        story.event("a", {"x": 10.0 + number % 3, f"n{number // 4}": 1.0})
    for bounds in ({"max_features": 16}, {"forget_features_after_events": 60}):
        shard = Shard(options(detector=bounds))
        measured = memory(shard, story)
        assert (measured[-1] <= 1.1 * measured[1]).all(), measured
        assert len(shard.sensors.detectors) == 1


def test_memory_of_labels_that_wait_counts():
    """Labels that wait for events that never come count in the memory that a shard reports."""
    story, shard = Story(), Shard(options())
    noise(story, 10)
    story.play(shard)
    before, since = shard.status().state_bytes, story.second
    for number in range(50):
        story.label("a", "leak", f"never-{number}")
    story.play(shard, since=since)
    assert shard.status().state_bytes >= before + 50 * 200
