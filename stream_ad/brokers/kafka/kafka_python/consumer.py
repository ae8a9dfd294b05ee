"""kafka-python's group consumer, with its records as plain tuples."""

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
    open_asker,
    raw_records,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from kafka import TopicPartition

    from stream_ad.brokers.kafka.membership import Membership
    from stream_ad.records.columns import RawRecords
    from stream_ad.settings import Settings

FEW = 1_000  # records that are a short step: it can wait for what came meanwhile
LATEST_MS = 8  # more than a round trip to a broker nearby


class KafkaPythonConsumer(CommittedConsumer):
    """See ``kafka_clients.GroupConsumer``."""

    settings: Settings

    def join(self, topics: Collection[str], listener: Membership) -> None:
        self.subscribe(topics=list(topics), listener=listener)
        retry_while_unavailable(
            self.topics
        )  # a leader that joins before it knows the partitions must join again at once

    def fetch(self, timeout_s: float, max_records: int) -> dict[TopicPartition, RawRecords]:
        requeue_resumed_partitions(self)
        ahead = has_fetched_ahead(self)
        found = self.poll(timeout_ms=max(int(timeout_s * 1000), LATEST_MS), max_records=max_records)
        count = sum(map(len, found.values()))
        if ahead and 0 < count < min(FEW, max_records):
            self._add_latest(found, max_records - count)
        return {partition: raw_records(partition, records) for partition, records in found.items()}

    def _add_latest(self, found: dict[TopicPartition, list[Any]], most: int) -> None:
        """Add what has come since those records were fetched, which was when the last poll ended: a stream that is
        read as it comes would be a step behind for ever.
        """
        with suppress(kafka_errors.KafkaError):  # the next fetch meets it again
            for partition, records in self._fetcher.fetch_records(most, timeout_ms=LATEST_MS)[0].items():
                found.setdefault(partition, []).extend(records)

    def open_asker(self) -> CommittedConsumer:
        return open_asker(self.settings)

    def may_meet_itself(self) -> bool:
        return False

    def request_rejoin(self) -> None:
        # The client forgets to finish a rebalance that it began because its metadata changed, when the poll that began
        # it is over too soon.
        self._coordinator.request_rejoin()

    def topic_ids(self, topics: Collection[str]) -> dict[str, Any]:
        return {topic: self._cluster.topic_id(topic) for topic in topics}


def open_consumer(settings: Settings) -> KafkaPythonConsumer:
    """A consumer of the application's group that has not joined yet.

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
