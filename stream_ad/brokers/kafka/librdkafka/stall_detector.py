"""A watchdog for partitions that librdkafka has stopped delivering: a safety net beneath ``assignment``."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from kafka import errors as kafka_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from kafka import TopicPartition

    AskEnds = Callable[[Collection[TopicPartition], int], dict[TopicPartition, int]]

STALL_S = 10.0  # without a record of a partition, after which Kafka is asked whether there are more
_ASK_MS = 1_000  # for the answer


class StallDetector:
    """Times at which each partition last delivered records, was positioned or resumed, or was checked.

    Args:
        ask_ends: Asks Kafka for the end offsets of partitions, within some milliseconds.
    """

    def __init__(self, ask_ends: AskEnds) -> None:
        self._ask_ends = ask_ends
        self._touched_at: dict[TopicPartition, float] = {}

    def touch(self, partitions: Collection[TopicPartition]) -> None:
        """Note that partitions have delivered records now, or could not do so before."""
        self._touched_at |= dict.fromkeys(partitions, time.monotonic())

    def stalled(
        self, positions: Mapping[TopicPartition, int], unread: Collection[TopicPartition]
    ) -> dict[TopicPartition, int]:
        """Return the positions of partitions that delivered nothing for ``STALL_S`` seconds before their end.

        Args:
            positions: The next offset of each partition.
            unread: Partitions that are paused.
        """
        now = time.monotonic()
        silent = [
            partition
            for partition in positions
            if partition not in unread and now - self._touched_at.setdefault(partition, now) > STALL_S
        ]
        self.touch(silent)
        if silent:
            with suppress(kafka_errors.KafkaError):  # Kafka is unreachable, which is not the library's fault
                ends = self._ask_ends(silent, _ASK_MS)
                return {
                    partition: positions[partition] for partition in silent if positions[partition] < ends[partition]
                }
        return {}
