"""Kafka where it differs from the embedded broker: fencing, rebalances, stalls, transactions of others."""

from __future__ import annotations

import itertools
import os
import random
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.structs import ConsumerGroupMetadata, MemberState
from typer.testing import CliRunner

from stream_ad.brokers import open_broker
from stream_ad.brokers.kafka import broker as kafka_module
from stream_ad.brokers.kafka import state_topic as kafka_state
from stream_ad.brokers.kafka.client_api import client_of
from stream_ad.brokers.kafka.connection import client_options, translated
from stream_ad.brokers.kafka.kafka_python.fetcher import has_fetched_ahead
from stream_ad.brokers.kafka.librdkafka import stall_detector as librdkafka_silence
from stream_ad.brokers.kafka.librdkafka.group_metadata import pack
from stream_ad.brokers.kafka.librdkafka.metadata import to_librdkafka
from stream_ad.brokers.kafka.partition_reader import PartitionReader
from stream_ad.brokers.partitioner import partition_for
from stream_ad.brokers.worker_api import Commit, InputOffsets, InputTopic
from stream_ad.cli.app import app
from stream_ad.errors import BrokerError, FencedError, LostRecordsError, StateError, TopicError
from stream_ad.records.columns import OutRecord, RawRecords
from stream_ad.settings import Settings
from tests.support.broker_fixtures import (
    PARTITIONS,
    ROLES,
    drain,
    leave_group,
    only_kafka_python,
    only_librdkafka,
    over_all_clients,
    over_both_clients,
    own,
)
from tests.support.copier import Copier
from tests.support.secure_kafka import secured
from tests.support.stop_flags import failing_once, raiser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ad.brokers.worker_api import Broker, Fetched
    from tests.support.broker_fixtures import KafkaPlace
    from tests.support.kafka_server import KafkaServer


@pytest.fixture
def admin(kafka: KafkaServer) -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    yield client
    client.close()


def numbered(count: int, *, keys: int = 20, start: int = 0) -> list[OutRecord]:
    return [OutRecord(b"pump-%d" % (n % keys), b"%d" % n, 1_500_000_000_000 + n) for n in range(start, start + count)]


def fill(place: KafkaPlace, count: int, *, start: int = 0, keys: int = 20) -> None:
    producer = place.producer()
    producer.send(InputTopic.EVENTS, numbered(count, start=start, keys=keys))
    producer.flush()


def scores(place: KafkaPlace) -> list[int]:
    return sorted(int(value or b"-1") for _, value in place.reader().read(place.settings.topics.scores))


def work_until(worker: Copier, place: KafkaPlace, count: int) -> None:
    """Run workers until a number of scores is published."""
    reader = place.reader()
    while count > 0:
        worker.turn()
        count -= len(reader.read(place.settings.topics.scores))


def committed(broker: Broker, place: KafkaPlace, shard: int) -> int | None:
    return broker._consumer.committed(TopicPartition(place.settings.topics.events, shard))


@only_kafka_python
def test_a_poll_gives_what_is_there_when_it_begins(place: KafkaPlace) -> None:
    """A poll also returns records that came after those that the client has fetched ahead."""
    worker = place.worker()
    drain(worker)
    fill(place, 2, keys=1)
    while not has_fetched_ahead(worker._consumer):
        worker._consumer._fetcher.send_fetches()
        time.sleep(0.01)
    fill(place, 50, start=2, keys=1)
    fetched = worker.poll(timeout_s=0.0, max_records=1_000)
    assert sum(len(sides[InputTopic.EVENTS].records) for sides in fetched.values()) == 52


@over_all_clients
def test_a_worker_that_left_its_group_cannot_commit(place: KafkaPlace) -> None:
    """A lost membership looks empty to the client, and Kafka does not validate an empty one; the commit is refused
    before that.
    """
    fill(place, 20)
    zombie = place.worker()
    drain(zombie)
    zombie.commit(Commit(0, InputOffsets(1, 0), step_boundaries=(InputOffsets(),)))
    leave_group(zombie)
    zombie._group = zombie._consumer.group_metadata()
    with pytest.raises(FencedError):
        zombie.commit(Commit(0, InputOffsets(0, 0), scores=[OutRecord(b"a", b"1", 1)]))
    assert committed(place.worker(), place, 0) == 1
    assert scores(place) == []


@over_all_clients
def test_a_commit_with_the_membership_of_before_is_refused(place: KafkaPlace) -> None:
    """The membership of the last poll goes into the transaction; once the group has rebalanced, Kafka refuses it."""
    fill(place, 20)
    zombie = place.worker()
    drain(zombie)
    zombie.commit(Commit(0, InputOffsets(1, 0), step_boundaries=(InputOffsets(),)))
    leave_group(zombie)
    with pytest.raises(FencedError):
        zombie.commit(Commit(0, InputOffsets(3, 0), scores=[OutRecord(b"a", b"1", 1)]))
    assert committed(place.worker(), place, 0) == 1
    assert scores(place) == []


