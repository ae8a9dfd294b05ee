"""The worker from Kafka to Kafka, over topics that were filled before."""

from __future__ import annotations

import signal
import uuid

import pytest

from tests.support.broker_fixtures import over_both_clients
from tests.support.soak_environment import EVENTS, Site, only_anomalies


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The outputs of an undisturbed worker for the same records on the embedded broker."""
    folder = tmp_path_factory.mktemp("reference")
    site = Site(folder, {"path": str(folder / "stream.db")})
    site.run()
    return site


def kafka_site(kafka, folder, client="kafka-python", **worker):
    name = uuid.uuid4().hex[:8]
    roles = ("events", "labels", "scores", "incidents", "dead_letters", "state")
    broker = {
        "kind": "kafka",
        "client": client,
        "bootstrap_servers": kafka.bootstrap_servers,
        "session_timeout_seconds": 2.0,
    }
    return Site(folder, broker, topics={role: f"{role}-{name}" for role in roles}, **worker)


@over_both_clients
def test_kafka_and_the_embedded_broker_give_the_same(kafka, tmp_path, reference, client):
    """The same records through either broker, in different polls, give the same scores, incidents and models."""
    site = kafka_site(kafka, tmp_path, client, poll_records=700, step_records=1_000)
    site.run()
    assert site.outputs() == reference.outputs()
    assert site.states() == reference.states()


def test_kafka_gets_the_same_anomalies(kafka, tmp_path, reference, client):
    """With scores.publish=anomalies exactly the anomalies of `all` are published; incidents and models are the same."""
    site = kafka_site(kafka, tmp_path, client, more={"scores": {"publish": "anomalies"}})
    site.run()
    assert site.outputs() == only_anomalies(reference.outputs())
    assert site.states() == reference.states()


def test_stopped_and_killed_on_kafka_the_outputs_are_the_same(kafka, tmp_path, reference, client):
    """SIGTERM in the middle, then SIGKILL, then a third worker: no score is missing or duplicated."""
    site = kafka_site(kafka, tmp_path, client)
    process = site.start()
    try:
        site.wait_for_scores(100, process)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=120)
        assert process.returncode == 0, log
        done = len(site.scores())
        process = site.start()
        site.wait_for_scores(done + 100, process)
    finally:
        process.kill()
        process.communicate(timeout=60)
    assert done < len(site.scores()) < EVENTS
    site.run()
    assert site.outputs() == reference.outputs()
    assert site.states() == reference.states()
