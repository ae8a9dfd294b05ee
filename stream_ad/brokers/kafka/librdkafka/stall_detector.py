"""Partitions of which librdkafka gives nothing although there is more: a net, should librdkafka_places not suffice."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from kafka import errors as kafka_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from kafka import TopicPartition

    AskEnds = Callable[[Collection[TopicPartition], int], dict[TopicPartition, int]]

STILL_S = 10.0  # that a partition gives nothing before Kafka is asked whether there is more
_ASK_MS = 1_000


class StallDetector:
    """When each partition last gave something, was told to, or was asked about.

    Args:
        ask_ends: Asks Kafka for the ends of partitions, within milliseconds.
    """

    def __init__(self, ask_ends: AskEnds) -> None:
        self._ask_ends = ask_ends
        self._ended: dict[TopicPartition, float] = {}

    def ends(self, partitions: Collection[TopicPartition]) -> None:
        """Take note that these gave something now, or could not before."""
        self._ended |= dict.fromkeys(partitions, time.monotonic())

    def stalled(
        self, positions: Mapping[TopicPartition, int], unread: Collection[TopicPartition]
    ) -> dict[TopicPartition, int]:
        """The positions of those that have been still for long before their end, but for those that are not read."""
        now = time.monotonic()
        still = [one for one in positions if one not in unread and now - self._ended.setdefault(one, now) > STILL_S]
        self.ends(still)
        if still:
            with suppress(kafka_errors.KafkaError):  # Kafka is away, which is not the library's fault
                ends = self._ask_ends(still, _ASK_MS)
                return {one: positions[one] for one in still if positions[one] < ends[one]}
        return {}