@over_all_clients
def test_offsets_of_a_refused_commit_do_not_come_back(place: KafkaPlace) -> None:
    """The client would send the offsets of an aborted transaction again in the next one; a new producer does not."""
    fill(place, 40)
    worker = place.worker()
    drain(worker)
    before = worker._group
    worker._group = before._replace(generation_id=before.generation_id + 7)
    with pytest.raises(FencedError):
        worker.commit(Commit(0, InputOffsets(9, 0), scores=[OutRecord(b"a", b"9", 1)]))
    own(worker, PARTITIONS - 1)  # it is gone for a poll, so that the worker forgets its state
    own(worker, PARTITIONS)
    worker.load(0)
    worker.commit(Commit(0, InputOffsets(2, 0), scores=[OutRecord(b"a", b"2", 1)], step_boundaries=(InputOffsets(),)))
    assert committed(worker, place, 0) == 2
    assert scores(place) == [2]


@over_all_clients
def test_a_stalled_kafka_costs_the_whole_commit(place: KafkaPlace, kafka: KafkaServer) -> None:
    """When Kafka stops answering during a commit, nothing of it is published, and the commit can be repeated."""
    fill(place, 20)
    worker = place.worker(place.altered(broker={"transaction_timeout_seconds": 1.5}))
    drain(worker)
    worker.commit(Commit(0, InputOffsets(1, 0), scores=[OutRecord(b"a", b"1", 1)], step_boundaries=(InputOffsets(),)))
    kafka.pause()
    try:
        with pytest.raises(BrokerError):
            worker.commit(Commit(0, InputOffsets(2, 0), scores=[OutRecord(b"a", b"2", 1)], snapshot=b"state"))
    finally:
        kafka.resume()
    own(worker, PARTITIONS)
    stored = worker.load(0)
    assert (stored.positions, stored.snapshot) == (InputOffsets(1, 0), None)
    assert scores(place) == [1]
    worker.commit(Commit(0, InputOffsets(2, 0), scores=[OutRecord(b"a", b"2", 1)], snapshot=b"state"))
    assert scores(place) == [1, 2]


@only_kafka_python
@pytest.mark.parametrize(
    "error",
    ["OutOfOrderSequenceNumberError", "InvalidProducerEpochError", "UnknownProducerIdError", "KafkaTimeoutError"],
)
def test_a_batch_refused_inside_a_transaction_costs_the_whole_commit(place: KafkaPlace, error: str) -> None:
    """The client reports a transaction as committed although one of its batches was refused; here nothing is published,
    and after a reload the same commit succeeds.
    """
    fill(place, 20)
    worker = place.worker()
    drain(worker)
    sender = worker._writers[0]._producer._sender
    complete = sender._complete_batch

    def refuse(batch, _response):
        sender._complete_batch = complete
        batch.created = 0.0  # too long ago for a retry
        sender._complete_batch_with_exception(batch, getattr(kafka_errors, error)("injected"))

    sender._complete_batch = refuse
    commit = Commit(
        0, InputOffsets(2, 0), scores=[OutRecord(b"a", b"2", 1)], snapshot=b"state", step_boundaries=(InputOffsets(),)
    )
    with pytest.raises(BrokerError):
        worker.commit(commit)
    assert scores(place) == []
    own(worker, PARTITIONS)
    assert worker.load(0).snapshot is None
    worker.commit(commit)
    assert scores(place) == [2]


def test_a_kafka_that_stays_away_ends_the_worker(place: KafkaPlace, kafka: KafkaServer) -> None:
    """After broker.give_up_seconds without an answer a poll raises; until then it waits, and reports nothing as
    drained.
    """
    worker = place.worker(place.altered(broker={"give_up_seconds": 2.0}))
    drain(worker)
    kafka.pause()
    try:
        with pytest.raises(BrokerError, match="has not answered"):
            poll_for_ever(worker)
    finally:
        kafka.resume()


def poll_for_ever(worker: Broker) -> None:
    while True:
        fetched = worker.poll(timeout_s=0.2, max_records=10)
        assert not any(fetched_input.drained for sides in fetched.values() for fetched_input in sides.values())


@over_all_clients
def test_joining_and_leaving_workers_share_the_work(place: KafkaPlace) -> None:
    """Through a join and a leave every event is scored exactly once."""
    fill(place, 3000)
    first = Copier(place.broker())
    while first.commits < 5:
        first.turn()
    second = Copier(place.broker())
    while not (second.commits and first.broker.assigned() and len(first.broker.assigned()) < PARTITIONS):
        first.turn()
        second.turn()
    fill(place, 600, start=3000)
    for _ in range(5):
        first.turn()
        second.turn()
    second.broker.close()
    work_until(first, place, 3600)
    assert scores(place) == list(range(3600))


@over_both_clients  # over the public interface, a rebalance that the client forgot ends with a new join and a load
def test_a_rebalance_keeps_what_stays(place: KafkaPlace) -> None:
    """A shard that is assigned again in a rebalance continues from its position, without being loaded again."""
    fill(place, 400)
    first, got = place.worker(), []
    for _ in range(3):
        for sides in first.poll(timeout_s=1, max_records=20).values():
            got += sides[InputTopic.EVENTS].records.values
    writers = dict(first._writers)
    second = place.broker()
    while len(first.assigned()) != 1 or not second.assigned():
        for sides in first.poll(timeout_s=0.2, max_records=20).values():
            got += sides[InputTopic.EVENTS].records.values
        second.poll(timeout_s=0.2, max_records=1)
    (kept,) = first.assigned()
    assert first._writers == {kept: writers[kept]}
    for polls in drain(first, 20).values():
        got += [value for fetched in polls for value in fetched.records.values]
    assert len(got) == len(set(got))
    first.commit(Commit(kept, InputOffsets(1, 0)))
    assert len(got) >= sum(partition_for(record.key, PARTITIONS) == kept for record in numbered(400))


