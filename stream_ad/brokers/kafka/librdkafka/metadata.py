"""Requests through librdkafka for committed offsets, end offsets and topic ids."""

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

_LATEST, _EARLIEST = -1, -2  # special timestamps of a request for offsets
_RETRY_S = 0.02  # between requests while a partition has no leader
_POLL_INTERVAL_S = 0.5  # between checks whether a topic was recreated
_ADMIN_S = 1.0  # for an admin request


class MetadataClient:
    """The methods of ``client_api.GroupConsumer`` that do not depend on a membership."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._committed_client: KafkaConsumer | None = None
        with translated_errors():
            self._admin = AdminClient(common_config(settings))
            # A consumer that joins no group, with connections of its own: on those of the group's consumer, a request
            # for offsets would wait behind a fetch that waits for records.
            self._offset_client = Consumer(
                common_config(settings) | {"group.id": settings.application_id, "isolation.level": "read_committed"}
            )
        self._ids: dict[str, Any] = {}
        self._asked: Mapping[str, Future[Any]] | None = None
        self._check_due = 0.0
        self._in_doubt = True

    def committed(self, partition: TopicPartition, *, timeout_ms: int | None = None) -> int | None:
        """Return the group's committed offset of a partition, asked with kafka-python.

        confluent-kafka reads beyond the end of the metadata that committed offsets carry.
        """
        if self._committed_client is None:
            self._committed_client = connect(
                KafkaConsumer, self._settings, group_id=self._settings.application_id, **consumer_options()
            )
        position: int | None = self._committed_client.committed(partition, timeout_ms=timeout_ms)
        return position

    def beginning_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the oldest offsets kept, by partition."""
        return self._offsets_at(_EARLIEST, partitions, REQUEST_MS)

    def end_offsets(
        self, partitions: Collection[TopicPartition], timeout_ms: int | None = None
    ) -> dict[TopicPartition, int]:
        """Return the last stable offsets, by partition."""
        return self._offsets_at(_LATEST, partitions, timeout_ms or REQUEST_MS)

    def _offsets_at(
        self, moment: int, partitions: Collection[TopicPartition], timeout_ms: int
    ) -> dict[TopicPartition, int]:
        deadline = time.monotonic() + timeout_ms / 1000
        while True:
            try:
                with translated_errors():
                    request = [to_librdkafka(partition, moment) for partition in partitions]
                    answers = self._offset_client.offsets_for_times(request, timeout_ms / 1000)
                    for answer in answers:
                        if answer.error is not None:
                            raise KafkaException(answer.error)
                        if answer.offset < 0:  # no answer for this partition: the request comes back unchanged
                            raise kafka_errors.LeaderNotAvailableError(f"{answer.topic}-{answer.partition}")
                return {to_kafka_python(answer): answer.offset for answer in answers}
            except kafka_errors.RetriableError as error:
                self._refresh_leaders({partition.topic for partition in partitions})
                if not isinstance(error, kafka_errors.InvalidMetadataError) or time.monotonic() > deadline:
                    raise
            time.sleep(_RETRY_S)

    def _refresh_leaders(self, topics: Collection[str]) -> None:
        """Refresh the library's metadata: by itself it keeps asking the leader that it knows, even a dead one."""
        with suppress(KafkaException):
            for topic in topics:
                self._offset_client.list_topics(topic, _ADMIN_S)

    def topic_ids(self, topics: Collection[str]) -> dict[str, Any]:
        """Return the ids of topics; None where the topic or Kafka is unavailable.

        The library continues with a recreated topic without an error. So Kafka is asked every half second; the answer
        is awaited only where the records just fetched may come from a recreated topic (``_in_doubt``).
        """
        if self._in_doubt or (self._asked is None and time.monotonic() >= self._check_due):
            self._asked = self._admin.describe_topics(TopicCollection(list(topics)), request_timeout=_ADMIN_S)
            self._check_due = time.monotonic() + _POLL_INTERVAL_S
        if self._asked is not None and (self._in_doubt or all(answer.done() for answer in self._asked.values())):
            for topic, answer in self._asked.items():
                self._ids[topic] = None
                with suppress(KafkaException):  # the topic or Kafka is unavailable
                    self._ids[topic] = str(answer.result().topic_id)
            self._asked, self._in_doubt = None, False
        return dict(self._ids)

    def close(self, *, timeout_ms: int) -> None:
        """Close the connections."""
        if self._committed_client is not None:
            self._committed_client.close(timeout_ms=timeout_ms)
        with translated_errors():
            self._offset_client.close()


def to_kafka_python(partition: RdPartition) -> TopicPartition:
    """Return a partition as kafka-python's type."""
    return TopicPartition(partition.topic, partition.partition)


def to_librdkafka(partition: TopicPartition, offset: int = 0) -> RdPartition:
    """Return a partition as librdkafka's type, with an offset."""
    return RdPartition(partition.topic, partition.partition, offset)
