"""librdkafka's group consumer.

It fetches ahead on threads of its own; rebalances are handed over in the middle of ``fetch``, on the worker's thread.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as RdPartition
from confluent_kafka.admin import AdminClient
from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from kafka.structs import ConsumerGroupMetadata, MemberState

from stream_ad.brokers.kafka_client import HEARTBEAT_S, REQUEST_MS, connect
from stream_ad.brokers.kafka_reading import FETCH_MAX_WAIT_MS, METADATA_MS, consumer_options
from stream_ad.brokers.librdkafka_client import common_config, in_our_words, translated_errors
from stream_ad.brokers.librdkafka_fetch import in_columns
from stream_ad.brokers.librdkafka_group import unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from concurrent.futures import Future

    from confluent_kafka import Message

    from stream_ad.brokers.kafka_group import Membership
    from stream_ad.columns import RawRecords
    from stream_ad.settings import Settings

_LATEST, _EARLIEST = -1, -2  # times that ask for the ends of a partition
_SEEK_S = 5.0
_RETRY_S = 0.02
_LOOK_S = 0.5  # between looks whether a topic was made anew
_ADMIN_S = 1.0


class RdConsumer:
    """See ``kafka_clients.GroupConsumer``."""

    def __init__(self, settings: Settings) -> None:
        broker = settings.broker
        session_s = min(broker.session_timeout_seconds, broker.max_poll_interval_seconds)  # the library insists on that
        config = common_config(settings) | {
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
        self._settings = settings
        self._lookup: KafkaConsumer | None = None
        with translated_errors():
            self._client = Consumer(config)
            self._admin = AdminClient(common_config(settings))
            # Asks for ends of partitions over connections of its own, and joins nothing: on those of the client a
            # question would stand behind a fetch that waits for records.
            self._asker = Consumer(
                common_config(settings) | {"group.id": settings.application_id, "isolation.level": "read_committed"}
            )
        self._nobody = ConsumerGroupMetadata(settings.application_id, -1, "", broker.instance_id)
        self._group = self._nobody._replace(state=MemberState.REBALANCING)
        self._positions: dict[TopicPartition, int] = {}  # of everything assigned
        self._paused: set[TopicPartition] = set()
        self._unplaced: set[TopicPartition] = set()  # those whose position nobody has told yet; all of them paused
        self._stopped: set[TopicPartition] = set()  # those that the library has given up fetching
        self._assigning = False
        self._failure: kafka_errors.KafkaError | None = None
        self._ids: dict[str, Any] = {}
        self._asked: Mapping[str, Future[Any]] | None = None
        self._look_due = 0.0
        self._in_doubt = True

    # ------------------------------------------------------------------ group

    def join(self, topics: Collection[str], listener: Membership) -> None:
        def assigned(_client: Consumer, partitions: list[RdPartition]) -> None:
            self._assign(partitions, listener)

        def revoked(_client: Consumer, partitions: list[RdPartition]) -> None:
            self._group = self._group._replace(state=MemberState.REBALANCING)
            self._take(partitions, listener.on_partitions_revoked)

        def lost(_client: Consumer, partitions: list[RdPartition]) -> None:
            self._group = self._nobody._replace(state=MemberState.REBALANCING)
            self._take(partitions, listener.on_partitions_lost)

        with translated_errors():
            self._client.subscribe(list(topics), on_assign=assigned, on_revoke=revoked, on_lost=lost)

    def _assign(self, partitions: list[RdPartition], listener: Membership) -> None:
        given = [_plain(one) for one in partitions]
        self._positions = dict.fromkeys(given, 0)
        self._assigning = True  # the listener's positions and pauses are part of the assignment
        try:
            listener.on_partitions_assigned(given)
        finally:
            self._assigning = False
        self._unplaced = set(self._paused)
        self._start()
        self._group = self._group._replace(state=MemberState.STABLE)

    def _start(self) -> None:
        """Let the library read what is assigned from the positions known here."""
        self._stopped.clear()
        # its end is there in any partition, its beginning may be gone
        self._client.assign(
            [_rd(one, OFFSET_END if one in self._unplaced else offset) for one, offset in self._positions.items()]
        )
        if self._paused:
            self._client.pause([_rd(one) for one in self._paused])

    def _take(self, partitions: list[RdPartition], tell: Callable[[list[TopicPartition]], None]) -> None:
        self._positions.clear()
        self._paused.clear()
        self._unplaced.clear()
        self._stopped.clear()
        tell([_plain(one) for one in partitions])

    def group_metadata(self) -> ConsumerGroupMetadata:
        # between two assignments the membership of before: with the new one a commit of what is taken away could pass
        if self._group.state == MemberState.STABLE:
            with translated_errors():
                self._group = unpack(self._client.consumer_group_metadata())._replace(state=MemberState.STABLE)
        return self._group

    def request_rejoin(self) -> None:
        """Nothing: librdkafka forgets no rebalance."""

    def assignment(self) -> set[TopicPartition]:
        return set(self._positions)

    # ---------------------------------------------------------------- reading

    def fetch(self, timeout_s: float, max_records: int) -> dict[TopicPartition, RawRecords]:
        self._raise_failure()  # of the last time, when there were records before it
        with translated_errors():
            # A batch is waited for until it is full or its time is over: so wait for the first record alone.
            messages = self._client.consume(1, timeout_s)
            if messages and max_records > 1:
                messages += self._client.consume(max_records - 1, 0)
        batches = in_columns(messages, self._meet)
        for place, batch in batches.items():
            self._positions[place] = max(self._positions.get(place, 0), int(batch.offsets[-1]) + 1)
        if batches:
            self._in_doubt = self._in_doubt or None in self._ids.values()
        else:
            self._raise_failure()
        return batches

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _meet(self, error: KafkaError, message: Message) -> None:
        place = TopicPartition(message.topic(), message.partition())
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
            if place in self._positions:
                self._positions[place] = max(self._positions[place], message.offset() or 0)
            return
        failure = in_our_words(error)
        if isinstance(failure, kafka_errors.OffsetOutOfRangeError):
            self._stopped.add(place)
        if isinstance(failure, (kafka_errors.OffsetOutOfRangeError, kafka_errors.UnknownTopicOrPartitionError)):
            self._in_doubt = True  # the topic may have been made anew
        self._failure = self._failure or failure

    def pause(self, *partitions: TopicPartition) -> None:
        self._paused.update(partitions)
        if not self._assigning:
            with translated_errors():
                self._client.pause([_rd(one) for one in partitions])

    def resume(self, *partitions: TopicPartition) -> None:
        self._paused.difference_update(partitions)
        with translated_errors():
            self._client.resume([_rd(one) for one in partitions])

    def paused(self) -> set[TopicPartition]:
        return set(self._paused)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._positions[partition] = offset
        if self._assigning:
            return
        self._unplaced.discard(partition)
        with translated_errors():
            if partition in self._stopped:  # only an assignment starts it again
                self._start()
            else:
                self._seek(_rd(partition, offset))

    def _seek(self, place: RdPartition) -> None:
        deadline = time.monotonic() + _SEEK_S
        while True:
            try:
                return self._client.seek(place)
            except KafkaException as error:
                starting = error.args[0].code() == KafkaError._STATE  # noqa: SLF001 -- right after an assignment
                if not starting or time.monotonic() > deadline:
                    raise
            time.sleep(0.01)

    def position(self, partition: TopicPartition) -> int:
        return self._positions[partition]

    # ------------------------------------------------------------ looking up

    def committed(self, partition: TopicPartition, *, timeout_ms: int | None = None) -> int | None:
        # The library's Python side reads metadata, which positions have, beyond their end.
        if self._lookup is None:
            self._lookup = connect(
                KafkaConsumer, self._settings, group_id=self._settings.application_id, **consumer_options()
            )
        position: int | None = self._lookup.committed(partition, timeout_ms=timeout_ms)
        return position

    def beginning_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return self._offsets_at(_EARLIEST, partitions, REQUEST_MS)

    def end_offsets(
        self, partitions: Collection[TopicPartition], timeout_ms: int | None = None
    ) -> dict[TopicPartition, int]:
        return self._offsets_at(_LATEST, partitions, timeout_ms or REQUEST_MS)

    def _offsets_at(
        self, moment: int, partitions: Collection[TopicPartition], timeout_ms: int
    ) -> dict[TopicPartition, int]:
        deadline = time.monotonic() + timeout_ms / 1000
        while True:
            try:
                with translated_errors():
                    found = self._asker.offsets_for_times([_rd(one, moment) for one in partitions], timeout_ms / 1000)
                    for one in found:
                        if one.error is not None:
                            raise KafkaException(one.error)
                return {_plain(one): one.offset for one in found}
            except kafka_errors.RetriableError as error:
                self._look_for_leaders({one.topic for one in partitions})
                if not isinstance(error, kafka_errors.InvalidMetadataError) or time.monotonic() > deadline:
                    raise
            time.sleep(_RETRY_S)

    def _look_for_leaders(self, topics: Collection[str]) -> None:
        """The library itself goes on asking a leader that it knew, even one that is dead."""
        with suppress(KafkaException):
            for topic in topics:
                self._asker.list_topics(topic, _ADMIN_S)

    def topic_ids(self, topics: Collection[str]) -> dict[str, Any]:
        # The library itself goes on with a topic that was made anew: so Kafka is asked all the time, without a wait for
        # the answer unless there is a doubt about the records that have just come.
        if self._in_doubt or (self._asked is None and time.monotonic() >= self._look_due):
            self._asked = self._admin.describe_topics(TopicCollection(list(topics)), request_timeout=_ADMIN_S)
            self._look_due = time.monotonic() + _LOOK_S
        if self._asked is not None and (self._in_doubt or all(answer.done() for answer in self._asked.values())):
            for topic, answer in self._asked.items():
                self._ids[topic] = None
                with suppress(KafkaException):  # it is not there now, or Kafka is not
                    self._ids[topic] = str(answer.result().topic_id)
            self._asked, self._in_doubt = None, False
        return dict(self._ids)

    def close(self, *, timeout_ms: int) -> None:
        if self._lookup is not None:
            self._lookup.close(timeout_ms=timeout_ms)
        with translated_errors():
            self._asker.close()
            self._client.close()


def _plain(place: RdPartition) -> TopicPartition:
    return TopicPartition(place.topic, place.partition)


def _rd(place: TopicPartition, offset: int = 0) -> RdPartition:
    return RdPartition(place.topic, place.partition, offset)


def open_consumer(settings: Settings) -> RdConsumer:
    """As ``kafka_consumer.open_consumer``."""
    return RdConsumer(settings)
