"""librdkafka's group consumer.

The library fetches ahead on threads of its own; it calls back for rebalances during ``fetch``, on the worker's thread.
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
from stream_ad.brokers.kafka.librdkafka.config import ConnectionMonitor, common_config, translate, translated_errors
from stream_ad.brokers.kafka.librdkafka.group_metadata import unpack
from stream_ad.brokers.kafka.librdkafka.message_columns import to_columns
from stream_ad.brokers.kafka.librdkafka.metadata import MetadataClient, to_kafka_python
from stream_ad.brokers.kafka.partition_reader import FETCH_MAX_WAIT_MS, METADATA_MS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from confluent_kafka import Message
    from confluent_kafka import TopicPartition as RdPartition

    from stream_ad.brokers.kafka.membership import Membership
    from stream_ad.records.columns import RawRecords
    from stream_ad.settings import Settings

_JOIN_S = 30.0  # least time that the library gets to join the group before its client is replaced

log = structlog.get_logger(__name__)


class SharedOffsetClient:
    """See ``client_api.OffsetClient``: this library's clients may be shared between threads, so it is the consumer."""

    def __init__(self, client: MetadataClient) -> None:
        self._client = client

    def end_offsets(
        self, partitions: Collection[TopicPartition], timeout_ms: int | None = None
    ) -> dict[TopicPartition, int]:
        """Return the last stable offsets, by partition."""
        return self._client.end_offsets(partitions, timeout_ms)

    def close(self) -> None:
        """Do nothing: the consumer stays open."""


