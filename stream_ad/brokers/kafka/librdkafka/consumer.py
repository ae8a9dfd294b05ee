"""librdkafka's group consumer.

It fetches ahead on threads of its own; rebalances are handed over in the middle of ``fetch``, on the worker's thread.
"""

from __future__ import annotations

import time
from threading import Thread
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import Consumer, KafkaError
from kafka import TopicPartition
from kafka import errors as kafka_errors
from kafka.structs import ConsumerGroupMetadata, MemberState

from stream_ad.brokers.kafka.connection import HEARTBEAT_S
from stream_ad.brokers.kafka.librdkafka.assignment import Assignment
from stream_ad.brokers.kafka.librdkafka.config import ConnectionMonitor, common_config, in_our_words, translated_errors
from stream_ad.brokers.kafka.librdkafka.group_metadata import unpack
from stream_ad.brokers.kafka.librdkafka.message_columns import in_columns
from stream_ad.brokers.kafka.librdkafka.metadata import MetadataClient, plain
from stream_ad.brokers.kafka.partition_reader import FETCH_MAX_WAIT_MS, METADATA_MS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from confluent_kafka import Message
    from confluent_kafka import TopicPartition as RdPartition

    from stream_ad.brokers.kafka.membership import Membership
    from stream_ad.records.columns import RawRecords
    from stream_ad.settings import Settings

_JOIN_S = 30.0  # that a membership may take while Kafka is asked for it, at least

log = structlog.get_logger(__name__)


class ThreadSafe:
    """See ``kafka_clients.OffsetAsker``: this library's clients may be used from every thread."""

    def __init__(self, lookup: MetadataClient) -> None:
        self._lookup = lookup

    def end_offsets(
        self, partitions: Collection[TopicPartition], timeout_ms: int | None = None
    ) -> dict[TopicPartition, int]:
        return self._lookup.end_offsets(partitions, timeout_ms)

    def close(self) -> None:
        """Leave the consumer as it is."""


