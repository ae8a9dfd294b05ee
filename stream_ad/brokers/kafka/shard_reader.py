"""Reading what Kafka holds of a shard: its state, its committed offsets, and the bounds of its inputs."""

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
    """Read a shard's partition of the state topic, once no open transaction hides any of it.

    Args:
        settings: Of the application.
        shard: The shard's number.
        start: Offset to begin with; 0 for the oldest record kept.
        history: See ``ShardState``.

    Raises:
        StateError: The journal cannot be read.
    """
    with closing(PartitionReader(settings, settings.topics.state, [shard], start=start or None)) as reader:
        records = ((record.key, record.value, record.offset) for record in reader.read_until_stable())
        return ShardState(settings, shard, records, start=start, history=history)


def group_positions(settings: Settings, consumer: KafkaConsumer, shard: int) -> InputOffsets | None:
    """Return the group's committed offsets of a shard; None unless it has committed both inputs."""
    offsets = [consumer.committed(partition, timeout_ms=REQUEST_MS) for partition in _inputs(settings, shard)]
    return None if None in offsets else InputOffsets(*offsets)


def committed_positions(
    settings: Settings, consumer: KafkaConsumer, shard: int, state: ShardState, ends: InputOffsets
) -> InputOffsets | None:
    """Return the committed offsets of a shard; None before its first commit.

    When a topic is deleted, Kafka deletes the group's offsets of it. Where the state has seen more than the topic now
    holds, a topic was recreated: then the offsets are those of the state, which lie beyond the end.

    Raises:
        StateError: The state exists without committed offsets, or the offsets without state.
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
            f"Kafka has the state of {name}, but no longer its committed offsets.",
            hint="Kafka forgets the offsets of a group without members after offsets.retention.minutes. "
            f"`stream-ad snapshots restore {shard} NUMBER --at oldest` goes on with an older model from the "
            "oldest records kept, with `--at newest` from the newest.",
        )
    if state.empty and positions is not None:
        raise StateError(
            f"The state of {name} is gone from {settings.topics.state}, but its committed offsets are still there.",
            hint=f"`stream-ad snapshots reset {shard}` starts with a new model from there, with `--at oldest` from the "
            "oldest records kept.",
        )
    return positions


def input_bounds(settings: Settings, consumer: KafkaConsumer, shard: int) -> tuple[InputOffsets, InputOffsets]:
    """Return the oldest offsets kept and the next offsets to be written; see ``worker_api.Broker.bounds``."""
    partitions = _inputs(settings, shard)
    oldest = retry_while_unavailable(lambda: consumer.beginning_offsets(partitions))
    ends = retry_while_unavailable(lambda: consumer.end_offsets(partitions))
    return InputOffsets(*(oldest[p] for p in partitions)), InputOffsets(*(ends[p] for p in partitions))
