"""``scores.publish`` and ``scores.format``: what is published and counted, and that a recovery leaves no trace."""

from __future__ import annotations

import json
import re
from collections import Counter
from contextlib import closing

import numpy as np
import pytest
from structlog.testing import capture_logs

from stream_ad.brokers.worker_api import InputTopic
from stream_ad.codec.encoders import encode_scores
from stream_ad.records.columns import Events, OutRecord, Scores
from stream_ad.records.schemas import Incident
from stream_ad.settings import Settings
from stream_ad.testing import ManualClock, MemoryBroker, plant_stream
from stream_ad.worker.worker import Worker
from tests.support.soak_environment import Site, only_anomalies
from tests.support.stop_flags import Killed, Never

MACHINES, STEPS = 4, 500
OUTPUTS = ("scores", "incidents", "dead_letters")
COUNTERS = re.compile(
    r"^(stream_ad_(?:events|anomalies|scores|learned|incidents|records|score)_\S+) (\S+)$", re.MULTILINE
)


class Plant:
    """The same readings and labels on a broker in memory, with a setting for the scores to publish."""

    def __init__(self, publish, form="1"):
        worker = {"step_records": 40, "poll_records": 60, "snapshot_interval_seconds": 1e6}
        self.settings = Settings.model_validate(
            {
                "scores": {"publish": publish, "format": form},
                "topics": {"partitions": 2},
                "http": {"enabled": False},
                "learning": {"warmup_events": 64},
                "worker": worker,
            }
        )
        self.clock = ManualClock()
        self.memory = MemoryBroker(clock=self.clock)
        plant_stream(machines=MACHINES, steps=STEPS).send(self.memory.producer(self.settings))

    def run(self):
        worker = Worker(self.settings, self.memory.worker(self.settings), clock=self.clock, stop=Never(self.clock))
        worker.run(3.0)
        return worker

    def outputs(self):
        records = {role: self.memory.records(getattr(self.settings.topics, role)) for role in OUTPUTS}
        return {role: [(record.key, record.value) for record in published] for role, published in records.items()}

    def states(self):
        with closing(self.memory.worker(self.settings)) as worker:
            return [(stored.positions, stored.snapshot.data) for stored in map(worker.load, range(2))]


@pytest.fixture(scope="module")
def everything():
    """A plant whose worker publishes every score, and that worker."""
    plant = Plant("all")
    worker = plant.run()
    return plant, worker


def counted(worker):
    """The counters of events, scores and learning."""
    counters = dict(COUNTERS.findall(worker.metrics.exposition()[0].decode()))
    assert float(counters['stream_ad_scores_total{phase="live"}']) > 0
    return counters


def test_only_anomalies_are_published_and_everything_is_counted(everything):
    """Exactly the scores of anomalies of `all` are published, in its order; incidents, models and the counters of
    events, scores and learning are the same.
    """
    reference, counting = everything
    plant = Plant("anomalies")
    worker = plant.run()
    assert 0 < len(plant.outputs()["scores"]) < len(reference.outputs()["scores"]) == MACHINES * STEPS
    assert plant.outputs() == only_anomalies(reference.outputs())
    assert plant.states() == reference.states()
    assert counted(worker) == counted(counting)


@pytest.mark.parametrize("point", ["commit_before", "commit_after", "load"])
def test_a_killed_worker_that_publishes_anomalies_leaves_no_trace(everything, point):
    """A worker killed before or after its commits, most of which publish nothing, or while it loads, loses and repeats
    nothing and has the same models.
    """
    plant = Plant("anomalies")
    for at in (1, 2) if point == "load" else (1, 2, 5, 9, 14):
        plant.memory.fail(point, at=at, error=Killed())
        with pytest.raises(Killed):
            plant.run()
    plant.run()
    assert plant.outputs() == only_anomalies(everything[0].outputs())
    assert plant.states() == everything[0].states()


