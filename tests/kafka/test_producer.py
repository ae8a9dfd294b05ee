"""Input records are written once, whatever happens to Kafka meanwhile."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from kafka import errors as kafka_errors

from stream_ad.brokers.kafka.kafka_python.producer import KafkaPythonProducer
from stream_ad.brokers.kafka.partition_reader import PartitionReader
from stream_ad.brokers.worker_api import InputTopic
from stream_ad.records.columns import OutRecord
from tests.support.broker_fixtures import only_kafka_python

if TYPE_CHECKING:
    from tests.support.broker_fixtures import KafkaPlace
    from tests.support.kafka_server import KafkaServer

LONG_AGO_MS = 1_500_000_000_000
RECORDS = [OutRecord(b"pump-%d" % (n % 20), b"%d" % n, LONG_AGO_MS + n) for n in range(300)]


def written(place: KafkaPlace) -> list[int]:
    """Return what readers of committed records see, once all transactions in the topic have ended."""
    with closing(PartitionReader(place.settings, place.settings.topics.events)) as reader:
        return sorted(int(record.value) for record in reader.read_until_stable())


@only_kafka_python
def test_a_crash_before_the_answer_doubles_no_recording(place: KafkaPlace, kafka: KafkaServer) -> None:
    """Kafka appends old records and dies before it answers: sent again, they are there once. (Idempotence alone
    duplicates them: when it starts, Kafka forgets producers whose newest record is a day old.)
    """
    producer = place.producer()
    sender = producer._producer._sender
    appended, restarted, answer = threading.Event(), threading.Event(), sender._handle_produce_response

    def lose_the_first(node, _sent, batches, _response):
        sender._handle_produce_response = answer
        appended.set()
        restarted.wait(60)
        sender._failed_produce(batches, node, kafka_errors.KafkaConnectionError("lost"))

    sender._handle_produce_response = lose_the_first
    producer.send(InputTopic.EVENTS, RECORDS)
    flushing = threading.Thread(target=producer.flush)
    flushing.start()
    assert appended.wait(30)
    kafka.restart(kill=True)
    restarted.set()
    flushing.join(100)
    assert written(place) == list(range(300))


@only_kafka_python
@pytest.mark.parametrize("committed", [True, False], ids=["committed", "not committed"])
def test_a_commit_without_an_answer_is_looked_up(place: KafkaPlace, monkeypatch: pytest.MonkeyPatch, committed) -> None:
    """When the outcome of a transaction is unknown, the producer reads it, and repeats only an aborted one."""
    producer, end, tries = place.producer(), KafkaPythonProducer.end_transaction, []

    def lost(self, timeout_s):
        tries.append(timeout_s)
        if committed or len(tries) > 1:
            end(self, timeout_s)
        if len(tries) == 1:
            raise kafka_errors.KafkaTimeoutError("no answer")

    monkeypatch.setattr(KafkaPythonProducer, "end_transaction", lost)
    producer.send(InputTopic.EVENTS, RECORDS)
    producer.flush()
    assert len(tries) == 1 + (not committed)
    assert written(place) == list(range(300))
