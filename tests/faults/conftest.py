"""Two runs over the same records: one that is not disturbed, and one with faults that must not differ."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace

import pytest

from tests.support.soak_environment import Site, only_anomalies

PARTITIONS = 3
SIZE = {"machines": 8, "steps": 300}
ROLES = ("events", "labels", "scores", "incidents", "dead_letters", "state")
SMALL = {"step_records": 40, "poll_records": 120, "snapshot_interval_seconds": 0.1}


class Disturbed(Site):
    """A site whose workers are disturbed."""

    def __init__(self, reference, *arguments, **more):
        super().__init__(*arguments, **more)
        self.reference = reference

    def finish(self, member):
        """Let a worker that has survived do what is left, and stop it."""
        self.wait_for_scores(len(self.reference.outputs["scores"]), member)
        member.stop()

    def check(self):
        """Check that no output is missing, doubled or different, and that models and journal are the same."""
        self.run()
        outputs, reference = self.outputs(), self.reference
        assert len(outputs["scores"]) == len(reference.outputs["scores"])
        assert outputs == reference.outputs
        assert self.states() == reference.states


@dataclass(frozen=True)
class Reference:
    """The published records, by role, and the last snapshots of the shards."""

    outputs: dict
    states: list


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """The results of an undisturbed worker."""
    folder = tmp_path_factory.mktemp("reference")
    site = Site(folder, {"path": str(folder / "stream.db")}, topics={"partitions": PARTITIONS}, **SIZE)
    site.run()
    return Reference(site.outputs(), site.states())


def kafka_site(reference, kafka, folder, client, *, replicas=1, **more):
    name = uuid.uuid4().hex[:8]
    broker = {
        "kind": "kafka",
        "client": client,
        "bootstrap_servers": kafka.bootstrap_servers,
        "session_timeout_seconds": 2.0,
    }
    topics = {role: f"{role}-{name}" for role in ROLES}
    return Disturbed(
        reference,
        folder,
        broker,
        topics={"partitions": PARTITIONS, "replication_factor": replicas, **topics},
        **SIZE,
        **SMALL | more | {"more": {"application_id": name} | more.get("more", {})},
    )


def sqlite_site(reference, folder, **more):
    broker = {"path": str(folder / "stream.db")}
    return Disturbed(reference, folder, broker, topics={"partitions": PARTITIONS}, **SIZE, **SMALL | more)


@pytest.fixture(params=["kafka", "sqlite"])
def make_site(request, tmp_path, reference, client):
    """A function that creates a site, on either broker."""
    if request.param == "sqlite":
        return lambda **more: sqlite_site(reference, tmp_path, **more)
    server = request.getfixturevalue("kafka")
    return lambda **more: kafka_site(reference, server, tmp_path, client, **more)


@pytest.fixture
def make_quiet_site(make_site, reference):
    """A function that creates a site whose workers publish anomalies only."""

    def make(**more):
        site = make_site(more={"scores": {"publish": "anomalies"}}, **more)
        site.reference = replace(reference, outputs=only_anomalies(reference.outputs))
        return site

    return make


@pytest.fixture
def site(kafka, tmp_path, reference, client):
    """A site on Kafka."""
    return kafka_site(reference, kafka, tmp_path, client)