def test_the_setting_may_change_between_two_runs(everything):
    """A worker that publishes all scores continues where one that published anomalies was killed: each event is
    published by the setting of the worker that committed it.
    """
    plant = Plant("anomalies")
    plant.memory.fail("commit_after", at=12, error=Killed())
    with pytest.raises(Killed):
        plant.run()
    before = len(plant.outputs()["scores"])
    plant.settings = Plant("all").settings
    plant.run()
    got, reference = plant.outputs()["scores"], everything[0].outputs()["scores"]
    assert before < len(got) < len(reference)
    assert len(set(got)) == len(got)
    assert set(only_anomalies({"scores": reference})["scores"]) <= set(got) <= set(reference)


def test_the_embedded_broker_publishes_the_same_anomalies(everything, tmp_path):
    """The same records through SQLite give the same published anomalies and incidents."""
    site = Site(
        tmp_path, {"path": str(tmp_path / "stream.db")}, machines=MACHINES, steps=STEPS,
        more={"scores": {"publish": "anomalies"}},
    )  # fmt: skip
    site.run()
    expected = only_anomalies(everything[0].outputs())
    assert {role: sorted(published) for role, published in site.outputs().items()} == {
        role: sorted(published) for role, published in expected.items()
    }


def test_the_old_format_alarms_on_the_same_events(everything):
    """With scores.format=0.1 the scores of 1 and above are those of the anomalies of form 1, each incident opens and
    closes once, the models are the same, and a warning says what to change.
    """
    plant = Plant("all", "0.1")
    with capture_logs() as logs:
        plant.run()
    warnings = [line["event"] for line in logs if line["log_level"] == "warning"]
    assert len(warnings) == 1
    assert "is_anomaly, or alarm >= 1" in warnings[0]
    old, new = ([json.loads(value) for _, value in run.outputs()["scores"]] for run in (plant, everything[0]))
    high = [score["event_id"] for score in old if score["score"] >= 1]
    assert high == [score["event_id"] for score in new if score["is_anomaly"]]
    assert 0 < len(high) < len(old)
    changes = Counter(
        (incident["incident_id"], incident["state"]) for incident in map(json.loads, values(plant, "incidents"))
    )
    assert set(changes.values()) == {1}
    published = [Incident.model_validate_json(value) for value in values(everything[0], "incidents")]
    assert set(changes) == {(incident.incident_id, incident.state) for incident in published}
    assert plant.states() == everything[0].states()


@pytest.mark.parametrize("form", ["1", "0.1"])
def test_every_output_says_which_form_it_has(form):
    """Scores and incidents have the header stream_ad.format with the setting, dead letters with 1."""
    plant = Plant("all", form)
    with closing(plant.memory.producer(plant.settings)) as producer:
        producer.send(InputTopic.EVENTS, [OutRecord(b"a", b"broken", 1)])
    plant.run()
    for role in OUTPUTS:
        records = plant.memory.records(getattr(plant.settings.topics, role))
        forms = {dict(record.headers)["stream_ad.format"] for record in records}
        assert forms == {b"1" if role == "dead_letters" else form.encode()}


def values(plant, role):
    return [value for _, value in plant.outputs()[role]]


class Watched(list):
    """A list that remembers which of its items were read."""

    def __init__(self, items):
        super().__init__(items)
        self.read = set()

    def __getitem__(self, row):
        self.read.add(row)
        return super().__getitem__(row)

    def __iter__(self):
        raise AssertionError("all items are read")


def test_an_event_that_is_not_published_is_not_read():
    """Only those rows of a step's columns are read that are published."""
    count, chosen = 5_000, [7, 4_000]
    numbers = np.arange(count)
    alarms = np.full((count, 1), 0.5)
    alarms[chosen] = 2.0
    sensors, ids = Watched(["s"] * count), Watched([f"e{number}" for number in range(count)])
    events = Events(numbers, numbers, numbers, sensors, ids, ())
    codes = np.zeros(count, np.int8)
    scores = Scores(np.full(count, 0.5), alarms, codes, codes, np.ones(count, np.bool_))
    records = encode_scores(events, scores, "v1", only_anomalies=True)
    assert [json.loads(record.value)["event_id"] for record in records] == ["e7", "e4000"]
    assert sensors.read == ids.read == set(chosen)
