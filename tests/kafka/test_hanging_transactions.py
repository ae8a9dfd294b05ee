"""Transactions that Kafka leaves open in some partitions after their end are resolved by the next producer.

Kafka does so where a partition has no leader at that moment. In these tests the coordinator never learns that some
partitions belong to the transaction, which leaves them in the same state.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.producer.transaction_manager import TransactionalRequestResult, TxnOffsetCommitHandler

from stream_ad.brokers.kafka import hanging_transactions as kafka_settle
from stream_ad.brokers.kafka.hanging_transactions import MARK_HEADER, CommitMetadata, parse_commit_metadata
from stream_ad.brokers.kafka.kafka_python.producer import KafkaPythonProducer
from stream_ad.brokers.kafka.partition_reader import PartitionReader
from stream_ad.brokers.worker_api import Commit, InputOffsets, InputTopic
from stream_ad.errors import BrokerError
from stream_ad.records.columns import OutRecord
from tests.support.broker_fixtures import over_both_clients
from tests.support.hanging_transactions import keep_secret, unverified
from tests.support.stop_flags import raiser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ad.brokers.worker_api import Broker
    from tests.support.broker_fixtures import KafkaPlace
    from tests.support.kafka_server import KafkaServer

LOST = kafka_errors.KafkaTimeoutError("no answer")


@pytest.fixture
def client() -> str:
    """The client whose private attributes ``keep_secret`` patches."""
    return "kafka-python"


@pytest.fixture(autouse=True)
def gullible(kafka: KafkaServer) -> Iterator[None]:
    """Brokers accept transactional records without asking the coordinator whether there is such a transaction."""
    with unverified(kafka):
        yield


def scored(number: int, *, step_boundaries: bool = False) -> Commit:
    """Return a commit of one score, up to an event; with step boundaries it also writes to the state topic."""
    boundaries = (InputOffsets(number - 1, 0),) if step_boundaries else ()
    return Commit(0, InputOffsets(number, 0), scores=[OutRecord(b"a", b"%d" % number, 1)], step_boundaries=boundaries)


def values(place: KafkaPlace, topic: str) -> list[bytes]:
    """Return what readers of committed records see, once all transactions have ended."""
    with closing(PartitionReader(place.settings, topic)) as reader:
        return [record.value for record in reader.read_until_stable()]


def scores(place: KafkaPlace) -> list[int]:
    return [int(value) for value in values(place, place.settings.topics.scores)]


def load(broker: Broker) -> InputOffsets:
    """Take the shard over, possibly from the same worker; return its committed offsets."""
    stored = broker.load(0)
    broker.seek(0, stored.positions)
    return stored.positions


@pytest.fixture
def worker(place: KafkaPlace) -> Broker:
    """A worker that has committed a score in the normal way."""
    producer = place.producer()
    producer.send(InputTopic.EVENTS, [OutRecord(b"pump-%d" % n, b"", 1) for n in range(40)])
    producer.flush()
    worker = place.worker()
    worker.commit(scored(1, step_boundaries=True))
    assert scores(place) == [1]  # waits for the end of the transaction, which secret records would not
    return worker


def test_what_was_aborted_does_not_come_up_with_the_next_commit(place: KafkaPlace, worker: Broker, monkeypatch) -> None:
    """Scores of a failed commit, still open in their partition, are aborted; sent again, they are there once."""
    producer = worker._writers[0]._producer
    keep_secret(producer._transaction_manager, (place.settings.topics.scores, 0))
    monkeypatch.setattr(producer, "send_offsets", raiser(LOST))
    with pytest.raises(BrokerError):
        worker.commit(scored(2))
    assert load(worker) == InputOffsets(1, 0)
    worker.commit(scored(2))
    worker.commit(scored(3))
    assert scores(place) == [1, 2, 3]


@pytest.mark.parametrize("successor", ["itself", "kafka-python", "librdkafka"])
def test_what_was_committed_is_not_lost(place: KafkaPlace, worker: Broker, successor) -> None:
    """Scores of a commit whose offsets are committed, still open in their partition, are committed there, too."""
    keep_secret(worker._writers[0]._producer._transaction_manager, (place.settings.topics.scores, 0))
    worker.commit(scored(2, step_boundaries=True))
    assert place.reader().read(place.settings.topics.scores) == [(b"a", b"1")]
    if successor != "itself":
        worker.close()
        worker = place.worker(place.altered(broker={"client": successor}))
    assert load(worker) == InputOffsets(2, 0)
    assert scores(place) == [1, 2]
    worker.commit(scored(3))
    assert scores(place) == [1, 2, 3]


def test_each_partition_gets_its_own_end(place: KafkaPlace, worker: Broker, monkeypatch) -> None:
    """The metadata of the last commit tells what was committed in one partition from what was aborted in another."""
    topics, producer = place.settings.topics, worker._writers[0]._producer
    keep_secret(producer._transaction_manager, (topics.incidents, 0), (topics.dead_letters, 0))
    record = [OutRecord(b"a", b"committed", 1)]
    worker.commit(Commit(0, InputOffsets(2, 0), scores=record, incidents=record))
    monkeypatch.setattr(producer, "send_offsets", raiser(LOST))
    with pytest.raises(BrokerError):
        worker.commit(Commit(0, InputOffsets(3, 0), dead_letters=[OutRecord(b"a", b"aborted", 1)]))
    assert load(worker) == InputOffsets(2, 0)
    worker.commit(Commit(0, InputOffsets(3, 0), incidents=record, dead_letters=record))
    assert values(place, topics.incidents) == [b"committed"] * 2
    assert values(place, topics.dead_letters) == [b"committed"]


def keep_offsets_secret(producer: KafkaPythonProducer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide from the coordinator that the group's offsets belong to the producer's transactions."""
    manager = producer._transaction_manager

    def send_secretly(timeout_s, offsets, group):
        manager._pending_txn_offset_commits.update(offsets)
        result = TransactionalRequestResult()
        handler = TxnOffsetCommitHandler(manager, group, manager._pending_txn_offset_commits, result)
        manager._enqueue_request(handler)
        producer._within(timeout_s, result)

    monkeypatch.setattr(producer, "send_offsets", send_secretly)


