"""What Kafka leaves open of transactions that have ended.

A coordinator tells the partitions of a transaction how it ended. A partition without a leader at that moment,
because its only broker is just coming back from a crash, is taken for deleted by Kafka 4 (seen with 4.3.1:
TransactionMarkerChannelManager skips what KRaftMetadataCache.getPartitionLeaderEndpoint does not find), and the
transaction is called complete all the same. In that partition it stays open: readers of committed records get no
further, until the next transaction of the same producer ends there and takes what was left open along, an
aborted write with a committed one. So whoever takes over a transactional id looks for such partitions first,
and ends there what is over.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import structlog
from kafka import KafkaAdminClient, OffsetAndMetadata, TopicPartition
from kafka import errors as kafka_errors
from kafka.structs import ConsumerGroupMetadata

from stream_ad.brokers.kafka_client import connect, errors, once_settled
from stream_ad.brokers.kafka_manifest import Offset  # noqa: TC001 -- msgspec reads the annotation
from stream_ad.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from stream_ad.brokers.kafka_batches import BatchProducer
    from stream_ad.settings import Settings

_LOOK_S = 0.05

log = structlog.get_logger(__name__)


class Note(msgspec.Struct, array_like=True):
    """What a commit says of itself beside the position of its events."""

    state_start: Offset = 0
    """Where reading the state topic may begin."""
    firsts: dict[str, Offset] = {}
    """By output topic: offset of the first record of the last committed transaction that wrote there."""


def note_of(text: str | None) -> Note:
    """The note in an offset's metadata; an empty one where there is none."""
    try:
        return msgspec.json.decode((text or "").rstrip("\0"), type=Note)  # confluent-kafka sends C's end mark along
    except msgspec.MsgspecError:
        return Note()


def nobody(settings: Settings) -> ConsumerGroupMetadata:
    """Of the application's group, but no member of it: Kafka takes its offsets in a transaction unchecked."""
    return ConsumerGroupMetadata(settings.application_id, -1, "", None)


def settle_shard(settings: Settings, producer: BatchProducer, shard: int, topics: Collection[str]) -> Note:
    """End what earlier transactions of a shard's transactional id have left open; returns the last commit's note.

    Committed offsets and their note are written in one record, in the same transaction as the outputs. So what
    is open from an output's offset in the note on, or from before it, was committed; anything later was not.
    Offsets that still wait for their end were part of a transaction of which nothing is visible, and go.

    Args:
        producer: Has just taken over the id.
        shard: Its number.
        topics: Where commits write.
    """
    group, events = settings.application_id, TopicPartition(settings.topics.events, shard)
    outputs = [TopicPartition(topic, shard) for topic in topics]
    timeout_s = settings.broker.transaction_timeout_seconds
    with errors(settings, f"settling shard {shard}"), closing(connect(KafkaAdminClient, settings)) as admin:
        found = once_settled(lambda: admin.list_group_offsets({group: [events]}))[group].get(events)
        note = note_of(found.metadata if found is not None else None)

        def committed(still_open: dict[TopicPartition, int]) -> set[TopicPartition]:
            return {one for one, start in still_open.items() if start <= note.firsts.get(one.topic, -1)}

        _settle(admin, producer, outputs, committed, timeout_s)
        producer.end_open(timeout_s, (), {events: OffsetAndMetadata(0, "", -1)}, nobody(settings), commit=False)
    return note


def settle(
    settings: Settings,
    producer: BatchProducer,
    partitions: Collection[TopicPartition],
    committed: Callable[[dict[TopicPartition, int]], Collection[TopicPartition]],
) -> None:
    """End what earlier transactions of a producer's transactional id have left open.

    Args:
        producer: Has just taken over the id.
        partitions: Where it may have written.
        committed: Of what is open, by the offset where it begins: what is to be committed; the rest is aborted.
    """
    with errors(settings, "settling what was written"), closing(connect(KafkaAdminClient, settings)) as admin:
        _settle(admin, producer, partitions, committed, settings.broker.transaction_timeout_seconds)


def _settle(
    admin: KafkaAdminClient,
    producer: BatchProducer,
    partitions: Collection[TopicPartition],
    committed: Callable[[dict[TopicPartition, int]], Collection[TopicPartition]],
    timeout_s: float,
) -> None:
    deadline = time.monotonic() + timeout_s
    while still_open := _still_open(admin, producer.producer_id, partitions):
        if time.monotonic() > deadline:
            raise BrokerError(
                f"Kafka keeps a transaction open that is over, in {_names(still_open)}.",
                hint="Check that all brokers run; `kafka-transactions.sh find-hanging` shows more.",
            )
        right = committed(still_open)
        for commit in (True, False):
            if some := [one for one in still_open if (one in right) == commit]:
                log.warning(
                    "Kafka had left a transaction open that was over; it is ended now",
                    partitions=_names(some),
                    outcome="committed" if commit else "aborted",
                )
                producer.end_open(timeout_s, some, commit=commit)
        time.sleep(_LOOK_S)


def _still_open(
    admin: KafkaAdminClient, producer_id: int, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, int]:
    """Where a transaction of this producer is open, and from which offset on."""
    try:
        found = once_settled(lambda: admin.describe_producers(partitions))
    except kafka_errors.UnsupportedVersionError:  # before Kafka 3.0: it does not forget to tell, and cannot be asked
        return {}
    return {
        partition: one.current_transaction_start_offset
        for partition, state in found.items()
        for one in state.active_producers
        if one.producer_id == producer_id and one.current_transaction_start_offset >= 0
    }


def _names(partitions: Iterable[TopicPartition]) -> str:
    return ", ".join(f"{one.topic}-{one.partition}" for one in sorted(partitions))
