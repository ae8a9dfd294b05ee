"""Hanging transactions: transactions that have ended but that Kafka leaves open in some of their partitions.

How they arise (seen with Kafka 4.3.1: TransactionMarkerChannelManager skips the partitions that
KRaftMetadataCache.getPartitionLeaderEndpoint does not find):

1. The coordinator of a transaction sends its partitions a marker that says how the transaction ended.
2. A partition without a leader at that moment, because its only broker is just restarting after a crash, is taken for
   deleted. It gets no marker, and the transaction is declared complete.
3. In that partition the transaction stays open: readers of committed records do not advance beyond its start.
4. The next transaction of the same producer that ends there also ends what was left open: an aborted write may thus be
   committed with it.

Whoever takes over a transactional id resolves them (``resolve_shard_transactions``):

1. Read the metadata of the group's committed events offset (``CommitMetadata``): up to which offset of each output
   topic all transactions of the shard had ended with the last recorded commit.
2. Look in the output topics, beyond those offsets, for the marker of a newer commit that readers can already see
   (``CommitMarker``, in the header of the last record that a commit writes to a topic). Such a commit took place,
   although its offsets are still hidden.
3. Find the partitions where a transaction of this producer is still open.
4. Commit there what belongs to the recorded commit (it starts at or before the recorded offset) or to the newer commit
   of step 2. Abort the rest: readers have seen nothing of it.
5. Repeat steps 3 and 4 until nothing is open.
6. End what is open of the offsets: commit the offsets of the newer commit, or abort what is pending.

One partition that received the marker suffices to know the outcome: the group's offsets with their metadata, or any
output topic with the marker of the commit.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import structlog
from kafka import IsolationLevel, KafkaAdminClient, OffsetAndMetadata, OffsetSpec, TopicPartition
from kafka import errors as kafka_errors
from kafka.structs import ConsumerGroupMetadata

from stream_ad.brokers.kafka.connection import connect, errors, retry_while_unavailable
from stream_ad.brokers.kafka.partition_reader import PartitionReader
from stream_ad.brokers.kafka.snapshot_manifest import Offset  # noqa: TC001 -- msgspec reads the annotation
from stream_ad.brokers.worker_api import InputOffsets
from stream_ad.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from stream_ad.brokers.kafka.client_api import ResolvingProducer
    from stream_ad.records.columns import OutRecord
    from stream_ad.settings import Settings

MARK_HEADER = "stream_ad.commit"
"""Name of the record header that carries the ``CommitMarker``."""
_POLL_INTERVAL_S = 0.05  # between checks whether a transaction is still open

log = structlog.get_logger(__name__)


class CommitMetadata(msgspec.Struct, array_like=True):
    """Metadata stored with the committed events offset."""

    state_start: Offset = 0
    """Offset of the state topic where a load may begin to read."""
    last_offsets: dict[str, Offset] = {}
    """By output topic: the offset up to which, inclusive, every transaction of the shard had ended with this commit;
    its own records are at or before it."""


def parse_commit_metadata(text: str | None) -> CommitMetadata:
    """Decode the metadata of a committed offset; return an empty CommitMetadata where it is none."""
    try:
        # confluent-kafka sends the terminating zero of a C string, too
        return msgspec.json.decode((text or "").rstrip("\0"), type=CommitMetadata)
    except msgspec.MsgspecError:
        return CommitMetadata()


def standalone_group_metadata(settings: Settings) -> ConsumerGroupMetadata:
    """Return group metadata without a member: Kafka accepts its offsets in a transaction without validation."""
    return ConsumerGroupMetadata(settings.application_id, -1, "", None)


class CommitMarker(msgspec.Struct, array_like=True):
    """The marker that a commit leaves in each topic that it writes to."""

    application: str
    events: Offset
    labels: Offset


def with_commit_marker(records: Sequence[OutRecord], application: str, positions: InputOffsets) -> Sequence[OutRecord]:
    """Return a commit's records for one topic, with the commit's offsets in a header of the last record.

    Args:
        records: In the order in which they are written.
        application: The application's id.
        positions: The offsets of the commit.
    """
    if not records:
        return records
    marker = msgspec.json.encode(CommitMarker(application, positions.events, positions.labels))
    records, last = list(records), records[-1]
    records[-1] = last._replace(headers=(*last.headers, (MARK_HEADER, marker)))
    return records


def resolve_shard_transactions(
    settings: Settings, producer: ResolvingProducer, shard: int, topics: Collection[str]
) -> CommitMetadata:
    """End what earlier transactions of a shard's transactional id have left open; see the steps above.

    Args:
        settings: Of the application.
        producer: Has just taken over the transactional id.
        shard: The shard's number.
        topics: The topics that commits write to.

    Returns:
        The metadata of the last commit, with last offsets that include everything that was ended.

    Raises:
        BrokerError: A transaction stays open, or Kafka did not answer.
    """
    group = settings.application_id
    events = TopicPartition(settings.topics.events, shard)
    outputs = [TopicPartition(topic, shard) for topic in topics]
    timeout_s = settings.broker.transaction_timeout_seconds
    with (
        errors(settings, f"ending open transactions of shard {shard}"),
        closing(connect(KafkaAdminClient, settings)) as admin,
    ):
        offset = retry_while_unavailable(lambda: admin.list_group_offsets({group: [events]}))[group].get(events)
        has_committed = offset is not None and offset.offset >= 0
        metadata = parse_commit_metadata(offset.metadata if has_committed else None)
        newer = _newer_commit(settings, admin, metadata, outputs) if has_committed else None

        def committed(still_open: dict[TopicPartition, int]) -> set[TopicPartition]:
            last_offsets = metadata.last_offsets
            return {p for p, start in still_open.items() if newer or start <= last_offsets.get(p.topic, -1)}

        _end_open_transactions(admin, producer, outputs, committed, timeout_s)
        ends = _offsets(admin, outputs, OffsetSpec.LATEST)
        last_offsets = {p.topic: max(end - 1, metadata.last_offsets.get(p.topic, -1)) for p, end in ends.items()}
        known_offsets = {topic: last for topic, last in last_offsets.items() if last >= 0}
        metadata = CommitMetadata(metadata.state_start, known_offsets)
        offsets = {events: OffsetAndMetadata(0, "", -1)}
        if newer is not None:
            log.warning(
                "Kafka had kept the outputs of a commit, but not its offsets; the commit is completed", shard=shard
            )
            offsets = commit_offsets(settings, shard, newer, metadata)
        group_metadata = standalone_group_metadata(settings)
        producer.end_open_transactions(timeout_s, (), offsets, group_metadata, commit=newer is not None)
    return metadata


def commit_offsets(
    settings: Settings, shard: int, positions: InputOffsets, metadata: CommitMetadata
) -> dict[TopicPartition, OffsetAndMetadata]:
    """Return the offsets that a commit sends for a shard's inputs, with its metadata at the events offset."""
    text = msgspec.json.encode(metadata).decode()
    return {
        TopicPartition(settings.topics.events, shard): OffsetAndMetadata(positions.events, text, -1),
        TopicPartition(settings.topics.labels, shard): OffsetAndMetadata(positions.labels, "", -1),
    }


