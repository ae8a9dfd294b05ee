"""Which shards this worker owns: its membership in the consumer group, seen from the worker's thread.

The client calls the listener on its own thread, in the middle of a poll or between two. So the
listener only notes what happened and gives fresh partitions a position; everything else waits for
``settle``, which the broker calls after each poll.
"""

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


class Membership(ConsumerRebalanceListener):  # type: ignore[misc]
    """Owned shards and the positions of their inputs.

    A rebalance takes everything and gives most of it back. A shard that comes back keeps its position
    and its producer: had another worker owned it meanwhile, its producer would be fenced and the next
    commit refused. A shard that was lost (the group did not hear of this worker for too long) leaves
    ``owned`` for one poll at least, so that the worker sees that its state is of no use any more.

    Args:
        topics: Of the two sides.
        partitions: Number of shards; one beyond it raises TopicError in ``settle``.
    """

    def __init__(self, consumer: KafkaConsumer, topics: Mapping[InputTopic, str], partitions: int) -> None:
        self._consumer = consumer
        self._topics = topics
        self._sides = {topic: side for side, topic in topics.items()}
        self._shards = partitions
        self._lock = Lock()
        self._given: set[int] | None = set()  # None in the middle of a rebalance
        self._held: frozenset[Input] = frozenset()
        self._lost: set[int] = set()
        self.owned: frozenset[int] = frozenset()
        self.next: dict[Input, int] = {}
        """Next offset to read of the inputs that have been positioned."""

    def partition(self, key: Input) -> TopicPartition:
        return TopicPartition(self._topics[key[1]], key[0])

    def input(self, partition: TopicPartition) -> Input:
        return partition.partition, self._sides[partition.topic]

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:  # noqa: ARG002 (the client's signature)
        with self._lock:
            self._given = None

    def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        with self._lock:
            self._given = set()
            self._lost |= {partition.partition for partition in lost}

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        with self._lock:
            for partition in assigned:
                key = self.input(partition)
                # a position at once, whatever it is: without one the client looks for committed offsets by itself
                self._consumer.seek(partition, self.next.get(key, 0))
                if key not in self.next or key in self._held:
                    self._consumer.pause(partition)
            self._given = {shard for shard in (p.partition for p in assigned) if self._both(shard, assigned)}

    def _both(self, shard: int, assigned: Collection[TopicPartition]) -> bool:
        return all(self.partition((shard, side)) in assigned for side in InputTopic)

    def settle(self) -> frozenset[int]:
        """Take over what the listener has noted; returns the shards that are gone.

        Raises:
            TopicError: Partitions were added to the topics.
        """
        with self._lock:
            given = set(self.owned) if self._given is None else self._given
            gone = frozenset((self.owned - given) | (self.owned & self._lost))
            self.owned = frozenset(given - self._lost)
            for shard in self._lost | gone:
                self.forget(shard)
            self._lost = set()
        if added := sorted(shard for shard in given if shard >= self._shards):
            raise TopicError(
                f"Partition {added[0]} was added to {self._topics[InputTopic.EVENTS]}; "
                f"topics.partitions is {self._shards}.",
                hint="Sensors live in other shards now: make topics with the new number of partitions under other "
                "names, move the records there, and start with another application_id.",
            )
        return gone

    def give_up(self, shard: int) -> None:
        """Treat a shard as lost."""
        with self._lock:
            self._lost.add(shard)
            self.owned -= {shard}
            self.forget(shard)

    def forget(self, shard: int) -> None:
        for side in InputTopic:
            self.next.pop((shard, side), None)

    def place(self, key: Input, offset: int) -> None:
        """Read on from an offset."""
        with self._lock:
            self.next[key] = offset
            partition = self.partition(key)
            if partition in self._consumer.assignment():  # else the rebalance under way will place it
                self._consumer.seek(partition, offset)

    def paused(self, held: Collection[Input]) -> None:
        """Let the client fetch the inputs that have a position and are not held, and nothing else; also in a rebalance
        under way.
        """
        with self._lock:
            self._held = frozenset(held)
            assigned = self._consumer.assignment()
            stopped = {p for p in assigned if self.input(p) not in self.next or self.input(p) in self._held}
            paused = self._consumer.paused()
            if fresh := stopped - paused:
                self._consumer.pause(*fresh)
            if freed := paused - stopped:
                self._consumer.resume(*freed)