def test_offsets_that_wait_for_their_end_keep_nobody_from_starting(worker: Broker, monkeypatch) -> None:
    """Pending offsets of a transaction without committed outputs count as never sent, and do not block a load."""
    producer = worker._writers[0]._producer
    keep_offsets_secret(producer, monkeypatch)
    monkeypatch.setattr(producer, "end_transaction", raiser(LOST))
    with pytest.raises(BrokerError):
        worker.commit(scored(2))
    assert load(worker) == InputOffsets(1, 0)
    worker.commit(scored(2))
    assert load(worker) == InputOffsets(2, 0)


@pytest.mark.parametrize("heard", ["scores", "incidents", "dead_letters", "state"])
@pytest.mark.parametrize("successor", ["itself", "librdkafka"])
def test_one_output_tells_of_a_commit_whose_offsets_wait(
    place: KafkaPlace, worker: Broker, monkeypatch, heard, successor
) -> None:
    """Pending offsets are committed where readers see outputs of their commit in at least one topic, and so is what is
    open of it elsewhere: repeated, the step would be published twice.
    """
    topics, producer = place.settings.topics, worker._writers[0]._producer
    keep_offsets_secret(producer, monkeypatch)
    others = {"scores", "incidents", "dead_letters", "state"} - {heard}
    keep_secret(producer._transaction_manager, *((getattr(topics, name), 0) for name in others))
    record = [OutRecord(b"a", b"2", 1)]
    step = {
        "scores": record,
        "incidents": record,
        "dead_letters": record,
        "step_boundaries": (InputOffsets(1, 0), InputOffsets(2, 0)),
    }
    worker.commit(Commit(0, InputOffsets(2, 0), **step))
    if successor != "itself":
        worker.close()
        worker = place.worker(place.altered(broker={"client": successor}))
    assert load(worker) == InputOffsets(2, 0)
    assert worker.load(0).journal[-1] == InputOffsets(2, 0)
    assert scores(place) == [1, 2]
    assert values(place, topics.incidents) == values(place, topics.dead_letters) == [b"2"]
    worker.commit(scored(3))
    assert load(worker) == InputOffsets(3, 0)
    assert scores(place) == [1, 2, 3]


def break_link(producer: KafkaPythonProducer, _monkeypatch: pytest.MonkeyPatch | None = None) -> None:
    """Break the connection to the coordinator, which is opened again when it is needed."""
    producer._coordinator_connection().close()
    while producer._coordinator_connection() is not None:
        time.sleep(0.01)


