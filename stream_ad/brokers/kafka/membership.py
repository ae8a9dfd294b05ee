"""Membership in the consumer group, seen from the worker's thread: owned shards and positions of their inputs."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from kafka import ConsumerRebalanceListener, TopicPartition

from stream_ad.brokers.worker_api import InputTopic
from stream_ad.errors import TopicError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from kafka import KafkaConsumer

Input = tuple[int, InputTopic]
"""A shard and one of its inputs."""


class Membership(ConsumerRebalanceListener):  # type: ignore[misc]
    """Owned shards and the positions of their inputs.

    A rebalance revokes every partition and assigns most of them again:

    1. ``on_partitions_revoked`` marks the rebalance as in progress; the worker keeps its shards and their producers.
    2. ``on_partitions_assigned`` records the new shards, and gives each of their partitions a position at once: the one
       known here, or 0 and paused until ``seek``.
    3. ``apply_rebalance``, which the broker calls after each poll, takes the recorded shards over into ``owned`` and
       returns those that are gone.
    4. A shard that was assigned again keeps its position and its producer: had another worker owned it meanwhile, that
       worker would have fenced the producer, and the next commit would be refused.
    5. A shard that was lost (``on_partitions_lost``: the group had no heartbeat of this worker for too long) is missing
       from ``owned`` for at least one poll, even where it was assigned again, so that the worker drops its state.

    The client calls the listener on its own thread, during a poll or between two polls. So the listener does no more
    than steps 1, 2 and the recording of 5.

    Args:
        consumer: The client; used under the lock of this object.
        topics: The names of the two input topics.
        partitions: Number of shards; ``apply_rebalance`` raises TopicError for a partition beyond it.
    """

    def __init__(self, consumer: KafkaConsumer, topics: Mapping[InputTopic, str], partitions: int) -> None:
        self._consumer = consumer
        self._topics = topics
        self._input_topics = {topic: side for side, topic in topics.items()}
        self._shards = partitions
        self._lock = Lock()
        self._assigned: set[int] | None = set()  # shards of the last assignment; None during a rebalance
        self._paused: frozenset[Input] = frozenset()
        self._lost: set[int] = set()
        self.owned: frozenset[int] = frozenset()
        self.next: dict[Input, int] = {}
        """Next offset to read of the inputs that have been positioned."""

    def partition(self, key: Input) -> TopicPartition:
        """Return the partition of an input."""
        return TopicPartition(self._topics[key[1]], key[0])

    def input(self, partition: TopicPartition) -> Input:
        """Return the input that a partition is."""
        return partition.partition, self._input_topics[partition.topic]

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:  # noqa: ARG002 (the client's signature)
        """Note that a rebalance has begun."""
        with self._lock:
            self._assigned = None

    def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        """Note that the membership, and with it these partitions, were lost."""
        with self._lock:
            self._assigned = set()
            self._lost |= {partition.partition for partition in lost}

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Note the new shards, and give each partition a position."""
        with self._lock:
            for partition in assigned:
                key = self.input(partition)
                # Always set a position: without one the client fetches the committed offsets by itself.
                self._consumer.seek(partition, self.next.get(key, 0))
                if key not in self.next or key in self._paused:
                    self._consumer.pause(partition)
            shards = {partition.partition for partition in assigned}
            self._assigned = {shard for shard in shards if self._has_both_inputs(shard, assigned)}

    def _has_both_inputs(self, shard: int, assigned: Collection[TopicPartition]) -> bool:
        return all(self.partition((shard, side)) in assigned for side in InputTopic)

    def apply_rebalance(self) -> frozenset[int]:
        """Apply what the listener has noted, and return the shards that are gone.

        Raises:
            TopicError: Partitions were added to the topics.
        """
        with self._lock:
            assigned = set(self.owned) if self._assigned is None else self._assigned
            gone = frozenset((self.owned - assigned) | (self.owned & self._lost))
            self.owned = frozenset(assigned - self._lost)
            for shard in self._lost | gone:
                self.forget(shard)
            self._lost = set()
        if added := sorted(shard for shard in assigned if shard >= self._shards):
            raise TopicError(
                f"Partition {added[0]} was added to {self._topics[InputTopic.EVENTS]}; "
                f"topics.partitions is {self._shards}.",
                hint="Sensors now belong to other shards: create topics with the new number of partitions under other "
                "names, move the records to them, and start with another application_id.",
            )
        return gone

    def mark_lost(self, shard: int) -> None:
        """Treat a shard as lost."""
        with self._lock:
            self._lost.add(shard)
            self.owned -= {shard}
            self.forget(shard)

    def forget(self, shard: int) -> None:
        """Drop the positions of a shard's inputs."""
        for side in InputTopic:
            self.next.pop((shard, side), None)

    def seek(self, key: Input, offset: int) -> None:
        """Continue reading an input from an offset."""
        with self._lock:
            self.next[key] = offset
            partition = self.partition(key)
            if partition in self._consumer.assignment():  # else the rebalance in progress will set the position
                self._consumer.seek(partition, offset)

    def set_paused(self, paused: Collection[Input]) -> None:
        """Let the client fetch the inputs that have a position and are not paused, and no others.

        Also holds for the assignment of a rebalance in progress.
        """
        with self._lock:
            self._paused = frozenset(paused)
            assigned = self._consumer.assignment()
            to_pause = {p for p in assigned if self.input(p) not in self.next or self.input(p) in self._paused}
            paused_now = self._consumer.paused()
            if newly_paused := to_pause - paused_now:
                self._consumer.pause(*newly_paused)
            if resumed := paused_now - to_pause:
                self._consumer.resume(*resumed)
