"""What Kafka leaves open of transactions that have ended.

A coordinator tells the partitions of a transaction how it ended. A partition without a leader at that moment,
because its only broker is just coming back from a crash, is taken for deleted by Kafka 4 (seen with 4.3.1:
TransactionMarkerChannelManager skips what KRaftMetadataCache.getPartitionLeaderEndpoint does not find), and the
transaction is called complete all the same. In that partition it stays open: readers of committed records get no
further, until the next transaction of the same producer ends there and takes what was left open along, an
aborted write with a committed one. So whoever takes over a transactional id looks for such partitions first,
and ends there what is over.

How it ended is told by the partitions that heard of it. Of a shard's commit these are the group's offsets, with a
note, and the outputs, in each of which one record bears the commit's mark. One of them is enough.
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

    from stream_ad.brokers.kafka.client_api import SettlingProducer
    from stream_ad.records.columns import OutRecord
    from stream_ad.settings import Settings

MARK_HEADER = "stream_ad.commit"
_LOOK_S = 0.05

log = structlog.get_logger(__name__)


class CommitMetadata(msgspec.Struct, array_like=True):
    """What a commit says of itself beside the position of its events."""

    state_start: Offset = 0
    """Where reading the state topic may begin."""
    last_offsets: dict[str, Offset] = {}
    """By output topic: an offset before which, or at which, every transaction of the shard was over with this commit,
    and its own records there stand."""


def note_of(text: str | None) -> CommitMetadata:
    """The note in an offset's metadata; an empty one where there is none."""
    try:
        return msgspec.json.decode(
            (text or "").rstrip("\0"), type=CommitMetadata
        )  # confluent-kafka sends C's end mark along
    except msgspec.MsgspecError:
        return CommitMetadata()


def standalone_group_metadata(settings: Settings) -> ConsumerGroupMetadata:
    """Of the application's group, but no member of it: Kafka takes its offsets in a transaction unchecked."""
    return ConsumerGroupMetadata(settings.application_id, -1, "", None)


class CommitMarker(msgspec.Struct, array_like=True):
    """What a commit leaves in each topic that it writes to."""

    application: str
    events: Offset
    labels: Offset


def marked(records: Sequence[OutRecord], application: str, positions: InputOffsets) -> Sequence[OutRecord]:
    """The records of a commit for one topic, of which the last tells how far the commit comes."""
    if not records:
        return records
    mark = msgspec.json.encode(CommitMarker(application, positions.events, positions.labels))
    records, last = list(records), records[-1]
    records[-1] = last._replace(headers=(*last.headers, (MARK_HEADER, mark)))
    return records


def settle_shard(settings: Settings, producer: SettlingProducer, shard: int, topics: Collection[str]) -> CommitMetadata:
    """End what earlier transactions of a shard's transactional id have left open; returns the last commit's note.

    What is open from an offset in the note on, or from before it, was committed, as the note was. Of anything later
    readers have seen nothing, and it is aborted, offsets that wait for their end included; unless a later mark is there
    to be read. Then its commit came about, and is completed.

    Args:
        producer: Has just taken over the id.
        shard: Its number.
        topics: Where commits write.
    """
    group = settings.application_id
    events = TopicPartition(settings.topics.events, shard)
    outputs = [TopicPartition(topic, shard) for topic in topics]
    timeout_s = settings.broker.transaction_timeout_seconds
    with errors(settings, f"settling shard {shard}"), closing(connect(KafkaAdminClient, settings)) as admin:
        found = retry_while_unavailable(lambda: admin.list_group_offsets({group: [events]}))[group].get(events)
        known = found is not None and found.offset >= 0
        note = note_of(found.metadata if known else None)
        later = _seen_after(settings, admin, note, outputs) if known else None

        def committed(still_open: dict[TopicPartition, int]) -> set[TopicPartition]:
            return {one for one, start in still_open.items() if later or start <= note.last_offsets.get(one.topic, -1)}

        _settle(admin, producer, outputs, committed, timeout_s)
        ends = _offsets(admin, outputs, OffsetSpec.LATEST)
        last_offsets = {one.topic: max(end - 1, note.last_offsets.get(one.topic, -1)) for one, end in ends.items()}
        note = CommitMetadata(note.state_start, {topic: last for topic, last in last_offsets.items() if last >= 0})
        offsets = {events: OffsetAndMetadata(0, "", -1)}
        if later is not None:
            log.warning("Kafka had kept what a commit published, but not how far it came; it is completed", shard=shard)
            offsets = commit_offsets(settings, shard, later, note)
        producer.end_open(timeout_s, (), offsets, standalone_group_metadata(settings), commit=later is not None)
    return note