@over_all_clients
def test_what_was_held_in_a_rebalance_is_read_once_it_is_not(
    place: KafkaPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An input that was paused during a rebalance is read once it is resumed."""
    monkeypatch.setattr(librdkafka_silence, "STALL_S", 3_600.0)  # which would mend it
    fill(place, 400)
    first, second = place.worker(), place.broker()
    paused = [(shard, side) for shard in range(PARTITIONS) for side in InputTopic]
    while len(first.assigned()) != 1 or not second.assigned():
        assert not any(len(fetched.records) for fetched in polled(first, paused=paused))
        second.poll(timeout_s=0.2, max_records=1, paused=paused)
    (kept,) = first.assigned()
    wanted = {record.value for record in numbered(400) if partition_for(record.key, PARTITIONS) == kept}
    deadline = time.monotonic() + 10
    while wanted and time.monotonic() < deadline:
        wanted -= {value for fetched in polled(first) for value in fetched.records.values}
    assert not wanted


def polled(broker: Broker, **paused: Any) -> list[Fetched]:
    return [
        fetched
        for sides in broker.poll(timeout_s=0.2, max_records=100, **paused).values()
        for fetched in sides.values()
    ]


@only_kafka_python
def test_a_rebalance_begun_in_passing_is_finished(place: KafkaPlace) -> None:
    """The client does not complete a rebalance that begins, for new metadata, in a poll that does not wait; here it
    ends.
    """
    fill(place, 40)
    worker = place.worker()
    generation = worker._group.generation_id
    worker._consumer._coordinator._assignment_snapshot = {}  # as if the group's leader saw other partitions now
    while worker._group.generation_id == generation or worker._group.state != MemberState.STABLE:
        worker.poll(timeout_s=0, max_records=1)
    own(worker, PARTITIONS)
    worker.commit(Commit(0, InputOffsets(1, 0), step_boundaries=(InputOffsets(),)))


def test_a_restarted_kafka_costs_nothing(place: KafkaPlace, kafka: KafkaServer) -> None:
    """Killed and started again under load, Kafka leaves every event scored exactly once."""
    fill(place, 1500)
    worker = Copier(place.broker())
    while worker.commits < 10:
        worker.turn()
    kafka.restart(kill=True)
    fill(place, 500, start=1500)
    work_until(worker, place, 2000)
    assert scores(place) == list(range(2000))


@only_librdkafka
def test_a_partition_that_the_library_does_not_fetch_is_restarted(
    place: KafkaPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the library stops fetching although there are more records, reading restarts from the position: nothing is
    missing, nothing comes twice. A partition that is at its end is left alone.
    """
    monkeypatch.setattr(librdkafka_silence, "STALL_S", 0.3)
    fill(place, 500)
    worker = Copier(place.broker())
    while worker.commits < 4:
        worker.turn()
    consumer, starts = worker.broker._consumer, []
    begin = consumer._assignment._begin
    monkeypatch.setattr(consumer._assignment, "_begin", lambda: (starts.append(1), begin()))
    consumer._client.pause([to_librdkafka(partition) for partition in consumer.assignment()])
    fill(place, 300, start=500)
    work_until(worker, place, 800)
    assert scores(place) == list(range(800))
    assert starts
    starts.clear()
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        worker.turn()
    assert not starts


@only_librdkafka
def test_a_client_that_never_joins_again_is_replaced(place: KafkaPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the library waits forever for an answer that was lost with Kafka, another client joins the group."""
    fill(place, 500)
    worker = Copier(place.broker())
    while worker.commits < 4:
        worker.turn()
    consumer = worker.broker._consumer
    monkeypatch.setattr(consumer, "_rejoin_timeout_s", 1.0)
    consumer._client = Deaf(consumer._client)
    consumer._group = consumer._no_membership._replace(state=MemberState.REBALANCING)
    work_until(worker, place, 500)
    assert scores(place) == list(range(500))


class Deaf:
    """A client that no longer receives anything."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def consume(self, _count: int, timeout_s: float) -> list[Any]:
        time.sleep(timeout_s)
        return []

    def consumer_group_metadata(self) -> bytes:
        return pack(ConsumerGroupMetadata("group", -1, "", None))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


@over_all_clients
def test_records_of_others_transactions(place: KafkaPlace) -> None:
    """Events of an open transaction wait, those of an aborted one never come, and markers are no records."""
    topic, worker = place.settings.topics.events, place.worker()
    source = KafkaProducer(
        bootstrap_servers=place.settings.broker.bootstrap_servers, transactional_id=f"source-{topic}"
    )
    source.init_transactions()
    source.begin_transaction()
    source.send(topic, b"aborted", partition=0).get(10)
    assert sum(len(fetched.records) for polls in drain(worker).values() for fetched in polls) == 0
    source.abort_transaction()
    source.begin_transaction()
    source.send(topic, b"committed", partition=0)
    source.commit_transaction()
    source.close()
    came = drain(worker)
    assert [value for fetched in came[0, InputTopic.EVENTS] for value in fetched.records.values] == [b"committed"]
    assert came[0, InputTopic.EVENTS][-1].drained
    assert worker.lag()[0][InputTopic.EVENTS] == 0


def test_a_neighbours_open_transaction_hides_no_state(place: KafkaPlace) -> None:
    """While another application's transaction on the state topic is open, a load waits instead of reading old state."""
    fill(place, 20)
    worker = place.worker()
    neighbour = KafkaProducer(
        bootstrap_servers=place.settings.broker.bootstrap_servers,
        transactional_id=f"n-{place.settings.application_id}",
        transaction_timeout_ms=2_000,
    )
    neighbour.init_transactions()
    neighbour.begin_transaction()
    neighbour.send(place.settings.topics.state, key=b"neighbour/x", value=b"1", partition=0).get(10)
    mark = InputOffsets(3, 0)
    worker.commit(Commit(0, mark, step_boundaries=(InputOffsets(), mark), snapshot=b"state"))
    stored = worker.load(0)  # Kafka aborts the neighbour's transaction meanwhile
    neighbour.close(timeout=0)
    assert stored.snapshot is not None
    assert (stored.snapshot.data, stored.positions) == (b"state", mark)


def test_open_scores_are_not_read(place: KafkaPlace) -> None:
    """A reader sees scores once their transaction is committed, and not before."""
    topic, reader = place.settings.topics.scores, place.reader()
    other = KafkaProducer(bootstrap_servers=place.settings.broker.bootstrap_servers, transactional_id=f"o-{topic}")
    other.init_transactions()
    other.begin_transaction()
    other.send(topic, b"1", partition=0).get(10)
    assert reader.read(topic) == []
    other.commit_transaction()
    other.close()
    assert reader.read(topic, timeout_s=10) == [(None, b"1")]


def test_missing_topics_are_named(kafka: KafkaServer) -> None:
    """A worker without topics reports which are missing and how to create them; so do a producer and a reader."""
    broker = {"kind": "kafka", "bootstrap_servers": kafka.bootstrap_servers}
    with pytest.raises(TopicError, match="nowhere-events") as missing:
        open_broker(Settings(broker=broker, topics={"events": "nowhere-events"}))
    assert "stream-ad topics apply" in missing.value.hint


@only_kafka_python
def test_no_topic_is_made_in_passing(place: KafkaPlace) -> None:
    """Asking for topics never creates them, even where Kafka would create any topic that a client asks for."""
    worker = place.worker()
    clients = [worker._consumer, *(writer._producer for writer in worker._writers.values())]
    assert len(clients) == 1 + PARTITIONS
    for client in clients:
        cluster = client._cluster if client is worker._consumer else client._metadata
        assert cluster.metadata_request().allow_auto_topic_creation is False


def test_an_unreachable_kafka_is_an_error() -> None:
    """Without a broker at the address, the error names the address and what to check."""
    broker = {"kind": "kafka", "bootstrap_servers": "127.0.0.1:1", "give_up_seconds": 0.5}
    with pytest.raises(BrokerError, match=r"127\.0\.0\.1:1") as away:
        open_broker(Settings(broker=broker))
    assert "bootstrap_servers" in away.value.hint


def test_connections_that_break_at_the_start_are_made_again(place: KafkaPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose connection breaks while it starts tries again instead of ending."""
    require, tries = kafka_module.require_topics, []

    def broken(settings):
        tries.append(settings)
        if len(tries) < 3:
            raise translated(settings, "reading the topics", lost) from lost
        require(settings)

    lost = kafka_errors.KafkaConnectionError("socket disconnected")
    monkeypatch.setattr(kafka_module, "require_topics", broken)
    own(place.broker(), PARTITIONS)
    assert len(tries) == 3


def test_apply_makes_fitting_topics(place: KafkaPlace, admin: KafkaAdminClient) -> None:
    """The state is compacted, inputs keep their own times, outputs those of writing; retention is as configured and
    explained.
    """
    plans = {plan.role: plan for plan in place.admin().plan()}
    assert set(plans) == {"events", "labels", "scores", "incidents", "dead_letters", "state"}
    assert plans["state"].config["cleanup.policy"] == "compact"
    assert plans["events"].config["message.timestamp.type"] == "CreateTime"
    assert plans["labels"].config["message.timestamp.type"] == "CreateTime"
    assert plans["scores"].config["message.timestamp.type"] == "LogAppendTime"
    assert plans["events"].config["retention.ms"] == "-1"
    assert "without limit" in plans["events"].note
    short = place.altered(topics={"retention_seconds": 3600.0, "events": f"{plans['events'].topic}-short"})
    place.admin(short).apply()
    events = next(plan for plan in place.admin(short).plan() if plan.role == "events")
    assert events.config["retention.ms"] == "3600000"
    assert "recordings that are older vanish" in events.note


def test_the_plan_says_what_retention_means(place: KafkaPlace) -> None:
    """Below the table, `topics plan` explains what the retention of the inputs means for a worker that is away."""
    topics = place.settings.topics
    names = [f"topics.{role}={getattr(topics, role)}" for role in ROLES]
    broker = ["broker.kind=kafka", f"broker.bootstrap_servers={place.settings.broker.bootstrap_servers}"]
    given = [word for setting in (*names, *broker, "topics.partitions=2") for word in ("--set", setting)]
    shown = CliRunner().invoke(app, ["topics", "plan", *given]).stdout
    assert f"{topics.events}, {topics.labels}: kept without limit" in shown


def test_unfit_topics_are_refused_and_left_alone(place: KafkaPlace, admin: KafkaAdminClient) -> None:
    """Existing topics are checked, never changed: wrong compaction, wrong number of partitions, batches too small."""
    name = place.settings.application_id
    unfit = {
        f"{name}-state": {"num_partitions": 2, "replication_factor": 1, "configs": {"cleanup.policy": "delete"}},
        f"{name}-events": {"num_partitions": 2, "replication_factor": 1, "configs": {"cleanup.policy": "compact"}},
        f"{name}-labels": {"num_partitions": 3, "replication_factor": 1},
        f"{name}-scores": {"num_partitions": 1, "replication_factor": 1},
        f"{name}-incidents": {"num_partitions": 2, "replication_factor": 1, "configs": {"max.message.bytes": "1000"}},
    }
    admin.create_topics(unfit, wait_for_metadata=True)
    roles = ("state", "events", "labels", "scores", "incidents")
    settings = place.altered(topics={role: f"{name}-{role}" for role in roles})
    place.admin(settings).apply()
    problems = {plan.role: plan.problem for plan in place.admin(settings).plan() if plan.problem}
    assert set(problems) == set(roles)
    assert "set it to compact" in problems["state"]
    assert "set it to delete" in problems["events"]
    assert "the same for both" in problems["labels"]
    assert "max.message.bytes is 1000" in problems["incidents"]
    with pytest.raises(TopicError, match="set it to compact"):
        open_broker(settings)


def test_too_many_replicas_are_an_error(place: KafkaPlace) -> None:
    """One broker cannot store three replicas; the message names the setting."""
    settings = place.altered(topics={"replication_factor": 3, "events": f"{place.settings.topics.events}-r"})
    with pytest.raises(BrokerError) as refused:
        place.admin(settings).apply()
    assert "only 1 of its brokers" in refused.value.what
    assert "topics.replication_factor" in refused.value.hint


def test_brokers_out_of_the_cluster_are_waited_for(place: KafkaPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the controller counts no broker as alive, as after a freeze, creating and reading topics is retried."""
    no_brokers = kafka_errors.MetadataEmptyBrokerList("no brokers")
    for client, name, error in (
        (KafkaAdminClient, "create_topics", kafka_errors.InvalidReplicationFactorError("1 replica, 0 brokers")),
        (KafkaAdminClient, "describe_topics", no_brokers),
        (KafkaConsumer, "partitions_for_topic", no_brokers),
    ):
        monkeypatch.setattr(client, name, failing_once(getattr(client, name), error))
    settings = place.altered(topics={"scores": f"{place.settings.topics.scores}-f"})
    place.admin(settings).apply()
    assert place.reader().read(place.settings.topics.scores) == []


def test_old_recordings_are_taken_and_kept(place: KafkaPlace) -> None:
    """Records with old times are accepted, keep their times, and outlive several rounds of retention."""
    producer = place.producer()
    producer.send(InputTopic.EVENTS, [OutRecord(None, b"old", 86_400_000)])
    producer.flush()
    time.sleep(2.5)  # the server looks for what to delete every second
    fetched = drain(place.worker())[0, InputTopic.EVENTS]
    assert [time_ms for batch in fetched for time_ms in batch.records.times_ms.tolist()] == [86_400_000]


def test_recordings_that_would_vanish_are_refused(place: KafkaPlace) -> None:
    """Retention counts from a record's own time: a producer refuses records that would be deleted within minutes."""
    topic = f"{place.settings.topics.events}-week"
    settings = place.altered(topics={"retention_seconds": 7 * 86_400.0, "events": topic})
    place.admin(settings).apply()
    producer = place.producer(settings)
    producer.send(InputTopic.EVENTS, [OutRecord(None, b"new", int(time.time() * 1000))])
    with pytest.raises(BrokerError, match=f"{topic} deletes records 7 days after .* 1970-01-02 00:00") as refused:
        producer.send(InputTopic.EVENTS, [OutRecord(None, b"old", 86_400_000)])
    assert "retention.ms" in refused.value.hint


def test_old_recordings_are_taken_where_retention_counts_from_the_writing(
    place: KafkaPlace, admin: KafkaAdminClient
) -> None:
    """A topic that stamps records with the time of writing keeps old ones as long as others: they are accepted."""
    topic = f"{place.settings.topics.events}-stamped"
    settings = place.altered(topics={"retention_seconds": 7 * 86_400.0, "events": topic})
    place.admin(settings).apply()
    stamped = {"message.timestamp.type": "LogAppendTime"}
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=stamped)])
    (plan,) = [plan for plan in place.admin(settings).plan() if plan.role == "events"]
    assert "days after they were written" in plan.note
    producer = place.producer(settings)
    producer.send(InputTopic.EVENTS, [OutRecord(None, b"old", 86_400_000)])
    producer.flush()
    with closing(PartitionReader(settings, topic)) as reader:
        assert [record.value for record in reader.read()] == [b"old"]


