"""What `stream-ad run` says about incidents and at its end, over each broker."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from contextlib import closing, suppress

import pytest
from structlog.testing import capture_logs

from stream_ad.brokers.worker_api import InputTopic
from stream_ad.errors import BrokerError
from stream_ad.records.columns import OutRecord
from stream_ad.records.schemas import Incident
from stream_ad.settings import Settings
from stream_ad.testing import ManualClock, MemoryBroker, plant_stream
from stream_ad.worker.worker import Worker
from tests.support.broker_fixtures import ROLES
from tests.support.soak_environment import EVENTS, Site
from tests.support.stop_flags import Killed, Never


@pytest.fixture(params=["sqlite", "kafka"])
def site(request, tmp_path):
    if request.param == "sqlite":
        return Site(tmp_path, {"path": str(tmp_path / "stream.db")})
    name = uuid.uuid4().hex[:8]
    servers = request.getfixturevalue("kafka").bootstrap_servers
    broker = {"kind": "kafka", "bootstrap_servers": servers, "session_timeout_seconds": 2.0}
    return Site(tmp_path, broker, topics={role: f"{role}-{name}" for role in ROLES})


def changes_of(lines):
    """Return what happened to which incident, each with how often it was logged."""
    changes = {"incident opened": "opened", "incident got worse": "worse", "incident closed": "closed"}
    return Counter((line["incident"], changes[line["event"]]) for line in lines if line["event"] in changes)


def published(records):
    """Return the same of the incidents topic."""
    incidents = [Incident.model_validate_json(record[1]) for record in records]
    return Counter((incident.incident_id, change_of(incident)) for incident in incidents)


def change_of(incident):
    return "opened" if incident.opens else "closed" if incident.state == "closed" else "worse"


def test_run_logs_incidents_and_a_summary(site):
    """Every incident on the topic is logged as it opens, as it gets worse and as it closes, once each; before it stops,
    the worker sums up what is on the topics.
    """
    soon_worse = "--set", "incidents.severity.major_events=2"
    process = site.start("--until-idle", "1", "--set", "logs.format=json", *soon_worse)
    _, errors = process.communicate(timeout=150)
    assert process.returncode == 0, errors
    lines = [json.loads(line) for line in errors.splitlines()]
    lines = [line for line in lines if line["logger"].startswith("stream_ad.")]  # the clients of brokers have a say too
    incidents = published(site.outputs()["incidents"])
    assert incidents
    assert changes_of(lines) == incidents
    assert {line["level"] for line in lines if line["event"].startswith("incident ")} == {"info"}
    changes = Counter(change for _, change in incidents.elements())
    opened, closed = changes["opened"], changes["closed"]
    assert min(changes["worse"], closed) > 0
    assert [line["event"] for line in lines[-2:]] == ["summary", "stopped"]
    assert lines[-2].items() >= {
        "events_scored": EVENTS, "labels": site.sent[1], "incidents_opened": opened, "incidents_closed": closed,
        "incidents_open": opened - closed, "rejected_records": 0,
    }.items()  # fmt: skip
    assert 0 < lines[-2]["labels_joined"] <= site.sent[1]
    assert lines[-2]["events_learned"] > 0
    assert "`stream-ad incidents`" in lines[-2]["next"]


class Plant:
    """A plant on a broker in memory, and workers over it."""

    def __init__(self):
        worker = {"step_records": 40, "poll_records": 60}
        self.settings = Settings.model_validate(
            {
                "http": {"enabled": False},
                "learning": {"warmup_events": 64},
                "topics": {"partitions": 2},
                "worker": worker,
            }
        )
        self.clock = ManualClock()
        self.memory = MemoryBroker(clock=self.clock)
        plant_stream(machines=4, steps=500).send(self.memory.producer(self.settings))

    def run(self):
        """Run a worker until it is idle, or killed; return its log."""
        worker = Worker(self.settings, self.memory.worker(self.settings), clock=self.clock, stop=Never(self.clock))
        with capture_logs() as logs, suppress(Killed):
            worker.run(3.0)
        return logs

    def incidents(self):
        return published((record.key, record.value) for record in self.memory.records(self.settings.topics.incidents))


def test_only_what_is_committed_is_logged():
    """What a worker computed before it was killed, but did not commit, is not in its log: the next worker logs it."""
    plant = Plant()
    every = []
    for at in (3, 5, 8):
        plant.memory.fail("commit_before", at=at, error=Killed())
        logs = plant.run()
        every += logs
        assert changes_of(every) == plant.incidents()
        assert not any(line["event"] == "summary" for line in logs)
    every += plant.run()
    assert changes_of(every) == plant.incidents()
    assert plant.incidents()
    assert every[-2]["event"] == "summary"


def test_a_commit_that_is_repeated_is_logged_once():
    """An incident whose commit failed and was done again is logged once."""
    plant = Plant()
    for at in (2, 9, 14):
        plant.memory.fail("commit_before", at=at, error=BrokerError("The disk is full.", hint="Free some space."))
    logs = plant.run()
    assert changes_of(logs) == plant.incidents()
    assert logs[-2]["events_scored"] == EVENTS


def test_rejected_records_are_in_the_summary():
    """Records that could not be read are counted, and the summary says where they are."""
    plant = Plant()
    with closing(plant.memory.producer(plant.settings)) as producer:
        producer.send(InputTopic.EVENTS, [OutRecord(b"a", b"broken", 1)] * 3)
        producer.send(InputTopic.LABELS, [OutRecord(b"a", b"broken", 1)] * 2)
    summary = plant.run()[-2]
    assert summary["rejected_records"] == 5
    assert plant.settings.topics.dead_letters in summary["next"]