def _offsets(
    admin: KafkaAdminClient, partitions: Collection[TopicPartition], which: OffsetSpec
) -> dict[TopicPartition, int]:
    """Return offsets as readers of committed records see them."""
    specs = dict.fromkeys(partitions, which)
    offsets = retry_while_unavailable(lambda: admin.list_partition_offsets(specs, IsolationLevel.READ_COMMITTED))
    return {partition: int(listed.offset) for partition, listed in offsets.items()}


def _newer_commit(
    settings: Settings, admin: KafkaAdminClient, metadata: CommitMetadata, outputs: Collection[TopicPartition]
) -> InputOffsets | None:
    """Return the offsets of a commit that readers can see but the metadata does not record; None without one."""
    seen: list[InputOffsets] = []
    ends = _offsets(admin, outputs, OffsetSpec.LATEST)
    starts = {output: metadata.last_offsets.get(output.topic, -1) + 1 for output in outputs}
    # the start itself may be the end marker of the recorded transaction
    grown = {output: start for output, start in starts.items() if ends[output] > start + 1}
    oldest = _offsets(admin, grown, OffsetSpec.EARLIEST) if grown else {}
    for output, start in grown.items():
        first = max(start, oldest[output])
        with closing(PartitionReader(settings, output.topic, [output.partition], start=first)) as reader:
            for record in reader.read():
                marker = _marker_of(record.headers)
                if marker is not None and marker.application == settings.application_id:
                    seen.append(InputOffsets(marker.events, marker.labels))
    return max(seen, default=None)