def test_times_far_ahead_are_refused_with_a_reason(place: KafkaPlace) -> None:
    """A source whose clock is days ahead gets an error with the reason when it writes."""
    producer = place.producer()
    producer.send(InputTopic.EVENTS, [OutRecord(None, b"early", int(time.time() * 1000) + 3 * 86_400_000)])
    with pytest.raises(BrokerError) as refused:
        producer.flush()
    assert "message.timestamp.after.max.ms" in refused.value.hint


@over_all_clients
def test_records_that_retention_took_are_missed(place: KafkaPlace, admin: KafkaAdminClient) -> None:
    """An offset whose records are gone is refused by seek, and noticed during reading."""
    fill(place, 40, keys=1)
    events = place.settings.topics.events
    shard = next(n for n in range(PARTITIONS) if place.worker().lag()[n][InputTopic.EVENTS])
    worker = place.worker(place.altered(application_id="other"))
    admin.delete_records({TopicPartition(events, shard): 30})
    with pytest.raises(LostRecordsError, match=f"{events}.*no offset 0 any more: it holds 30 to 4"):
        drain(worker)
    with pytest.raises(BrokerError, match="no offset 10 any more: it holds 30 to 41"):
        place.worker(place.altered(application_id="third")).seek(shard, InputOffsets(10, 0))