def commit_offsets(
    settings: Settings, shard: int, positions: InputOffsets, note: CommitMetadata
) -> dict[TopicPartition, OffsetAndMetadata]:
    """What a commit says of a shard's inputs, and of itself beside them."""
    text = msgspec.json.encode(note).decode()
    return {
        TopicPartition(settings.topics.events, shard): OffsetAndMetadata(positions.events, text, -1),
        TopicPartition(settings.topics.labels, shard): OffsetAndMetadata(positions.labels, "", -1),
    }


def _offsets(
    admin: KafkaAdminClient, partitions: Collection[TopicPartition], which: OffsetSpec
) -> dict[TopicPartition, int]:
    """Of what readers of committed records get."""
    asked = dict.fromkeys(partitions, which)
    found = retry_while_unavailable(lambda: admin.list_partition_offsets(asked, IsolationLevel.READ_COMMITTED))
    return {partition: int(one.offset) for partition, one in found.items()}


def _seen_after(
    settings: Settings, admin: KafkaAdminClient, note: CommitMetadata, outputs: Collection[TopicPartition]
) -> InputOffsets | None:
    """How far a commit came that the note knows nothing of, but of which readers may have seen something."""
    seen: list[InputOffsets] = []
    ends = _offsets(admin, outputs, OffsetSpec.LATEST)
    starts = {one: note.last_offsets.get(one.topic, -1) + 1 for one in outputs}
    # at the start itself the end of the noted transaction may stand
    grown = {one: start for one, start in starts.items() if ends[one] > start + 1}
    oldest = _offsets(admin, grown, OffsetSpec.EARLIEST) if grown else {}
    for one, start in grown.items():
        with closing(PartitionReader(settings, one.topic, [one.partition], start=max(start, oldest[one]))) as reader:
            for record in reader.read():
                mark = _mark_of(record.headers)
                if mark is not None and mark.application == settings.application_id:
                    seen.append(InputOffsets(mark.events, mark.labels))
    return max(seen, default=None)


def _mark_of(headers: Iterable[tuple[str, bytes]]) -> CommitMarker | None:
    try:
        return next(
            (msgspec.json.decode(value, type=CommitMarker) for name, value in headers if name == MARK_HEADER), None
        )
    except msgspec.MsgspecError:  # it is not one of ours
        return None


def settle(
    settings: Settings,
    producer: SettlingProducer,
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
    producer: SettlingProducer,
    partitions: Collection[TopicPartition],
    committed: Callable[[dict[TopicPartition, int]], Collection[TopicPartition]],
    timeout_s: float,
) -> None:
    deadline = time.monotonic() + timeout_s
    while still_open := _still_open(admin, producer.producer_id, partitions):
        if time.monotonic() > deadline:
            raise BrokerError(
                f"Kafka keeps a transaction open that is over, in {names(still_open)}.",
                hint="Check that all brokers run; `kafka-transactions.sh find-hanging` shows more.",
            )
        right = committed(still_open)
        for commit in (True, False):
            if some := [one for one in still_open if (one in right) == commit]:
                log.warning(
                    "Kafka had left a transaction open that was over; it is ended now",
                    partitions=names(some),
                    outcome="committed" if commit else "aborted",
                )
                producer.end_open(timeout_s, some, commit=commit)
        time.sleep(_LOOK_S)


def _still_open(
    admin: KafkaAdminClient, producer_id: int, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, int]:
    """Where a transaction of this producer is open, and from which offset on."""
    return {place: starts[producer_id] for place, starts in open_in(admin, partitions).items() if producer_id in starts}


def open_in(admin: KafkaAdminClient, partitions: Collection[TopicPartition]) -> dict[TopicPartition, dict[int, int]]:
    """Where transactions are open, by producer the offset from which on; partitions without any are left out."""
    try:
        found = retry_while_unavailable(lambda: admin.describe_producers(partitions))
    except kafka_errors.UnsupportedVersionError:  # before Kafka 3.0: it does not forget to tell, and cannot be asked
        return {}
    starts = {
        partition: {
            one.producer_id: int(one.current_transaction_start_offset)
            for one in state.active_producers
            if one.current_transaction_start_offset >= 0
        }
        for partition, state in found.items()
    }
    return {partition: by_producer for partition, by_producer in starts.items() if by_producer}


def names(partitions: Iterable[TopicPartition]) -> str:
    return ", ".join(f"{one.topic}-{one.partition}" for one in sorted(partitions))
