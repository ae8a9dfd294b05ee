"""kafka-python's group consumer, whose records are plain tuples."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from kafka import errors as kafka_errors

from stream_ad.brokers.kafka.connection import connect, retry_while_unavailable
from stream_ad.brokers.kafka.kafka_python.fetcher import (
    has_fetched_ahead,
    install_batch_reader,
    requeue_resumed_partitions,
)
from stream_ad.brokers.kafka.kafka_python.record_batch import prepare
from stream_ad.brokers.kafka.partition_reader import (
    CommittedConsumer,
    consumer_options,
    group_options,
    open_offset_client,
    raw_records,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from kafka import TopicPartition

    from stream_ad.brokers.kafka.membership import Membership
    from stream_ad.records.columns import RawRecords
    from stream_ad.settings import Settings

FEW = 1_000  # records of a short step, which may wait for those that came meanwhile
LATEST_MS = 8  # longer than a round trip to a nearby broker


class KafkaPythonConsumer(CommittedConsumer):
    """See ``client_api.GroupConsumer``."""

    settings: Settings

    def join(self, topics: Collection[str], listener: Membership) -> None:
        """See ``GroupConsumer.join``."""
        self.subscribe(topics=list(topics), listener=listener)
        # Fetch metadata first: a group leader that joins before it knows the partitions must join again at once.
        retry_while_unavailable(self.topics)

    def fetch(self, timeout_s: float, max_records: int) -> dict[TopicPartition, RawRecords]:
        """See ``GroupConsumer.fetch``."""
        requeue_resumed_partitions(self)
        ahead = has_fetched_ahead(self)
        batches = self.poll(timeout_ms=max(int(timeout_s * 1000), LATEST_MS), max_records=max_records)
        count = sum(map(len, batches.values()))
        if ahead and 0 < count < min(FEW, max_records):
            self._add_latest(batches, max_records - count)
        return {partition: raw_records(partition, records) for partition, records in batches.items()}

    def _add_latest(self, batches: dict[TopicPartition, list[Any]], most: int) -> None:
        """Add records that came since the batches were fetched, which was when the last poll ended.

        Otherwise a stream that is read as it arrives would always be one step behind.
        """
        with suppress(kafka_errors.KafkaError):  # the next fetch raises it again
            for partition, records in self._fetcher.fetch_records(most, timeout_ms=LATEST_MS)[0].items():
                batches.setdefault(partition, []).extend(records)

    def open_offset_client(self) -> CommittedConsumer:
        """See ``GroupConsumer.open_offset_client``."""
        return open_offset_client(self.settings)

    def may_have_fenced_itself(self) -> bool:
        """See ``GroupConsumer.may_have_fenced_itself``."""
        return False

    def request_rejoin(self) -> None:
        """Make the client complete a rebalance.

        It does not complete one that it began because of changed metadata when the poll that began it ended too early.
        """
        self._coordinator.request_rejoin()

    def topic_ids(self, topics: Collection[str]) -> dict[str, Any]:
        """See ``GroupConsumer.topic_ids``."""
        return {topic: self._cluster.topic_id(topic) for topic in topics}


def open_consumer(settings: Settings) -> KafkaPythonConsumer:
    """Open a consumer of the application's group that has not joined yet.

    Raises:
        BrokerError: Kafka did not answer, or refuses.
    """
    prepare()
    consumer: KafkaPythonConsumer = connect(
        KafkaPythonConsumer, settings, **group_options(settings), **consumer_options()
    )
    consumer.settings = settings
    install_batch_reader(consumer)
    return consumer
