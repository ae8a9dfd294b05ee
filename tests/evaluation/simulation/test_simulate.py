"""Simulation: what goes over the wire is what the columns say, up to the present and not beyond."""

from __future__ import annotations

import dataclasses
import math
import time

import numpy as np
import pytest

from stream_ad.brokers.worker_api import InputTopic
from stream_ad.codec import Codec
from stream_ad.errors import SettingsError
from stream_ad.evaluation.simulation.annotator import AnnotatorConfig
from stream_ad.evaluation.simulation.plant import PlantConfig
from stream_ad.evaluation.simulation.simulate import Simulation, simulate
from stream_ad.settings import Settings
from stream_ad.testing import MemoryBroker

ONE_SHARD = Settings.model_validate({"topics": {"partitions": 1}})


def written(memory, settings=ONE_SHARD):
    """Both topics of the only shard, decoded."""
    worker = memory.worker(settings)
    worker.seek(0, worker.load(0).positions)
    fetched = worker.poll(timeout_s=0, max_records=10**6)[0]
    codec = Codec(settings)
    events, bad_events = codec.decode_events(fetched[InputTopic.EVENTS].records)
    labels, bad_labels = codec.decode_labels(fetched[InputTopic.LABELS].records)
    assert (bad_events, bad_labels) == ([], [])
    return events, labels


def assert_same(columns, other):
    for field in dataclasses.fields(columns):
        ours, theirs = getattr(columns, field.name), getattr(other, field.name)
        if field.name == "blocks":
            assert [block.features for block in ours] == [block.features for block in theirs]
            np.testing.assert_array_equal(ours[0].values, theirs[0].values)
        elif isinstance(ours, list):
            assert ours == theirs, field.name
        else:
            np.testing.assert_array_equal(ours, theirs, field.name)


@pytest.mark.parametrize("form", ["events", "intervals"])
def test_wire_and_columns_agree(form):
    """Records decoded by the codec are the columns that the simulation gives directly."""
    plant = PlantConfig(machines=2, interval_s=60.0, healthy_s=600.0)
    tick = Simulation(plant, AnnotatorConfig(form=form), name="sim").step(800)
    memory = MemoryBroker()
    producer = memory.producer(ONE_SHARD)
    producer.send(InputTopic.EVENTS, tick.event_records())
    producer.send(InputTopic.LABELS, tick.label_records())
    events, labels = written(memory)
    assert len(labels) > 5
    assert_same(events, tick.events())
    on_events = [i for i, event_id in enumerate(labels.event_ids) if event_id is not None]
    assert len(on_events) == (len(labels) if form == "events" else 0)
    columns = tick.labels()
    if form == "events":  # bounds of an interval mean nothing there
        columns = dataclasses.replace(columns, starts_ns=labels.starts_ns, ends_ns=labels.ends_ns)
    assert_same(labels, columns)


class After:
    """Stops once so many waits have been asked for; waiting takes no time."""

    def __init__(self, waits):
        self.left = waits

    def is_set(self):
        return self.left <= 0

    def wait(self, timeout):
        self.left -= 1
        return self.is_set()


def test_history_then_present():
    """At full speed a day of history is written at once, and no event lies in the future."""
    memory, seen = MemoryBroker(), []
    plant = PlantConfig(machines=2, interval_s=60.0, healthy_s=3600.0)
    before = time.time_ns()
    summary = simulate(
        ONE_SHARD,
        plant,
        AnnotatorConfig(),
        speed=math.inf,
        stop=After(1),
        progress=lambda *done: seen.append(done),
        producer=memory.producer(ONE_SHARD),
    )
    events, labels = written(memory)
    assert (len(events), len(labels)) == (summary.events, summary.labels) == seen[-1]
    assert summary.events >= 2 * 24 * 60
    assert summary.faults > 0
    assert before - 86_400 * 10**9 <= events.times_ns[0] < before
    assert events.times_ns[-1] <= time.time_ns()
    assert len(set(events.event_ids)) == summary.events


def test_sped_up_ends_at_the_present():
    """Sped up for some seconds, event time begins so far back that it would just reach the present."""
    memory = MemoryBroker()
    before = time.time_ns()
    simulate(
        ONE_SHARD,
        PlantConfig(machines=1),
        speed=3601.0,
        seconds=0.2,
        stop=After(1),
        producer=memory.producer(ONE_SHARD),
    )
    events, _ = written(memory)
    assert before <= events.times_ns[0] + 720 * 10**9 <= time.time_ns()


def test_until_seconds_are_over(tmp_path):
    """For so many seconds into the settings' own broker, in real time from now on."""
    settings = Settings.model_validate({"broker": {"path": str(tmp_path / "s.db")}, "topics": {"partitions": 1}})
    summary = simulate(settings, PlantConfig(machines=3, interval_s=0.05), seconds=0.3)
    assert summary.events >= 3
    assert summary.seconds >= 0.3


def test_foreign_form_is_refused():
    """Settings that expect another form of message are refused before anything is written."""
    settings = Settings.model_validate({"events": {"fields": {"sensor_id": "device"}}})
    with pytest.raises(SettingsError, match=r"events\.fields"):
        simulate(settings, producer=MemoryBroker().producer(settings))