def test_a_load_reads_no_older_snapshots(place: KafkaPlace) -> None:
    """However many old snapshots are kept, a load reads the newest and the journal since the previous one; it lists
    all, and superseded ones are removed.
    """
    fill(place, 40)
    settings = place.altered(worker={"snapshot_history": 3, "snapshot_history_interval_seconds": 0.0})
    worker = place.worker(settings)
    for number in range(1, 7):
        step_boundaries = (InputOffsets(), InputOffsets(1, 0)) if number == 1 else (InputOffsets(number, 0),)
        worker.commit(
            Commit(0, InputOffsets(number, 0), step_boundaries=step_boundaries, snapshot=b"%d" % number * 900_000)
        )
    worker.commit(Commit(0, InputOffsets(7, 0), step_boundaries=(InputOffsets(7, 0),)))
    worker.close()
    kept = place.snapshots(settings).kept(0)
    assert [snapshot.number for snapshot in kept] == [6, 5, 4, 3, 2]
    worker = place.worker(settings)
    state, stored = worker._writers[0].state, worker.load(0)
    assert [number for number in range(8) if state.data(number)] == []  # let go of, once loaded
    with closing(PartitionReader(settings, settings.topics.state, [0], start=state.start)) as reader:
        keys = [record.key.decode() for record in reader.read_until_stable() if record.value is not None]
    assert [key.split("/")[2] for key in keys if key.endswith("manifest")] == ["6"]
    assert next(key for key in keys if "journal" in key).endswith("journal/6/0")
    assert [snapshot.number for snapshot in state.kept] == [2, 3, 4, 5, 6]
    assert state.kept == kept[::-1]
    assert stored.snapshot is not None
    assert (stored.snapshot.data[:1], stored.journal) == (b"6", (InputOffsets(7, 0),))
    worker.commit(Commit(0, InputOffsets(8, 0), snapshot=b"7"))
    worker.close()
    assert [snapshot.number for snapshot in place.snapshots(settings).kept(0)] == [7, 6, 5, 4, 3]
    assert place.kept_snapshots(0) == 5