def _marker_of(headers: Iterable[tuple[str, bytes]]) -> CommitMarker | None:
    try:
        return next(
            (msgspec.json.decode(value, type=CommitMarker) for name, value in headers if name == MARK_HEADER), None
        )
    except msgspec.MsgspecError:  # not a header that this program wrote
        return None


def resolve_hanging_transactions(
    settings: Settings,
    producer: ResolvingProducer,
    partitions: Collection[TopicPartition],
    committed: Callable[[dict[TopicPartition, int]], Collection[TopicPartition]],
) -> None:
    """End what earlier transactions of a producer's transactional id have left open.

    Args:
        settings: Of the application.
        producer: Has just taken over the transactional id.
        partitions: The partitions that it may have written to.
        committed: Given the start offset of the open transaction by partition, returns the partitions where it must be
            committed; elsewhere it is aborted.

    Raises:
        BrokerError: A transaction stays open, or Kafka did not answer.
    """
    with errors(settings, "ending open transactions"), closing(connect(KafkaAdminClient, settings)) as admin:
        _end_open_transactions(admin, producer, partitions, committed, settings.broker.transaction_timeout_seconds)


def _end_open_transactions(
    admin: KafkaAdminClient,
    producer: ResolvingProducer,
    partitions: Collection[TopicPartition],
    committed: Callable[[dict[TopicPartition, int]], Collection[TopicPartition]],
    timeout_s: float,
) -> None:
    deadline = time.monotonic() + timeout_s
    while still_open := _still_open(admin, producer.producer_id, partitions):
        if time.monotonic() > deadline:
            raise BrokerError(
                f"Kafka keeps a transaction open that has ended, in {partition_names(still_open)}.",
                hint="Check that all brokers run; `kafka-transactions.sh find-hanging` shows more.",
            )
        to_commit = committed(still_open)
        for commit in (True, False):
            if partitions_to_end := [partition for partition in still_open if (partition in to_commit) == commit]:
                log.warning(
                    "Kafka had left a transaction open that had ended; it is ended now",
                    partitions=partition_names(partitions_to_end),
                    outcome="committed" if commit else "aborted",
                )
                producer.end_open_transactions(timeout_s, partitions_to_end, commit=commit)
        time.sleep(_POLL_INTERVAL_S)


def _still_open(
    admin: KafkaAdminClient, producer_id: int, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, int]:
    """Return the partitions where a transaction of this producer is open, with its start offset."""
    by_partition = open_transactions(admin, partitions)
    return {partition: starts[producer_id] for partition, starts in by_partition.items() if producer_id in starts}


def open_transactions(
    admin: KafkaAdminClient, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, dict[int, int]]:
    """Return the start offsets of open transactions by producer id, by partition; partitions without any are left out.

    Empty before Kafka 3.0, which cannot be asked, and does not leave transactions open.
    """
    try:
        states = retry_while_unavailable(lambda: admin.describe_producers(partitions))
    except kafka_errors.UnsupportedVersionError:
        return {}
    starts = {
        partition: {
            active.producer_id: int(active.current_transaction_start_offset)
            for active in state.active_producers
            if active.current_transaction_start_offset >= 0
        }
        for partition, state in states.items()
    }
    return {partition: by_producer for partition, by_producer in starts.items() if by_producer}


def partition_names(partitions: Iterable[TopicPartition]) -> str:
    """Return a list of partitions as text, for messages."""
    return ", ".join(f"{partition.topic}-{partition.partition}" for partition in sorted(partitions))
