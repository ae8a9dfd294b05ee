"""What Kafka says of groups, topics and ends of partitions, asked through librdkafka."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as RdPartition
from confluent_kafka.admin import AdminClient
from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors

from stream_ad.brokers.kafka.connection import REQUEST_MS, connect
from stream_ad.brokers.kafka.librdkafka.config import common_config, translated_errors
from stream_ad.brokers.kafka.partition_reader import consumer_options

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from concurrent.futures import Future

    from stream_ad.settings import Settings

_LATEST, _EARLIEST = -1, -2  # times that ask for the ends of a partition
_RETRY_S = 0.02
_LOOK_S = 0.5  # between looks whether a topic was made anew
_ADMIN_S = 1.0


class MetadataClient:
    """Answers of ``kafka_clients.GroupConsumer`` that have nothing to do with a membership."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lookup: KafkaConsumer | None = None
        with translated_errors():
            self._admin = AdminClient(common_config(settings))
            # Asks for ends of partitions over connections of its own, and joins nothing: on those of the client a
            # question would stand behind a fetch that waits for records.
            self._asker = Consumer(
                common_config(settings) | {"group.id": settings.application_id, "isolation.level": "read_committed"}
            )
        self._ids: dict[str, Any] = {}
        self._asked: Mapping[str, Future[Any]] | None = None
        self._look_due = 0.0
        self._in_doubt = True

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
                    found = self._asker.offsets_for_times([rd(one, moment) for one in partitions], timeout_ms / 1000)
                    for one in found:
                        if one.error is not None:
                            raise KafkaException(one.error)
                        if one.offset < 0:  # nothing was told of it: the question comes back
                            raise kafka_errors.LeaderNotAvailableError(f"{one.topic}-{one.partition}")
                return {plain(one): one.offset for one in found}
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
        """Give the connections back."""
        if self._lookup is not None:
            self._lookup.close(timeout_ms=timeout_ms)
        with translated_errors():
            self._asker.close()


def plain(place: RdPartition) -> TopicPartition:
    """In kafka-python's form."""
    return TopicPartition(place.topic, place.partition)


def rd(place: TopicPartition, offset: int = 0) -> RdPartition:
    """In librdkafka's form."""
    return RdPartition(place.topic, place.partition, offset)
