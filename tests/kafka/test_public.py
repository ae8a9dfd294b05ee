"""kafka-python over its public interface, where it differs: open transactions, and pauses."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from kafka import TopicPartition
from kafka import errors as kafka_errors
from kafka.structs import MemberState
from structlog.testing import capture_logs

from stream_ad.brokers.kafka.kafka_python_public import consumer as kafka_public_consumer
from stream_ad.brokers.kafka.partition_reader import PartitionReader
from stream_ad.brokers.worker_api import Commit, InputOffsets, InputTopic
from stream_ad.errors import BrokerError
from stream_ad.records.columns import OutRecord
from tests.support.broker_fixtures import PARTITIONS, drain, leave_group, own
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
    """The client of all tests of this file."""
    return "kafka-python-public"


@pytest.fixture
def gullible(kafka: KafkaServer) -> Iterator[None]:
    """Brokers accept transactional records without asking the coordinator whether there is such a transaction."""
    with unverified(kafka):
        yield


def scored(number: int) -> Commit:
    """Return a commit of one score, up to an event."""
    step_boundaries = (InputOffsets(number - 1, 0),)
    return Commit(
        0, InputOffsets(number, 0), scores=[OutRecord(b"a", b"%d" % number, 1)], step_boundaries=step_boundaries
    )


def scores(place: KafkaPlace) -> list[int]:
    """Return what readers of committed records see, once all transactions have ended."""
    with closing(PartitionReader(place.settings, place.settings.topics.scores)) as reader:
        return [int(record.value) for record in reader.read_until_stable()]


def load(broker: Broker) -> InputOffsets:
    """Take the shard over, possibly from the same worker; return its committed offsets."""
    stored = broker.load(0)
    broker.seek(0, stored.positions)
    return stored.positions


def fill(place: KafkaPlace, count: int, *, start: int = 0) -> None:
    producer = place.producer()
    producer.send(
        InputTopic.EVENTS, [OutRecord(b"pump-%d" % (n % 20), b"%d" % n, 1) for n in range(start, start + count)]
    )
    producer.flush()


@pytest.fixture
def worker(place: KafkaPlace) -> Broker:
    """A worker that has committed a score in the normal way."""
    fill(place, 40)
    worker = place.worker()
    worker.commit(scored(1))
    assert scores(place) == [1]
    return worker


def test_what_was_aborted_does_not_come_up_with_the_next_commit(
    gullible, place: KafkaPlace, worker: Broker, monkeypatch
) -> None:
    """Scores of a failed commit, still open in their partition, are aborted; sent again, they are there once, and
    nobody sees the record that aborted them.
    """
    producer = worker._writers[0]._producer
    keep_secret(producer._producer._transaction_manager, (place.settings.topics.scores, 0))
    monkeypatch.setattr(producer, "send_offsets", raiser(LOST))
    with pytest.raises(BrokerError):
        worker.commit(scored(2))
    with capture_logs() as lines:
        assert load(worker) == InputOffsets(1, 0)
    assert [line["outcome"] for line in lines if "left a transaction open" in line["event"]] == ["aborted"]
    worker.commit(scored(2))
    worker.commit(scored(3))
    assert scores(place) == [1, 2, 3]


def test_what_was_committed_waits_for_who_can_end_it(gullible, place: KafkaPlace, worker: Broker) -> None:
    """Scores of a commit whose offsets are committed, still open in their partition, cannot be committed there without
    a record that readers would see. So nothing is written behind them, the error names the client that can end it, and
    that client does.
    """
    keep_secret(worker._writers[0]._producer._producer._transaction_manager, (place.settings.topics.scores, 0))
    worker.commit(scored(2))
    with pytest.raises(BrokerError, match="committed, in scores") as refused:
        load(worker)
    assert "broker.client=kafka-python and the package kafka-python==3.0.12" in refused.value.hint
    worker.close()
    worker = place.worker(place.altered(broker={"client": "kafka-python"}))
    assert load(worker) == InputOffsets(2, 0)
    worker.close()
    worker = place.worker()
    worker.commit(scored(3))
    assert scores(place) == [1, 2, 3]


def test_nothing_is_written_behind_an_end_that_was_not_told(
    gullible, place: KafkaPlace, worker: Broker, monkeypatch
) -> None:
    """A coordinator that dies after a commit may leave its scores open. The next commit, which fails, does not write
    behind them: Kafka would abort both.
    """
    producer = worker._writers[0]._producer
    manager = producer._producer._transaction_manager
    tell = manager.maybe_add_partition_to_transaction
    keep_secret(producer._producer._transaction_manager, (place.settings.topics.scores, 0))
    worker.commit(scored(2))
    manager.maybe_add_partition_to_transaction = tell
    monkeypatch.setattr(producer, "_timeout_s", 0.5)
    monkeypatch.setattr(producer, "send_offsets", raiser(LOST))
    with pytest.raises(BrokerError, match="the last transaction does not end in scores"):
        worker.commit(scored(3))
    worker.close()
    worker = place.worker(place.altered(broker={"client": "kafka-python"}))
    worker.commit(scored(3))
    assert scores(place) == [1, 2, 3]


def test_an_input_that_was_paused_in_the_middle_is_read_on(place: KafkaPlace) -> None:
    """However often inputs are paused with records of theirs already fetched, each record comes, once and in order."""
    fill(place, 400)
    worker, came = place.worker(), {shard: [] for shard in range(2)}
    paused: list[tuple[int, InputTopic]] = []
    while sum(map(len, came.values())) < 400:
        for shard, sides in worker.poll(timeout_s=0.2, max_records=7, paused=paused).items():
            assert (shard, InputTopic.EVENTS) not in paused or not len(sides[InputTopic.EVENTS].records)
            came[shard] += [int(value) for value in sides[InputTopic.EVENTS].records.values]
        paused = [] if paused else [(sum(map(len, came.values())) % 2, InputTopic.EVENTS)]
    assert all(numbers == sorted(numbers) for numbers in came.values())
    assert sorted(came[0] + came[1]) == list(range(400))


def test_a_rebalance_that_does_not_end_is_left(place: KafkaPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client does not complete a rebalance that begins, for new metadata, in a short poll; then it is replaced by
    one that joins again, and commits.
    """
    monkeypatch.setattr(kafka_public_consumer, "_STUCK_S", 0.5)
    fill(place, 40)
    worker = place.worker()
    drain(worker)
    before = worker._group
    worker._consumer._client._coordinator._assignment_snapshot = {}  # as if the group's leader saw other partitions now
    while worker._group.state != MemberState.STABLE or worker._group[1:3] == before[1:3]:
        worker.poll(timeout_s=0, max_records=1)
    own(worker, PARTITIONS)
    load(worker)
    worker.commit(scored(1))
    assert scores(place) == [1]


