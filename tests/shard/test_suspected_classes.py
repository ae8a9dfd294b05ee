"""Classes that incidents are suspected of: named once they were labelled, exact on every cut, bounded."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load

from stream_ad.detector.feedback.class_votes import LEAST_PROBABILITY, MOST_SUSPECTED
from stream_ad.errors import DamagedStateError
from stream_ad.shard import shard as shard_module
from stream_ad.shard.shard import Shard
from stream_ad.shard.snapshot_format import dump, metadata
from tests.support.streams import Story, options

FAULTS = {"leak": (9.0, -9.0, 0.0, 0.0), "wear": (0.0, 0.0, 9.0, 9.0), "slip": (-9.0, 0.0, 0.0, 9.0)}
CALM = (0.0, 0.0, 0.0, 0.0)
LASTS = 10
ALARMS = {"per": "1000 events"}


def at_every_128_records(patch):
    """Let statistics apply often: the stories are short."""
    patch.setattr(shard_module, "FIRST_STATISTICS_RECORD", 32)
    patch.setattr(shard_module, "STATISTICS_RECORDS", 128)


class Plant:
    """Writes readings of machines, their faults and the labels of these."""

    def __init__(self, seed=0):
        self.random, self.story, self.sensors = np.random.default_rng(seed), Story(), ("a", "b")

    def run(self, events):
        """Write calm readings of all machines."""
        for _ in range(events):
            for sensor in self.sensors:
                self._event(sensor, CALM)

    def fault(self, sensor, offsets, label=None):
        """Break a machine for a while; return the second before, and label the fault 40 events later."""
        before = self.story.second
        ids = []
        for _ in range(LASTS):
            ids.append(self._event(sensor, offsets))
            for other in self.sensors:
                if other != sensor:
                    self._event(other, CALM)
        self.run(40)
        for event in ids if label else ():
            self.story.label(sensor, label, event)
        return before

    def _event(self, sensor, offsets):
        values = self.random.normal(10, 1, 4) + offsets
        return self.story.event(sensor, {f"f{k}": float(value) for k, value in enumerate(values)})


def suspects(shard, story, since, sensor):
    """Play a story; return what the incidents of a sensor that opened after a second said last, by incident."""
    latest = {}
    for result in story.play(shard):
        for incident in result.incidents:
            if incident.sensor_id == sensor and incident.start.timestamp() > since:
                latest[incident.incident_id] = [(each.name, each.probability) for each in incident.classes]
    return list(latest.values())


def taught(*names, times=2):
    """A plant whose machine a had faults of these classes, each labelled so many times."""
    plant = Plant()
    plant.run(600)
    for _ in range(times):
        for name in names:
            plant.fault("a", FAULTS[name], name)
            plant.run(60)
    return plant


@pytest.mark.parametrize("name", FAULTS)
def test_a_class_labelled_twice_is_named_on_its_next_occurrence(name):
    """Among three classes that were labelled twice, the one that comes back is suspected most, by more than half."""
    plant = taught(*FAULTS)
    since = plant.fault("a", FAULTS[name])
    ((first, probability), *others), *_ = suspects(Shard(options(alarms=ALARMS)), plant.story, since, "a")
    assert first == name
    assert probability > 0.5
    assert all(LEAST_PROBABILITY <= each <= probability for _, each in others)
    assert len(others) < MOST_SUSPECTED


def test_a_class_is_known_to_the_other_sensors_of_the_shard():
    """What was labelled on one machine is suspected on another that has had no label, once it is shared."""
    plant = taught("leak", "wear")
    plant.run(200)
    since = plant.fault("b", FAULTS["wear"])
    with pytest.MonkeyPatch.context() as patch:
        at_every_128_records(patch)
        (said, *_) = suspects(Shard(options(alarms=ALARMS)), plant.story, since, "b")
    assert said[0][0] == "wear"


def test_a_fault_unlike_any_before_is_mostly_of_no_known_class():
    """Where nothing alike was labelled, the probabilities leave more than half to classes yet unknown."""
    plant = taught("leak", times=1)
    since = plant.fault("a", (0.0, 0.0, 9.0, 9.0))
    (said, *_) = suspects(Shard(options(alarms=ALARMS)), plant.story, since, "a")
    assert sum(probability for _, probability in said) < 0.5


def test_without_labels_no_class_is_suspected():
    """Where nobody labels, incidents open and name no class."""
    plant = Plant()
    plant.run(600)
    since = plant.fault("a", FAULTS["leak"])
    said = suspects(Shard(options(alarms=ALARMS)), plant.story, since, "a")
    assert said
    assert not any(said)


NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)  # a story this long takes minutes to shrink


@pytest.mark.parametrize("models", ["per-sensor", "shared"])
@settings(max_examples=4, deadline=None, phases=NO_SHRINKING, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_cuts_change_no_suspicion(models, data):
    """However the records are cut, and wherever a shard is restored, the same classes are suspected of each event."""
    plant = taught(*FAULTS, times=1)
    for sensor, name in (("b", "wear"), ("a", "leak"), ("b", "slip")):
        plant.fault(sensor, FAULTS[name], name)
    story, chosen = plant.story, options(alarms=ALARMS, detector={"models": models})

    def run(bounds, restored):
        shard, said = Shard(chosen), {}
        for start, end in pairwise(bounds):
            events, labels = story.columns(start, end)
            result = shard.step(events, labels)
            said |= {events.event_ids[i]: classes for i, classes in result.scores.classes.items()}
            if restored:
                state = shard.snapshot()
                shard = Shard.restore(state, chosen)
                assert shard.snapshot() == state
        return said, shard.snapshot()

    with pytest.MonkeyPatch.context() as patch:
        at_every_128_records(patch)
        whole = run((0, story.second), restored=False)
        assert whole[0]
        drawn = data.draw(st.lists(st.integers(1, story.second - 1), max_size=12, unique=True))
        for bounds in ((*range(0, story.second, 7), story.second), (0, *sorted(drawn), story.second)):
            assert run(bounds, restored=False) == whole
        assert run((0, *sorted(drawn), story.second), restored=True) == whole


def test_many_classes_with_long_names_take_bounded_memory():
    """Two hundred classes with names as long as labels allow leave the state of the detector as large as ten do."""
    sizes = []
    for number in (10, 200):
        plant = Plant()
        plant.sensors = ("a",)
        plant.run(300)
        for k in range(200):
            plant.fault("a", FAULTS["leak"], f"{k % number:03d}" + "ß" * 253)
        shard = Shard(options(alarms=ALARMS))
        results = plant.story.play(shard)
        named = {name for result in results for incident in result.incidents for name in incident.classes}
        assert all(len(each.name) <= 256 for each in named)
        sizes.append(shard.sensors.detectors[0].nbytes)
    assert sizes[0] == sizes[1]


def test_a_snapshot_with_a_fault_of_no_class_is_refused():
    """A fault of a class that does not exist would fail when an alarm names it: the snapshot is damaged."""
    plant = taught("leak", times=1)
    shard = Shard(options(alarms=ALARMS))
    plant.story.play(shard)
    data = shard.snapshot()
    header, arrays = json.loads(metadata(data)["header"]), {name: array.copy() for name, array in load(data).items()}
    arrays["g0.faults.rings.label"][0, 0] = 77
    with pytest.raises(DamagedStateError, match="fault of a class"):
        Shard.restore(dump(options(alarms=ALARMS), header, arrays), options(alarms=ALARMS))
