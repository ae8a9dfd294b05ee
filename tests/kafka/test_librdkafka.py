"""The client librdkafka where its adapter does more than forward calls, and where it is not installed."""

from __future__ import annotations

import inspect
import sys
import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka import errors as kafka_errors
from kafka.structs import ConsumerGroupMetadata

from stream_ad.brokers import open_broker, open_producer
from stream_ad.brokers.kafka.client_api import client_of
from stream_ad.brokers.kafka.librdkafka.config import ConnectionMonitor, common_config, translated_errors
from stream_ad.brokers.kafka.librdkafka.group_metadata import pack, unpack
from stream_ad.brokers.kafka.librdkafka.message_columns import to_columns
from stream_ad.brokers.kafka.librdkafka.producer import LibrdkafkaProducer
from stream_ad.brokers.worker_api import Commit, InputOffsets, InputTopic
from stream_ad.errors import BrokerError, LostRecordsError, SettingsError
from stream_ad.records.columns import OutRecord
from stream_ad.settings import Settings
from stream_ad.util.findings import Level
from tests.support.broker_fixtures import PARTITIONS, KafkaPlace, drain, own
from tests.support.secure_kafka import secured

if TYPE_CHECKING:
    from tests.support.kafka_server import KafkaServer

names = st.text("abcäöü-7", min_size=1, max_size=20)


@pytest.fixture
def client() -> str:
    """The client of all tests of this file."""
    return "librdkafka"


@given(names, st.integers(-1, 2**31 - 1), st.text("abcü-7", max_size=20), st.none() | names)
def test_a_membership_survives_the_way_there_and_back(group, generation, member, instance) -> None:
    """The generation, which says whether membership is lost, is decoded, and encoding gives the same bytes."""
    membership = ConsumerGroupMetadata(group, generation, member, instance)
    assert unpack(pack(membership)) == membership


def test_a_membership_of_the_library_is_understood(place: KafkaPlace) -> None:
    """Group metadata of the library itself, before joining and as a member, has the expected format."""
    idle = Consumer({"group.id": "nobody", "bootstrap.servers": place.settings.broker.bootstrap_servers})
    lost = unpack(idle.consumer_group_metadata())
    assert (lost.group_id, lost.generation_id, lost.member_id, lost.group_instance_id) == ("nobody", -1, "", None)
    assert pack(lost) == idle.consumer_group_metadata()
    idle.close()
    member = place.worker(place.altered(broker={"instance_id": "here"}))._group
    assert member.generation_id > 0
    assert member.member_id
    assert member.group_instance_id == "here"


def test_another_form_of_membership_is_refused() -> None:
    """Group metadata in another format is refused instead of being trusted."""
    with pytest.raises(BrokerError, match="unknown format") as refused:
        unpack(b"CGMDv9:something")
    assert "stream-ad[librdkafka]" in refused.value.hint


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError._FENCED, kafka_errors.ProducerFencedError),
        (KafkaError.ILLEGAL_GENERATION, kafka_errors.IllegalGenerationError),
        (KafkaError.MSG_SIZE_TOO_LARGE, kafka_errors.MessageSizeTooLargeError),
        (KafkaError._TIMED_OUT, kafka_errors.KafkaTimeoutError),
        (KafkaError._ALL_BROKERS_DOWN, kafka_errors.KafkaConnectionError),
        (KafkaError._AUTO_OFFSET_RESET, kafka_errors.OffsetOutOfRangeError),
        (KafkaError._STATE, kafka_errors.KafkaError),
    ],
)
def test_errors_are_told_in_the_other_clients_words(code, kind) -> None:
    """Each error has the same class, and hence the same advice, over both clients."""
    with pytest.raises(kafka_errors.KafkaError, match="what happened") as raised, translated_errors():
        raise KafkaException(KafkaError(code, "what happened"))
    assert type(raised.value) is kind


def test_security_reaches_the_client() -> None:
    """Protocol, files, mechanism and login are passed on under librdkafka's names, and nothing that is not set."""
    config = common_config(secured())
    assert config["bootstrap.servers"] == "a:1,b:2"
    assert config["security.protocol"] == "SASL_SSL"
    assert config["ssl.ca.location"] == "ca.pem"
    assert (config["ssl.certificate.location"], config["ssl.key.location"]) == ("me.pem", "me.key")
    assert config["sasl.mechanism"] == "SCRAM-SHA-512"
    assert (config["sasl.username"], config["sasl.password"]) == ("ann", "secret")
    assert config["allow.auto.create.topics"] is False
    assert not {"ssl.ca.location", "sasl.username"} & common_config(Settings()).keys()