class LibrdkafkaConsumer(MetadataClient):
    """See ``client_api.GroupConsumer``.

    The library normally joins again by itself after it has lost its membership. Two exceptions were seen after Kafka
    had been unreachable: a client that knew no coordinator and never joined again; and a client that was fenced under
    its ``instance_id`` although no other member had it, because it had sent its request to join twice. In both cases a
    new client replaces it (``_check_membership``).
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        broker = settings.broker
        session_s = min(
            broker.session_timeout_seconds, broker.max_poll_interval_seconds
        )  # the library refuses a longer session timeout
        self._monitor = ConnectionMonitor()
        config = common_config(settings) | {
            "logger": self._monitor,
            "group.id": settings.application_id,
            "session.timeout.ms": int(session_s * 1000),
            "heartbeat.interval.ms": int(min(HEARTBEAT_S, session_s / 3) * 1000),
            "max.poll.interval.ms": int(broker.max_poll_interval_seconds * 1000),
            # assigns the same partitions of both topics to the same worker
            "partition.assignment.strategy": "range",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",  # a position that is gone is an error, never a silent jump
            "enable.partition.eof": True,  # reports the position behind transaction markers
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
        self._assignment = Assignment(self._client, self.end_offsets)
        self._topics: list[str]
        self._listener: Membership
        self._waited_s = 0.0  # without a membership, so far
        self._session_s, self._rejoin_timeout_s = session_s, max(_JOIN_S, 2 * session_s)
        self._fetched_at = time.monotonic()
        self._silent_at = float("-inf")  # when the group may last have missed a heartbeat of this client
        self._no_membership = ConsumerGroupMetadata(settings.application_id, -1, "", broker.instance_id)
        self._group = self._no_membership._replace(state=MemberState.REBALANCING)
        self._failure: kafka_errors.KafkaError | None = None

    # ------------------------------------------------------------------ group

    def join(self, topics: Collection[str], listener: Membership) -> None:
        """See ``GroupConsumer.join``."""
        self._topics, self._listener = list(topics), listener
        self._subscribe()

    def _subscribe(self) -> None:
        with translated_errors():
            self._client.subscribe(self._topics, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)

    def _recreate_client(self) -> None:
        """Replace the client by a new one, which joins the group."""
        old = self._client
        with translated_errors():
            self._client = Consumer(self._config)
        self._assignment = Assignment(self._client, self.end_offsets)
        Thread(target=old.close, name="librdkafka close", daemon=True).start()  # it may never return
        self._forget_membership()
        self._waited_s = 0.0
        self._subscribe()

    def open_offset_client(self) -> SharedOffsetClient:
        """See ``GroupConsumer.open_offset_client``."""
        return SharedOffsetClient(self)

    def may_have_fenced_itself(self) -> bool:
        """See ``GroupConsumer.may_have_fenced_itself``."""
        return time.monotonic() - max(self._silent_at, self._monitor.broken_at) < self._rejoin_timeout_s

    # Callbacks of a client that has been replaced are ignored.

    def _assigned(self, client: Consumer, partitions: list[RdPartition]) -> None:
        if client is self._client:
            self._assignment.assign(partitions, self._listener.on_partitions_assigned)
            self._group = self._group._replace(state=MemberState.STABLE)

    def _revoked(self, client: Consumer, partitions: list[RdPartition]) -> None:
        if client is self._client:
            self._group = self._group._replace(state=MemberState.REBALANCING)
            self._assignment.forget()
            self._listener.on_partitions_revoked([to_kafka_python(partition) for partition in partitions])

    def _lost(self, client: Consumer, partitions: list[RdPartition]) -> None:
        if client is self._client:
            if not self._membership().member_id:  # else another member has this instance_id
                self._silent_at = time.monotonic()
            self._forget_membership(partitions)

    def _forget_membership(self, partitions: Sequence[RdPartition] = ()) -> None:
        self._group = self._no_membership._replace(state=MemberState.REBALANCING)
        self._assignment.forget()
        self._listener.on_partitions_lost([to_kafka_python(partition) for partition in partitions])

    def group_metadata(self) -> ConsumerGroupMetadata:
        """Return the membership; during a rebalance the previous one.

        With the new membership, a commit of a shard that is being revoked could succeed.
        """
        if self._group.state == MemberState.STABLE:
            with translated_errors():
                self._group = self._membership()._replace(state=MemberState.STABLE)
        return self._group

    def _membership(self) -> ConsumerGroupMetadata:
        return unpack(self._client.consumer_group_metadata())

    def request_rejoin(self) -> None:
        """Do nothing: librdkafka completes every rebalance by itself."""

    def assignment(self) -> set[TopicPartition]:
        """See ``GroupConsumer.assignment``."""
        return set(self._assignment.positions)

    # ---------------------------------------------------------------- reading

    def fetch(self, timeout_s: float, max_records: int) -> dict[TopicPartition, RawRecords]:
        """See ``GroupConsumer.fetch``."""
        self._raise_failure()  # of the last call, which returned the records before it
        began = time.monotonic()
        if began - self._fetched_at > self._session_s:  # the whole process may have been suspended
            self._silent_at = began
        self._assignment.apply_assignment()
        with translated_errors():
            # The library waits until a batch is full or time is up: so wait for the first record alone.
            messages = self._client.consume(1, timeout_s)
            if messages and max_records > 1:
                messages += self._client.consume(max_records - 1, 0)
        batches = to_columns(messages, self._handle_error_message)
        self._assignment.on_records(batches)
        self._fetched_at = time.monotonic()
        self._check_membership(self._fetched_at - began)
        if batches:
            self._in_doubt = self._in_doubt or None in self._ids.values()
        else:
            self._raise_failure()
            self._assignment.restart_stalled()
        return batches

    def _check_membership(self, waited_s: float) -> None:
        """Measure the time without a membership, and replace the client where that is too long."""
        # A member without partitions may get no callback, but it has a member id, which ends with its session.
        with translated_errors():
            member = self._group.state == MemberState.STABLE or bool(self._membership().member_id)
        self._waited_s = 0.0 if member else self._waited_s + waited_s
        fenced = isinstance(self._failure, kafka_errors.FencedInstanceIdError) and self.may_have_fenced_itself()
        if fenced or self._waited_s > self._rejoin_timeout_s:
            log.warning("The membership of the group did not come back; joining again with a new client", fenced=fenced)
            self._failure = None
            self._recreate_client()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _handle_error_message(self, error: KafkaError, message: Message) -> None:
        partition = TopicPartition(message.topic(), message.partition())
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
            self._assignment.advance_to(partition, message.offset() or 0)
            return
        failure = translate(error)
        if isinstance(failure, kafka_errors.OffsetOutOfRangeError):
            self._assignment.on_stopped(partition)
        if isinstance(failure, (kafka_errors.OffsetOutOfRangeError, kafka_errors.UnknownTopicOrPartitionError)):
            self._in_doubt = True  # the topic may have been recreated
        self._failure = self._failure or failure

    def pause(self, *partitions: TopicPartition) -> None:
        """See ``GroupConsumer.pause``."""
        self._assignment.pause(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        """See ``GroupConsumer.resume``."""
        self._assignment.resume(partitions)

    def paused(self) -> set[TopicPartition]:
        """See ``GroupConsumer.paused``."""
        return set(self._assignment.paused)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """See ``GroupConsumer.seek``."""
        self._assignment.seek(partition, offset)

    def position(self, partition: TopicPartition) -> int:
        """See ``GroupConsumer.position``."""
        return self._assignment.positions[partition]

    def close(self, *, timeout_ms: int) -> None:
        """See ``GroupConsumer.close``."""
        super().close(timeout_ms=timeout_ms)
        with translated_errors():
            self._client.close()


def open_consumer(settings: Settings) -> LibrdkafkaConsumer:
    """See ``client_api.Client``."""
    return LibrdkafkaConsumer(settings)
