"""When a worker asks for the end offsets of its inputs."""

from __future__ import annotations

import functools
import time
from threading import get_ident
from typing import TYPE_CHECKING, Any

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors

from stream_ad.brokers.kafka.end_offsets import EndOffsets
from stream_ad.brokers.kafka.membership import Membership
from stream_ad.brokers.worker_api import InputTopic
from stream_ad.errors import BrokerError
from stream_ad.records.columns import OutRecord
from stream_ad.settings import Settings
from tests.support.broker_fixtures import drain

if TYPE_CHECKING:
    from collections.abc import Collection

    from tests.support.broker_fixtures import KafkaPlace

EVENTS, LABELS = (0, InputTopic.EVENTS), (0, InputTopic.LABELS)


class Topics:
    """A consumer of two inputs, reduced to end offsets and positions."""

    def __init__(self) -> None:
        self.ends = {TopicPartition("e", 0): 10, TopicPartition("l", 0): 3}
        self.asked = 0
        self.failure: Exception | None = None

    def end_offsets(self, partitions: Collection[TopicPartition], timeout_ms: int) -> dict[TopicPartition, int]:
        assert timeout_ms > 0
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return {partition: self.ends[partition] for partition in partitions}

    def open_offset_client(self) -> Topics:
        return self

    def close(self) -> None: ...

    def position(self, partition: TopicPartition) -> int:
        raise KeyError(partition)


@pytest.fixture
def topics() -> Topics:
    return Topics()


@pytest.fixture
def members(topics: Topics) -> Membership:
    members = Membership(topics, {InputTopic.EVENTS: "e", InputTopic.LABELS: "l"}, 1)
    members.next = {EVENTS: 4, LABELS: 3}
    return members


@pytest.fixture
def ends(topics: Topics, members: Membership) -> EndOffsets:
    return EndOffsets(Settings(), topics, members)


def test_an_answer_asked_for_ahead_is_the_one_that_counts(topics: Topics, members: Membership, ends: EndOffsets):
    """End offsets requested before the records came are compared with positions after them, without another request."""
    ends.ask_ahead({EVENTS, LABELS}, began := time.monotonic())
    members.next[EVENTS] = 10
    assert ends.drained({EVENTS, LABELS}, began) == {EVENTS, LABELS}
    assert topics.asked == 1
    ends.close()


def test_nothing_is_asked_while_no_end_is_near(topics: Topics, members: Membership, ends: EndOffsets):
    """An end offset that is not reached proves that its input is not drained, however old the answer is."""
    ends.drained({EVENTS, LABELS}, time.monotonic())
    members.next[LABELS] = 2
    ends.ask_ahead({EVENTS, LABELS}, later := time.monotonic() + 60)
    assert ends.drained({EVENTS, LABELS}, later) == set()
    assert topics.asked == 1
    ends.close()


def test_an_answer_that_failed_is_no_answer(topics: Topics, ends: EndOffsets):
    """Without an answer nothing is drained; a refusal is an error, even where it was requested ahead."""
    topics.failure = kafka_errors.KafkaTimeoutError()
    ends.ask_ahead({LABELS}, began := time.monotonic())
    assert ends.drained({LABELS}, began) == set()
    topics.failure = kafka_errors.TopicAuthorizationFailedError()
    ends.ask_ahead({LABELS}, began := time.monotonic())
    with pytest.raises(BrokerError):
        ends.drained({LABELS}, began)
    topics.failure = None
    assert ends.drained({LABELS}, time.monotonic()) == {LABELS}
    ends.close()


CALLS = (
    "assignment", "beginning_offsets", "close", "committed", "end_offsets", "group_metadata", "pause", "paused", "poll",
    "position", "resume", "seek", "subscribe", "topics",
)  # fmt: skip


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[int, str], set[int]]:
    """Record which threads called what of which consumer, without calls of listeners on the client's own thread."""
    called: dict[tuple[int, str], set[int]] = {}

    def watch(name: str) -> None:
        call = getattr(KafkaConsumer, name)

        @functools.wraps(call)
        def watched(self: KafkaConsumer, *arguments: Any, **more: Any) -> Any:
            if get_ident() not in listening:
                called.setdefault((id(self), name), set()).add(get_ident())
            return call(self, *arguments, **more)

        monkeypatch.setattr(KafkaConsumer, name, watched)

    listening: list[int] = []
    for callback in ("on_partitions_assigned", "on_partitions_revoked", "on_partitions_lost"):
        listen = getattr(Membership, callback)

        def listened(self: Membership, partitions: Any, listen: Any = listen) -> None:
            listening.append(get_ident())
            listen(self, partitions)
            listening.pop()

        monkeypatch.setattr(Membership, callback, listened)
    for name in CALLS:
        watch(name)
    return called


@pytest.mark.parametrize("client", ["kafka-python", "kafka-python-public"], indirect=True)
def test_no_consumer_is_used_by_two_threads(place: KafkaPlace, threads: dict[tuple[int, str], set[int]]) -> None:
    """Consumers of kafka-python must not be shared between threads: requests ahead use a consumer of their own."""
    worker = place.worker()
    producer = place.producer()
    for start in range(0, 60, 20):
        producer.send(InputTopic.EVENTS, [OutRecord(b"pump-%d" % n, b"", 1) for n in range(start, start + 20)])
        producer.flush()
        drain(worker, 7)
        worker.lag()
    worker.close()
    users: dict[int, set[int]] = {}
    for (consumer, _), by in threads.items():
        users.setdefault(consumer, set()).update(by)
    assert {consumer: len(by) for consumer, by in users.items() if len(by) > 1} == {}
    polling, asking = (
        {by for (_, name), users in threads.items() if name == called for by in users}
        for called in ("poll", "end_offsets")
    )
    assert asking - polling, "nobody asked ahead on another thread"