def test_a_rebalance_while_kafka_is_away_is_waited_out(place: KafkaPlace, kafka: KafkaServer, monkeypatch) -> None:
    """An unreachable Kafka is not a rebalance that does not end: the worker waits for it, and continues."""
    monkeypatch.setattr(kafka_public_consumer, "_STUCK_S", 0.0)
    fill(place, 40)
    worker = place.worker()
    drain(worker)
    consumer = worker._consumer
    before = consumer._client
    kafka.pause()
    try:
        for _ in range(3):
            consumer.request_rejoin()
    finally:
        kafka.resume()
    assert consumer._client is before
    own(worker, PARTITIONS)


def test_a_fenced_producer_says_so(place: KafkaPlace, worker: Broker) -> None:
    """The error that made a producer unusable keeps its class, even where the client passes on only its text."""
    place.takeover(worker)
    producer = worker._writers[0]._producer
    producer._producer.begin_transaction()
    partition = TopicPartition(place.settings.topics.scores, 0)
    producer._producer.send(partition.topic, b"", b"", partition=0)
    with pytest.raises(kafka_errors.KafkaError):
        producer.end_transaction(10.0)
    assert isinstance(producer.last_error(), (kafka_errors.ProducerFencedError, kafka_errors.InvalidProducerEpochError))
    leave_group(worker)
