"""Findings of the doctor on a real Kafka, and none where all is well."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource

from stream_ad.brokers.worker_api import Commit, InputOffsets, InputTopic
from stream_ad.diagnostics.doctor import diagnose
from stream_ad.records.columns import OutRecord
from stream_ad.util.findings import Level
from tests.support.broker_fixtures import ROLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ad.util.findings import Finding
    from tests.support.broker_fixtures import KafkaPlace
    from tests.support.kafka_server import KafkaServer


@pytest.fixture
def admin(kafka: KafkaServer) -> Iterator[KafkaAdminClient]:
    with closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)) as client:
        yield client


def examined(place: KafkaPlace, *more: str) -> list[Finding]:
    settings = place.settings
    given = [
        f"application_id={settings.application_id}",
        "broker.kind=kafka",
        f"broker.bootstrap_servers={settings.broker.bootstrap_servers}",
        f"topics.partitions={settings.topics.partitions}",
        "http.port=0",
        *(f"topics.{role}={getattr(settings.topics, role)}" for role in ROLES),
    ]
    return list(diagnose(None, [*given, *more]))


def found(findings: list[Finding], check: str, level: Level) -> str:
    """Return the text of all findings of a check and level, each of which has a remediation."""
    chosen = [finding for finding in findings if finding.check == check and finding.level is level]
    assert all(finding.remediation for finding in chosen if level is not Level.OK)
    return " ".join(finding.what for finding in chosen)


def alter(admin: KafkaAdminClient, topic: str, name: str, value: str) -> None:
    """Change a topic, and wait until Kafka reports the change."""
    admin.alter_configs([ConfigResource("TOPIC", topic, {name: value})])
    resource = ConfigResource("TOPIC", topic)
    while admin.describe_configs([resource], config_filter="all")["topic"][topic][name]["value"] != value:
        time.sleep(0.1)


def wrong(findings: list[Finding]) -> set[str]:
    return {finding.check for finding in findings if finding.level is Level.PROBLEM}


def test_a_good_kafka_is_well(place: KafkaPlace) -> None:
    """Topics created by `topics apply` have no problem, before, while and after a worker uses them."""
    assert wrong(examined(place)) == set()
    worker = place.worker()
    worker.commit(Commit(0, InputOffsets(0, 0), step_boundaries=(InputOffsets(0, 0),)))
    findings = examined(place)
    assert wrong(findings) == set()
    assert "1 run, on 127.0.0.1" in found(findings, "workers", Level.OK)
    worker.close()
    findings = examined(place)
    assert wrong(findings) == set()
    assert {finding.check for finding in findings} >= {
        "connection", "versions", "rights", "topics", "retention", "disk", "state", "clock",
    }  # fmt: skip
    assert "1 of 2 shards have state" in found(findings, "state", Level.OK)


def test_missing_topics_are_found(place: KafkaPlace) -> None:
    """A topic that is missing is named, with the command that makes it."""
    findings = examined(place, f"topics.scores={place.settings.topics.scores}-nowhere")
    assert f"missing: {place.settings.topics.scores}-nowhere" in found(findings, "topics", Level.PROBLEM)


def test_unfit_topics_are_found(place: KafkaPlace, admin: KafkaAdminClient) -> None:
    """A wrong number of partitions, and a state topic that is not compacted, are found."""
    alter(admin, place.settings.topics.state, "cleanup.policy", "delete")
    message = found(examined(place), "topics", Level.PROBLEM)
    assert "set it to compact" in message
    message = found(examined(place, "topics.partitions=3"), "topics", Level.PROBLEM)
    assert "it has 2 partitions" in message


@pytest.mark.parametrize(
    ("retention_s", "level", "said"),
    [
        (300, Level.PROBLEM, "snapshots are 60 s apart: a replay may miss some"),
        (7200, Level.WARNING, "labels may come 6 hours late"),
        (10 * 3600, Level.WARNING, "a worker that is away for longer"),
        (7 * 86_400, Level.OK, "keeps records for 7 days"),
    ],
)
def test_retention_is_compared(
    place: KafkaPlace, admin: KafkaAdminClient, retention_s: int, level: Level, said: str
) -> None:
    """Retention is checked against the snapshot interval, the label horizon, and a day of absence."""
    topic = place.settings.topics.events
    alter(admin, topic, "retention.ms", str(1000 * retention_s))
    findings = examined(place, "learning.label_horizon_seconds=21600")
    assert said in found(findings, "retention", level)


def test_records_of_the_future_are_found(place: KafkaPlace) -> None:
    """A producer's clock that is ahead is a warning."""
    producer = place.producer()
    producer.send(InputTopic.EVENTS, [OutRecord(b"a", b"b", int((time.time() + 3000) * 1000))])
    producer.flush()
    findings = examined(place, "events.max_ahead_seconds=60")
    assert "in the future: a producer's clock is wrong" in found(findings, "clock", Level.WARNING)
    assert found(examined(place), "clock", Level.WARNING) == ""


def test_lost_records_are_found(place: KafkaPlace, admin: KafkaAdminClient) -> None:
    """Offsets whose records are gone are a problem, or a warning where the policy skips them."""
    producer, worker = place.producer(), place.worker()
    producer.send(InputTopic.EVENTS, [OutRecord(None, b"b", 1_500_000_000_000)] * 20)
    producer.flush()
    worker.commit(Commit(0, InputOffsets(5, 0), step_boundaries=(InputOffsets(0, 0),)))
    worker.close()
    admin.delete_records({TopicPartition(place.settings.topics.events, 0): 15})
    assert "had reached offset 5 of its events" in found(examined(place), "state", Level.PROBLEM)
    assert wrong(examined(place, "broker.on_lost_records=continue")) == set()


def test_forgotten_positions_are_found(place: KafkaPlace, admin: KafkaAdminClient) -> None:
    """State without committed offsets is a problem, with the command that helps."""
    worker = place.worker()
    worker.commit(Commit(0, InputOffsets(0, 0), snapshot=b"state"))
    worker.close()
    admin.delete_groups([place.settings.application_id])
    findings = examined(place)
    assert "its offsets are missing" in found(findings, "state", Level.PROBLEM)
    assert any("--at newest" in finding.remediation for finding in findings)
