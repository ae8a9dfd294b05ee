"""What Kafka holds of a shard: its state, how far it was committed, and how far its inputs reach."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from kafka import TopicPartition

from stream_ad.brokers.kafka.connection import REQUEST_MS, retry_while_unavailable
from stream_ad.brokers.kafka.partition_reader import PartitionReader
from stream_ad.brokers.kafka.state_topic import ShardState
from stream_ad.brokers.worker_api import InputOffsets
from stream_ad.errors import StateError

if TYPE_CHECKING:
    from kafka import KafkaConsumer

    from stream_ad.settings import Settings


def _inputs(settings: Settings, shard: int) -> list[TopicPartition]:
    return [TopicPartition(topic, shard) for topic in (settings.topics.events, settings.topics.labels)]


def read_state(settings: Settings, shard: int, start: int = 0, *, history: bool) -> ShardState:
    """What the state topic holds of a shard from an offset on, once no open transaction hides any of it; see
    ``ShardState``.
    """
    with closing(PartitionReader(settings, settings.topics.state, [shard], start=start or None)) as reader:
        records = ((record.key, record.value, record.offset) for record in reader.read_settled())
        return ShardState(settings, shard, records, start=start, history=history)


def group_positions(settings: Settings, consumer: KafkaConsumer, shard: int) -> InputOffsets | None:
    """What the group has committed of both inputs of a shard; None where it has not of both."""
    found = [consumer.committed(partition, timeout_ms=REQUEST_MS) for partition in _inputs(settings, shard)]
    return None if None in found else InputOffsets(*found)


def committed_positions(
    settings: Settings, consumer: KafkaConsumer, shard: int, state: ShardState, ends: InputOffsets
) -> InputOffsets | None:
    """How far a shard has come; None before its first commit.

    With a topic Kafka deletes what groups had committed of it. Where the state has seen more than there is now, a topic
    was made anew; then the shard had come as far as its state says, which is beyond the end.

    Raises:
        StateError: Its state and its positions do not belong together.
    """
    positions = group_positions(settings, consumer, shard)
    name = f"shard {shard} of {settings.application_id}"
    if (
        positions is None
        and (seen := state.seen) is not None
        and (seen.events > ends.events or seen.labels > ends.labels)
    ):
        return seen
    if not state.empty and positions is None:
        raise StateError(
            f"Kafka has forgotten how far {name} had come, but not its state.",
            hint="Groups without a worker are forgotten after offsets.retention.minutes. "
            f"`stream-ad snapshots restore {shard} NUMBER --at oldest` goes on with an older model from the "
            "oldest records kept, with `--at newest` from the newest.",
        )
    if state.empty and positions is not None:
        raise StateError(
            f"The state of {name} is gone from {settings.topics.state}, but not how far it had come.",
            hint=f"`stream-ad snapshots reset {shard}` starts with a new model from there, with `--at oldest` from the "
            "oldest records kept.",
        )
    return positions


def input_bounds(settings: Settings, consumer: KafkaConsumer, shard: int) -> tuple[InputOffsets, InputOffsets]:
    """See ``base.Broker.bounds``."""
    partitions = _inputs(settings, shard)
    oldest = retry_while_unavailable(lambda: consumer.beginning_offsets(partitions))
    ends = retry_while_unavailable(lambda: consumer.end_offsets(partitions))
    return InputOffsets(*(oldest[p] for p in partitions)), InputOffsets(*(ends[p] for p in partitions))