def lose_coordinator(producer: KafkaPythonProducer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the coordinator unreachable the next time it is needed."""
    client = producer._sender._client
    ready, tries = client.await_ready, []

    def await_ready(*arguments, **more):
        tries.append(arguments)
        return len(tries) > 1 and ready(*arguments, **more)

    monkeypatch.setattr(client, "await_ready", await_ready)


@pytest.mark.parametrize("break_off", [break_link, lose_coordinator])
def test_a_commit_that_fails_takes_none_before_it_along(
    place: KafkaPlace, worker: Broker, monkeypatch, break_off
) -> None:
    """A coordinator that dies after a commit may leave its scores open. The next commit, which fails, does not write
    behind them: Kafka would abort both.
    """
    producer = worker._writers[0]._producer
    tell = producer._transaction_manager.maybe_add_partition_to_transaction
    keep_secret(producer._transaction_manager, (place.settings.topics.scores, 0))
    worker.commit(scored(2))
    producer._transaction_manager.maybe_add_partition_to_transaction = tell
    break_off(producer, monkeypatch)
    monkeypatch.setattr(producer, "send_offsets", raiser(LOST))
    with pytest.raises(BrokerError):
        worker.commit(scored(3))
    assert load(worker) == InputOffsets(2, 0)
    worker.commit(scored(3))
    assert scores(place) == [1, 2, 3]


def test_an_end_told_once_more_changes_nothing(place: KafkaPlace, worker: Broker) -> None:
    """Where only the connection broke, commits and recordings continue."""
    break_link(worker._writers[0]._producer)
    worker.commit(scored(2))
    break_link(worker._writers[0]._producer)
    worker.commit(scored(3))
    assert load(worker) == InputOffsets(3, 0)
    assert scores(place) == [1, 2, 3]
    producer = place.producer()
    for number in range(2):
        producer.send(InputTopic.LABELS, [OutRecord(b"pump", b"%d" % number, 1)])
        producer.flush()
        break_link(producer._producer)
    assert values(place, place.settings.topics.labels) == [b"0", b"1"]


def write_beside(place: KafkaPlace) -> None:
    """Write records of another application, and of no worker at all, among the scores, and apply retention."""
    producer = KafkaProducer(bootstrap_servers=place.settings.broker.bootstrap_servers)
    for value in (b'["other",7,0]', b"[]", b"\xff"):
        sent = producer.send(place.settings.topics.scores, b"5", partition=0, headers=[(MARK_HEADER, value)]).get(10)
    producer.close()
    with closing(KafkaAdminClient(bootstrap_servers=place.settings.broker.bootstrap_servers)) as admin:
        admin.delete_records({TopicPartition(sent.topic, 0): sent.offset - 1})


def test_what_others_write_tells_nothing_of_a_commit(place: KafkaPlace, worker: Broker) -> None:
    """Records of others in the topic of scores change no offsets."""
    write_beside(place)
    assert load(worker) == InputOffsets(1, 0)


def test_outputs_are_read_once_for_what_they_tell(place: KafkaPlace, worker: Broker, monkeypatch) -> None:
    """Outputs that were read before a commit are not read again after it."""
    write_beside(place)
    assert load(worker) == InputOffsets(1, 0)
    worker.commit(scored(2))
    monkeypatch.setattr(kafka_settle, "PartitionReader", raiser(AssertionError("it was looked through already")))
    assert load(worker) == InputOffsets(2, 0)


def lose_one_answer(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let the first commit of a producer succeed without an answer; return a list of all attempts."""
    end, tries = KafkaPythonProducer.end_transaction, []

    def lost(self, timeout_s):
        tries.append(timeout_s)
        end(self, timeout_s)
        if len(tries) == 1:
            raise LOST

    monkeypatch.setattr(KafkaPythonProducer, "end_transaction", lost)
    return tries


@pytest.mark.parametrize(("secret", "tries"), [((0, 1), 2), ((1,), 1)], ids=["none has ended", "one has ended"])
def test_recordings_are_written_once(place: KafkaPlace, monkeypatch, secret, tries) -> None:
    """Left open everywhere, records are aborted and written again; committed in one partition, the others follow it."""
    producer, records = place.producer(), [OutRecord(b"pump-%d" % n, b"%d" % n, 1) for n in range(40)]
    producer.send(InputTopic.EVENTS, [OutRecord(b"pump-%d" % n, b"0", 1) for n in range(40)])
    producer.flush()
    assert len(values(place, place.settings.topics.events)) == 40  # as above
    keep_secret(
        producer._producer._transaction_manager, *((place.settings.topics.events, partition) for partition in secret)
    )
    done = lose_one_answer(monkeypatch)
    producer.send(InputTopic.EVENTS, records)
    producer.flush()
    assert len(done) == tries
    numbers = [int(value) for value in values(place, place.settings.topics.events)]
    assert sorted(number for number in numbers if number) == list(range(1, 40))


def test_a_note_is_read_as_written_or_not_at_all() -> None:
    """The metadata of an offset may have been written by anybody."""
    assert parse_commit_metadata('[7,{"anomaly-scores":3}]') == CommitMetadata(7, {"anomaly-scores": 3})
    for text in (None, "", "7", "[-1]", "[1,{}", '[1,{"a":"b"}]', "\x00"):
        assert parse_commit_metadata(text) == CommitMetadata()


@over_both_clients
def test_the_next_owner_reads_the_note_of_the_last_commit(place: KafkaPlace, worker: Broker) -> None:
    """Whichever client wrote the metadata, the next owner reads it: without it the outcome of an open transaction is
    unknown.
    """
    worker.commit(scored(2, step_boundaries=True))
    first = worker._writers[0]._metadata
    worker.close()
    successor = place.worker()
    assert first.last_offsets.keys() == {place.settings.topics.scores, place.settings.topics.state}
    ends = {topic: last + 1 for topic, last in first.last_offsets.items()}  # the end of the transaction stands there
    assert successor._writers[0]._metadata == CommitMetadata(first.state_start, ends)
