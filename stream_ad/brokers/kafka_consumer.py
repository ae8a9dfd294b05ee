"""kafka-python's group consumer, with its records as plain tuples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kafka import KafkaConsumer
from kafka.coordinator.assignors.range import RangePartitionAssignor

from stream_ad.brokers.kafka_client import HEARTBEAT_S, connect, once_settled
from stream_ad.brokers.kafka_fetch import fetch_plainly, raw_records, take_up_parked
from stream_ad.brokers.kafka_reading import consumer_options

if TYPE_CHECKING:
    from collections.abc import Collection

    from kafka import TopicPartition

    from stream_ad.brokers.kafka_group import Membership
    from stream_ad.columns import RawRecords
    from stream_ad.settings import Settings


class PlainConsumer(KafkaConsumer):  # type: ignore[misc]
    """See ``kafka_clients.GroupConsumer``."""

    def join(self, topics: Collection[str], listener: Membership) -> None:
        self.subscribe(topics=list(topics), listener=listener)
        once_settled(self.topics)  # a leader that joins before it knows the partitions must join again at once

    def fetch(self, timeout_s: float, max_records: int) -> dict[TopicPartition, RawRecords]:
        take_up_parked(self)
        found = self.poll(timeout_ms=int(timeout_s * 1000), max_records=max_records)
        return {partition: raw_records(partition, records) for partition, records in found.items()}

    def request_rejoin(self) -> None:
        # The client forgets to finish a rebalance that it began because its metadata changed, when the poll that began
        # it is over too soon.
        self._coordinator.request_rejoin()

    def topic_ids(self, topics: Collection[str]) -> dict[str, Any]:
        return {topic: self._cluster.topic_id(topic) for topic in topics}


def open_consumer(settings: Settings) -> PlainConsumer:
    """A consumer of the application's group that has not joined yet.

    Raises:
        BrokerError: Kafka did not answer, or refuses.
    """
    broker = settings.broker
    consumer: PlainConsumer = connect(
        PlainConsumer,
        settings,
        group_id=settings.application_id,
        group_instance_id=broker.instance_id,
        session_timeout_ms=int(broker.session_timeout_seconds * 1000),
        heartbeat_interval_ms=int(min(HEARTBEAT_S, broker.session_timeout_seconds / 3) * 1000),
        max_poll_interval_ms=int(broker.max_poll_interval_seconds * 1000),
        # gives the same partitions of both topics to the same worker
        partition_assignment_strategy=[RangePartitionAssignor],
        **consumer_options(),
    )
    fetch_plainly(consumer)
    return consumer