def test_a_look_at_a_producer_begins_no_transaction() -> None:
    """Reading its attributes, as a debugger does, changes nothing; only a call asks the library."""
    begun: list[int] = []

    class Library:
        def begin_transaction(self) -> None:
            begun.append(1)

    producer = LibrdkafkaProducer(Library(), ConnectionMonitor())
    inspect.getmembers(producer)
    assert not begun
    assert producer.last_error() is None
    assert begun == [1]


@pytest.mark.parametrize("opened", [open_broker, open_producer])
def test_a_missing_package_is_named(place: KafkaPlace, monkeypatch: pytest.MonkeyPatch, opened) -> None:
    """Without confluent-kafka the setting is refused with the command that installs it."""
    for name in [name for name in sys.modules if name.startswith("stream_ad.brokers.kafka.librdkafka")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("stream_ad.brokers.kafka.librdkafka", raising=False)
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(SettingsError, match="confluent-kafka") as missing:
        opened(place.settings)
    assert 'pip install "stream-ad[librdkafka]"' in missing.value.hint
    assert missing.value.exit_code == 3
    (finding,) = [each for each in place.admin().examine() if each.level is Level.PROBLEM]
    assert "stream-ad[librdkafka]" in finding.remediation


def test_the_other_client_does_not_import_it(place: KafkaPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """kafka-python works where confluent-kafka is not installed."""
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    own(place.broker(place.altered(broker={"client": "kafka-python"})), PARTITIONS)


def test_records_lost_in_the_middle_are_stepped_over(place: KafkaPlace) -> None:
    """Retention deleted the next records: it is reported once, and after a seek to the oldest kept the partition
    continues, while the other one has missed nothing.
    """
    producer = place.producer()
    producer.send(InputTopic.EVENTS, [OutRecord(b"pump-%d" % (n % 20), b"%d" % n, 10**12 + n) for n in range(400)])
    producer.flush()
    worker, got = place.worker(), []
    for sides in worker.poll(timeout_s=2, max_records=20).values():
        got += sides[InputTopic.EVENTS].records.values
    ends = [worker.bounds(shard)[1].events for shard in range(PARTITIONS)]
    place.delete_records(InputTopic.EVENTS, 0, ends[0] - 5)
    worker.seek(1, InputOffsets())
    worker._members.seek((0, InputTopic.EVENTS), 0)  # as if it had been read up to there only
    with pytest.raises(LostRecordsError) as lost:
        drain(worker, 20)
    assert lost.value.shard == 0
    worker.load(0)
    worker.seek(0, InputOffsets(ends[0] - 5, 0))
    worker.seek(1, InputOffsets())
    came = drain(worker, 20)
    assert sum(len(fetched.records) for fetched in came[0, InputTopic.EVENTS]) == 4
    assert sum(len(fetched.records) for fetched in came[1, InputTopic.EVENTS]) == ends[1] - 1


def test_a_slow_answer_moves_no_position(place: KafkaPlace, kafka: KafkaServer) -> None:
    """A shard gets its position as soon as it is assigned, while Kafka's answers take long: every record comes from
    there on.
    """
    producer = place.producer()
    producer.send(InputTopic.EVENTS, [OutRecord(b"pump", b"%d" % n * 50_000, 10**12 + n) for n in range(40)])
    producer.flush()
    worker = place.broker(place.altered(broker={"bootstrap_servers": kafka.address("PROXIED")}))
    kafka.proxy.delay(0.3)
    try:
        own(worker, PARTITIONS)
        for shard in range(PARTITIONS):
            for side in InputTopic:
                worker._members.seek((shard, side), 0)
        time.sleep(1.5)  # what the client asks of itself it has been told by now
    finally:
        kafka.proxy.delay(0)
    came = drain(worker, 5)
    assert sum(len(fetched.records) for polls in came.values() for fetched in polls) == 40


def test_both_clients_share_a_group(place: KafkaPlace) -> None:
    """Workers of both clients in one group divide the shards, with both inputs of a shard at the same worker; each
    commits what it owns.
    """
    brokers = [place.broker(), place.broker(place.altered(broker={"client": "kafka-python"}))]
    while sorted(len(broker.assigned()) for broker in brokers) != [1, 1]:
        for broker in brokers:
            broker.poll(timeout_s=0.2, max_records=1)
    assert frozenset.union(*(broker.assigned() for broker in brokers)) == set(range(PARTITIONS))
    for broker in brokers:
        (shard,) = broker.assigned()
        broker.seek(shard, broker.load(shard).positions)
        broker.commit(
            Commit(shard, InputOffsets(), scores=[OutRecord(b"a", b"%d" % shard, 1)], step_boundaries=(InputOffsets(),))
        )
    assert sorted(value for _, value in place.reader().read(place.settings.topics.scores)) == [b"0", b"1"]


def test_a_client_takes_over_from_the_other(place: KafkaPlace) -> None:
    """broker.client may be changed between two starts: both clients read the same state."""
    for number, client in enumerate(["librdkafka", "kafka-python", "librdkafka"]):
        worker = place.worker(place.altered(broker={"client": client}))
        stored = worker.load(0)
        assert (stored.snapshot.data if stored.snapshot else b"0") == b"%d" % number
        step_boundaries = (InputOffsets(),) if number == 0 else ()
        worker.commit(Commit(0, InputOffsets(), step_boundaries=step_boundaries, snapshot=b"%d" % (number + 1)))
        worker.close()


def test_a_transaction_of_others_is_fenced(place: KafkaPlace, kafka: KafkaServer) -> None:
    """Whoever takes over the shard's transactional id ends what is open under it, even of another client."""
    worker = place.worker()
    name = f"{place.settings.application_id}-0"
    intruder = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": name})
    intruder.init_transactions(10)
    with pytest.raises(BrokerError, match="taken over by another worker"):
        worker.commit(Commit(0, InputOffsets(), scores=[OutRecord(b"a", b"1", 1)], step_boundaries=(InputOffsets(),)))
    intruder.close()
    assert place.reader().read(place.settings.topics.scores) == []


def test_a_link_that_breaks_between_commits_ends_the_producer(place: KafkaPlace, kafka: KafkaServer) -> None:
    """The coordinator may have left the last commit open somewhere: that is resolved before another one writes."""
    worker = place.worker(place.altered(broker={"bootstrap_servers": kafka.address("PROXIED")}))
    worker.commit(Commit(0, InputOffsets(1, 0), scores=[OutRecord(b"a", b"1", 1)], step_boundaries=(InputOffsets(),)))
    kafka.proxy.cut()
    time.sleep(0.5)  # until the client has seen it
    with pytest.raises(BrokerError, match=r"(?i)disconnected"):
        worker.commit(Commit(0, InputOffsets(2, 0), scores=[OutRecord(b"a", b"2", 1)]))
    assert worker.load(0).positions == InputOffsets(1, 0)
    worker.commit(Commit(0, InputOffsets(2, 0), scores=[OutRecord(b"a", b"2", 1)]))
    assert [value for _, value in place.reader().read(place.settings.topics.scores)] == [b"1", b"2"]


def test_a_link_that_breaks_before_anything_is_written_ends_the_producer(place: KafkaPlace, kafka: KafkaServer) -> None:
    """A transaction that has written nothing yet does not continue over another connection."""
    settings = place.altered(broker={"bootstrap_servers": kafka.address("PROXIED")})
    scores = settings.topics.scores
    producer = client_of(settings).open_producer(settings, place.settings.application_id, [scores])
    producer.begin_transaction()
    kafka.proxy.block()
    producer.send_batches(scores, 0, [OutRecord(b"a", b"1", 1)])
    kafka.proxy.cut()
    kafka.proxy.unblock()
    with pytest.raises(kafka_errors.KafkaConnectionError):
        producer.flush(10)
    producer.abandon()


def test_what_is_no_record_is_told_apart() -> None:
    """Records are grouped by partition, in their order; ``on_error`` gets every message that is not a record."""
    end = KafkaError(KafkaError._PARTITION_EOF)
    messages = [
        Message("a", 0, 5, key=b"k", value=b"1", timestamp=(1, 50)),
        Message("b", 0, 7, value=b"2", timestamp=(1, 40)),
        Message("a", 0, 6, error=end),
        Message("a", 0, 8, key=b"l", timestamp=(1, 60)),
    ]
    met: list[int | None] = []
    columns = to_columns(messages, lambda _, message: met.append(message.offset()))
    assert met == [6]
    assert list(columns) == [TopicPartition("a", 0), TopicPartition("b", 0)]
    first = columns[TopicPartition("a", 0)]
    assert (first.offsets.tolist(), first.times_ms.tolist()) == ([5, 8], [50, 60])
    assert (first.keys, first.values) == ([b"k", b"l"], [b"1", None])