class LibrdkafkaConsumer(MetadataClient):
    """See ``kafka_clients.GroupConsumer``.

    A membership that was lost comes back by itself, as a rule. Seen after Kafka was away: a client that knew no
    coordinator and never joined again, and one that was fenced under its ``instance_id``, which nobody else had: it
    had asked twice to join again. Then a new client takes its place.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        broker = settings.broker
        session_s = min(broker.session_timeout_seconds, broker.max_poll_interval_seconds)  # the library insists on that
        self._watch = ConnectionMonitor()
        config = common_config(settings) | {
            "logger": self._watch,
            "group.id": settings.application_id,
            "session.timeout.ms": int(session_s * 1000),
            "heartbeat.interval.ms": int(min(HEARTBEAT_S, session_s / 3) * 1000),
            "max.poll.interval.ms": int(broker.max_poll_interval_seconds * 1000),
            # gives the same partitions of both topics to the same worker
            "partition.assignment.strategy": "range",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",  # a position that is gone is an error, never a silent jump
            "enable.partition.eof": True,  # tells the position behind the ends of transactions
            "check.crcs": True,
            "fetch.wait.max.ms": FETCH_MAX_WAIT_MS,
            "fetch.queue.backoff.ms": 10,
            "fetch.error.backoff.ms": 100,
            "topic.metadata.refresh.interval.ms": METADATA_MS,
        }
        if broker.instance_id is not None:
            config["group.instance.id"] = broker.instance_id
        self._config = config
        with translated_errors():
            self._client = Consumer(config)
        self._places = Assignment(self._client, self.end_offsets)
        self._topics: list[str]
        self._listener: Membership
        self._waited_s = 0.0  # for a membership
        self._session_s, self._patience_s = session_s, max(_JOIN_S, 2 * session_s)
        self._fetched_at = time.monotonic()
        self._silent_at = float("-inf")  # when Kafka last may have missed this client
        self._nobody = ConsumerGroupMetadata(settings.application_id, -1, "", broker.instance_id)
        self._group = self._nobody._replace(state=MemberState.REBALANCING)
        self._failure: kafka_errors.KafkaError | None = None

    # ------------------------------------------------------------------ group

    def join(self, topics: Collection[str], listener: Membership) -> None:
        self._topics, self._listener = list(topics), listener
        self._subscribe()

    def _subscribe(self) -> None:
        with translated_errors():
            self._client.subscribe(self._topics, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)

    def _recreate_client(self) -> None:
        """Let another client join in the place of this one."""
        old = self._client
        with translated_errors():
            self._client = Consumer(self._config)
        self._places = Assignment(self._client, self.end_offsets)
        Thread(target=old.close, name="librdkafka close", daemon=True).start()  # it may never come to an end
        self._forget_membership()
        self._waited_s = 0.0
        self._subscribe()

    def open_asker(self) -> ThreadSafe:
        return ThreadSafe(self)

    def may_meet_itself(self) -> bool:
        """As ``kafka_clients.GroupConsumer``."""
        return time.monotonic() - max(self._silent_at, self._watch.broken_at) < self._patience_s

    # Of a client that has been replaced nothing counts any more.

    def _assigned(self, client: Consumer, partitions: list[RdPartition]) -> None:
        if client is self._client:
            self._places.assign(partitions, self._listener.on_partitions_assigned)
            self._group = self._group._replace(state=MemberState.STABLE)

    def _revoked(self, client: Consumer, partitions: list[RdPartition]) -> None:
        if client is self._client:
            self._group = self._group._replace(state=MemberState.REBALANCING)
            self._places.forget()
            self._listener.on_partitions_revoked([plain(one) for one in partitions])

    def _lost(self, client: Consumer, partitions: list[RdPartition]) -> None:
        if client is self._client:
            if not self._membership().member_id:  # else another member has its instance_id
                self._silent_at = time.monotonic()
            self._forget_membership(partitions)

    def _forget_membership(self, partitions: Sequence[RdPartition] = ()) -> None:
        self._group = self._nobody._replace(state=MemberState.REBALANCING)
        self._places.forget()
        self._listener.on_partitions_lost([plain(one) for one in partitions])

    def group_metadata(self) -> ConsumerGroupMetadata:
        # between two assignments the membership of before: with the new one a commit of what is taken away could pass
        if self._group.state == MemberState.STABLE:
            with translated_errors():
                self._group = self._membership()._replace(state=MemberState.STABLE)
        return self._group

    def _membership(self) -> ConsumerGroupMetadata:
        return unpack(self._client.consumer_group_metadata())

    def request_rejoin(self) -> None:
        """Nothing: librdkafka forgets no rebalance."""

    def assignment(self) -> set[TopicPartition]:
        return set(self._places.positions)

    # ---------------------------------------------------------------- reading

    def fetch(self, timeout_s: float, max_records: int) -> dict[TopicPartition, RawRecords]:
        self._raise_failure()  # of the last time, when there were records before it
        began = time.monotonic()
        if began - self._fetched_at > self._session_s:  # the whole process may have stood still
            self._silent_at = began
        self._places.settle()
        with translated_errors():
            # A batch is waited for until it is full or its time is over: so wait for the first record alone.
            messages = self._client.consume(1, timeout_s)
            if messages and max_records > 1:
                messages += self._client.consume(max_records - 1, 0)
        batches = in_columns(messages, self._handle_error_message)
        self._places.on_records(batches)
        self._fetched_at = time.monotonic()
        self._mind_membership(self._fetched_at - began)
        if batches:
            self._in_doubt = self._in_doubt or None in self._ids.values()
        else:
            self._raise_failure()
            self._places.restart_stalled()
        return batches

    def _mind_membership(self, waited_s: float) -> None:
        """Count how long there has been none, and begin anew where that is too long."""
        # A member without a partition may have been told nothing, but has a name, which goes with its session.
        with translated_errors():
            member = self._group.state == MemberState.STABLE or bool(self._membership().member_id)
        self._waited_s = 0.0 if member else self._waited_s + waited_s
        fenced = isinstance(self._failure, kafka_errors.FencedInstanceIdError) and self.may_meet_itself()
        if fenced or self._waited_s > self._patience_s:
            log.warning("The membership of the group did not come back; joining anew", fenced=fenced)
            self._failure = None
            self._recreate_client()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _handle_error_message(self, error: KafkaError, message: Message) -> None:
        place = TopicPartition(message.topic(), message.partition())
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
            self._places.advance_to(place, message.offset() or 0)
            return
        failure = in_our_words(error)
        if isinstance(failure, kafka_errors.OffsetOutOfRangeError):
            self._places.stopped(place)
        if isinstance(failure, (kafka_errors.OffsetOutOfRangeError, kafka_errors.UnknownTopicOrPartitionError)):
            self._in_doubt = True  # the topic may have been made anew
        self._failure = self._failure or failure

    def pause(self, *partitions: TopicPartition) -> None:
        self._places.pause(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        self._places.resume(partitions)

    def paused(self) -> set[TopicPartition]:
        return set(self._places.paused)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._places.seek(partition, offset)

    def position(self, partition: TopicPartition) -> int:
        return self._places.positions[partition]

    def close(self, *, timeout_ms: int) -> None:
        super().close(timeout_ms=timeout_ms)
        with translated_errors():
            self._client.close()


def open_consumer(settings: Settings) -> LibrdkafkaConsumer:
    """As ``kafka_consumer.open_consumer``."""
    return LibrdkafkaConsumer(settings)