def test_a_large_snapshot_goes_ahead_of_its_commit(place: KafkaPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot too large for one transaction is written in several; until its commit nobody sees any of it, and what
    a failed commit left of it is overwritten or removed by the next one.
    """
    monkeypatch.setattr(kafka_state, "TRANSACTION_CHUNKS", 2)
    fill(place, 40)
    worker = place.worker()
    producer, ended = worker._writers[0]._producer, []
    end = producer.end_transaction
    monkeypatch.setattr(producer, "end_transaction", lambda timeout_s: (ended.append(1), end(timeout_s)))
    first, third = (os.urandom(count * kafka_state.CHUNK_BYTES) for count in (7, 3))
    worker.commit(Commit(0, InputOffsets(1, 0), step_boundaries=(InputOffsets(), InputOffsets(1, 0)), snapshot=first))
    assert len(ended) == 4
    with monkeypatch.context() as harm:
        harm.setattr(producer, "send_offsets", raiser(kafka_errors.KafkaTimeoutError("no answer")))
        with pytest.raises(BrokerError):
            worker.commit(Commit(0, InputOffsets(2, 0), snapshot=os.urandom(9 * kafka_state.CHUNK_BYTES)))
    assert len(ended) == 8
    stored = worker.load(0)
    assert stored.snapshot is not None
    assert (stored.positions, stored.snapshot.data) == (InputOffsets(1, 0), first)
    worker.commit(Commit(0, InputOffsets(2, 0), snapshot=third))
    stored = place.takeover(worker).load(0)
    assert stored.snapshot is not None
    assert (stored.snapshot.number, stored.snapshot.data) == (2, third)
    chunks = [key.split(b"/")[2:] for key in place._state(0) if not key.endswith(b"manifest") and b"/snapshot/" in key]
    assert sorted(chunks) == [[b"1", b"%d" % n] for n in range(7)] + [[b"2", b"%d" % n] for n in range(3)]


def test_a_load_that_finds_nothing_there_reads_everything(place: KafkaPlace, admin: KafkaAdminClient) -> None:
    """The offset where a load begins is a hint: where it is out of range, the whole state topic is read."""
    fill(place, 40)
    worker = place.worker()
    worker.commit(Commit(0, InputOffsets(1, 0), step_boundaries=(InputOffsets(),), snapshot=b"state"))
    worker._writers[0].state.start = 1_000_000
    worker.commit(Commit(0, InputOffsets(2, 0)))
    stored = place.takeover(worker).load(0)
    assert stored.snapshot is not None
    assert (stored.positions, stored.snapshot.data) == (InputOffsets(2, 0), b"state")


def test_a_load_that_cannot_read_the_state_says_so(place: KafkaPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka unreachable during a load is not an offset out of range: the error is raised, and nothing else is read."""
    fill(place, 40)
    worker = place.worker()
    worker.commit(Commit(0, InputOffsets(1, 0), step_boundaries=(InputOffsets(),), snapshot=b"state"))
    worker._writers[0].state.start = 1
    worker.commit(Commit(0, InputOffsets(2, 0)))
    read, starts = kafka_module.read_state, []

    def away(settings, shard, start=0, **more):
        starts.append(start)
        if start:
            raise kafka_errors.KafkaConnectionError("the connection broke")
        return read(settings, shard, start, **more)

    monkeypatch.setattr(kafka_module, "read_state", away)
    with pytest.raises(BrokerError, match="the connection broke"):
        worker.load(0)
    assert starts == [1]


def test_records_given_out_again_are_left_out(place: KafkaPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that returns to an older position delivers no record to the worker twice."""
    fill(place, 400)
    worker = place.worker()
    fetch, before, turn = worker._consumer.fetch, {}, itertools.count()

    def again(timeout_s, max_records):
        batches = fetch(timeout_s, max_records)
        repeated = {
            partition: joined(before[partition], records)
            for partition, records in batches.items()
            if partition in before
        }
        before.update(batches)
        # Those of the last time first, or the new ones and then, in the same answer, the new ones again.
        ways = [before | repeated, {partition: joined(records, records) for partition, records in batches.items()}]
        return ways[next(turn) % 2]

    def joined(first, other):
        arrays = (np.concatenate([getattr(first, name), getattr(other, name)]) for name in ("offsets", "times_ms"))
        return RawRecords(
            first.topic, first.partition, *arrays, [*first.keys, *other.keys], [*first.values, *other.values]
        )

    monkeypatch.setattr(worker._consumer, "fetch", again)
    came = drain(worker, 20)
    values = [int(value) for polls in came.values() for fetched in polls for value in fetched.records.values]
    assert sorted(values) == list(range(400))


@over_both_clients
def test_a_topic_without_a_leader_is_no_fault(place: KafkaPlace) -> None:
    """End offsets of partitions, one of which is unavailable, are no answer yet, and do not stop a worker."""
    existing, gone = TopicPartition(place.settings.topics.events, 0), TopicPartition("gone", 0)
    with ExitStack() as stack:
        consumer = client_of(place.settings).open_consumer(place.settings)
        stack.callback(consumer.close, timeout_ms=1_000)
        assert consumer.end_offsets([existing], 1_000) == {existing: 0}
        with pytest.raises(kafka_errors.RetriableError, match=r"gone|nknown"):
            consumer.end_offsets([existing, gone], 1_000)


@over_all_clients
def test_a_topic_made_anew_is_noticed(place: KafkaPlace, admin: KafkaAdminClient) -> None:
    """A topic that is recreated under a worker has other records at its offsets: it is refused."""
    fill(place, 400)
    worker, events = place.worker(), place.settings.topics.events
    drain(worker)
    admin.delete_topics([events])
    for _ in range(5):
        worker.poll(timeout_s=0.2, max_records=10)
    place.admin().apply()
    fill(place, 800)
    with pytest.raises(TopicError, match=f"{events} was deleted and recreated"):
        drain(worker)


def test_positions_and_state_must_fit(place: KafkaPlace, admin: KafkaAdminClient) -> None:
    """State without committed offsets, or offsets without state, is refused: either would duplicate or lose records."""
    fill(place, 40)
    worker = place.worker()
    worker.commit(
        Commit(0, InputOffsets(3, 0), step_boundaries=(InputOffsets(), InputOffsets(3, 0)), snapshot=b"state")
    )
    worker.close()
    admin.delete_groups([place.settings.application_id])
    with pytest.raises(StateError, match="no longer its committed offsets"):
        place.worker()
    settings = place.altered(application_id=f"{place.settings.application_id}-b")
    worker = place.worker(settings)
    worker.commit(Commit(0, InputOffsets(3, 0), step_boundaries=(InputOffsets(), InputOffsets(3, 0))))
    worker.close()
    admin.delete_topics([settings.topics.state])
    while settings.topics.state in admin.list_topics():
        time.sleep(0.1)
    place.admin().apply()
    with pytest.raises(StateError, match=r"state of shard 0 .* is gone"):
        place.worker(settings)


def test_added_partitions_are_refused(place: KafkaPlace, admin: KafkaAdminClient) -> None:
    """With more partitions, sensors belong to other shards: state that was saved before no longer fits."""
    fill(place, 40)
    worker = place.worker()
    worker.commit(Commit(0, InputOffsets(3, 0), step_boundaries=(InputOffsets(),), snapshot=b"state"))
    worker.close()
    topics = [getattr(place.settings.topics, role) for role in ("events", "labels", "scores", "incidents", "state")]
    admin.create_partitions(dict.fromkeys([*topics, place.settings.topics.dead_letters], 3))
    with pytest.raises(TopicError, match=r"topics\.partitions is 2"):
        place.broker()
    with pytest.raises(TopicError, match="was saved when the events topic had 2 partitions, now it has 3"):
        place.worker(place.altered(topics={"partitions": 3}), shards=3)


@over_both_clients
def test_one_instance_id_is_for_one_worker(place: KafkaPlace) -> None:
    """Two workers under one broker.instance_id would fence each other forever: the older one ends, and says why."""
    fill(place, 20)
    settings = place.altered(broker={"instance_id": "here"})
    first = place.worker(settings)
    first.commit(Commit(0, InputOffsets(1, 0), step_boundaries=(InputOffsets(),)))
    second = place.broker(settings)
    own(second, PARTITIONS)
    with pytest.raises(BrokerError, match="instance_id 'here'"):
        first.commit(Commit(0, InputOffsets(2, 0)))
    with pytest.raises(BrokerError, match="instance_id 'here'"):
        first.poll(timeout_s=1, max_records=1)


@only_librdkafka
@pytest.mark.parametrize("before", ["its session timed out", "its connection broke"])
def test_a_worker_that_fences_itself_goes_on(place: KafkaPlace, kafka: KafkaServer, before: str) -> None:
    """A client that is fenced under its instance_id soon after Kafka may have missed a heartbeat has fenced itself by
    joining twice: another client joins. Its commit may be the first to notice.
    """
    fill(place, 500)
    settings = place.altered(broker={"instance_id": "here", "bootstrap_servers": kafka.address("PROXIED")})
    worker = Copier(place.broker(settings))
    while worker.commits < 4:
        worker.turn()
    consumer = worker.broker._consumer
    if before == "its connection broke":
        kafka.proxy.cut()
    else:
        consumer._fetched_at -= settings.broker.session_timeout_seconds
    while not consumer.may_have_fenced_itself():
        worker.turn()
    own(place.broker(settings), PARTITIONS)  # in the place of what it had asked for
    work_until(worker, place, 500)
    assert scores(place) == list(range(500))


@over_both_clients
def test_a_static_worker_keeps_its_shards(place: KafkaPlace) -> None:
    """A worker that returns under its instance_id within the session timeout gets its shards again, and others keep
    theirs.
    """
    brokers = {name: place.broker(place.altered(broker={"instance_id": name})) for name in ("a", "b")}
    while sorted(len(broker.assigned()) for broker in brokers.values()) != [1, 1]:
        for broker in brokers.values():
            broker.poll(timeout_s=0.2, max_records=1)
    had, generation = brokers["a"].assigned(), brokers["b"]._group.generation_id
    brokers["a"].close()
    again = place.broker(place.altered(broker={"instance_id": "a"}))
    own(again, 1)
    brokers["b"].poll(timeout_s=0.5, max_records=1)
    assert again.assigned() == had
    assert brokers["b"]._group.generation_id == generation


@over_all_clients
def test_a_record_too_large_for_its_topic_is_named(place: KafkaPlace) -> None:
    """A dead letter over max.message.bytes fails its commit as a whole, and the message names that setting."""
    fill(place, 20)
    worker = place.worker()
    huge = [OutRecord(b"a", random.Random(1).randbytes(20_000_000), 1)]
    with pytest.raises(TopicError, match="too large") as refused:
        worker.commit(Commit(0, InputOffsets(1, 0), scores=[OutRecord(b"a", b"1", 1)], dead_letters=huge))
    assert "max.message.bytes" in refused.value.hint
    assert scores(place) == []


def test_a_missing_certificate_is_named() -> None:
    """A missing file of broker.security is named with its setting, before any attempt to connect."""
    security = {"protocol": "SSL", "ca_file": "/nowhere/ca.pem"}
    with pytest.raises(BrokerError, match=r"/nowhere/ca\.pem cannot be read") as missing:
        open_broker(Settings(broker={"kind": "kafka", "security": security}))
    assert "broker.security.ca_file" in missing.value.hint


def test_security_reaches_the_client() -> None:
    """Protocol, files, mechanism and login are passed on; the password is not shown by the settings."""
    settings = secured()
    options = client_options(settings)
    assert options["bootstrap_servers"] == ["a:1", "b:2"]
    assert options["security_protocol"] == "SASL_SSL"
    assert options["ssl_cafile"] == "ca.pem"
    assert (options["ssl_certfile"], options["ssl_keyfile"]) == ("me.pem", "me.key")
    assert options["sasl_mechanism"] == "SCRAM-SHA-512"
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("ann", "secret")
    assert "secret" not in repr(settings)
