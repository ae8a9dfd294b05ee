"""Conversion of librdkafka's messages to columns.

Each accessor is mapped over all messages at once, which takes half the time of a loop over messages.
"""

from __future__ import annotations

from itertools import repeat
from operator import is_not
from typing import TYPE_CHECKING, Any

import numpy as np
from confluent_kafka import Message
from kafka import TopicPartition

from stream_ad.records.columns import RawRecords

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import KafkaError


def to_columns(
    messages: list[Message], on_error: Callable[[KafkaError, Message], None]
) -> dict[TopicPartition, RawRecords]:
    """Return the records by partition, after calling ``on_error`` for each message that carries an error."""
    errors: list[KafkaError | None] = list(map(Message.error, messages))
    if any(map(is_not, errors, repeat(None))):
        for error, message in zip(errors, messages, strict=True):
            if error is not None:
                on_error(error, message)
        messages = [message for error, message in zip(errors, messages, strict=True) if error is None]
    by_partition: dict[tuple[Any, Any], list[Message]] = {}  # by topic and partition, which every record has
    for topic, partition, message in zip(
        map(Message.topic, messages), map(Message.partition, messages), messages, strict=True
    ):
        if (batch := by_partition.get((topic, partition))) is None:
            by_partition[topic, partition] = [message]
        else:
            batch.append(message)
    return {TopicPartition(*key): _columns(*key, batch) for key, batch in by_partition.items()}


def _columns(topic: str, partition: int, messages: list[Message]) -> RawRecords:
    count = len(messages)
    return RawRecords(
        topic,
        partition,
        np.fromiter(map(Message.offset, messages), np.int64, count),
        np.fromiter((time_ms for _, time_ms in map(Message.timestamp, messages)), np.int64, count),
        list(map(Message.key, messages)),
        list(map(Message.value, messages)),
    )
