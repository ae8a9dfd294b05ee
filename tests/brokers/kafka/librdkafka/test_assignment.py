"""The assignment of the librdkafka consumer, over a library that loses operations while it starts a partition."""

from __future__ import annotations

import numpy as np
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicPartition as RdPartition
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition

from stream_ad.brokers.kafka.librdkafka.assignment import Assignment
from stream_ad.brokers.kafka.librdkafka.metadata import to_kafka_python, to_librdkafka
from stream_ad.records.columns import RawRecords

REFUSALS = (KafkaError._STATE, KafkaError._OUTDATED, KafkaError._PREV_IN_PROGRESS)
PARTITIONS = [TopicPartition("events", number) for number in range(4)]

partition_sets = st.sets(st.sampled_from(PARTITIONS)).map(sorted)
offset_maps = st.dictionaries(st.sampled_from(PARTITIONS), st.integers(0, 9))
orders = st.one_of(
    st.tuples(st.just("rebalance"), partition_sets, offset_maps),
    st.tuples(st.just("seek"), st.sampled_from(PARTITIONS), st.integers(0, 9)),
    st.tuples(st.sampled_from(["pause", "resume", "stop"]), st.sampled_from(PARTITIONS)),
    st.tuples(st.just("apply_assignment")),
)


class Library:
    """A stand-in for librdkafka: while it starts, seeks are refused and other operations are lost; pauses outlive
    assignments.
    """

    def __init__(self, refusals: list[int]) -> None:
        self.refusals = refusals
        self.at: dict[TopicPartition, int] = {}
        self.paused: set[TopicPartition] = set()
        self.refusals_left = 0

    def assign(self, partitions: list[RdPartition]) -> None:
        self.at = {to_kafka_python(partition): partition.offset for partition in partitions}
        self.refusals_left = len(self.refusals) if partitions else 0

    def seek(self, partition: RdPartition) -> None:
        if self.refusals_left:
            self.refusals_left -= 1
            raise KafkaException(KafkaError(self.refusals[self.refusals_left]))
        assert to_kafka_python(partition) in self.at
        self.at[to_kafka_python(partition)] = partition.offset

    def pause(self, partitions: list[RdPartition]) -> None:
        if not self.refusals_left:
            self.paused.update(map(to_kafka_python, partitions))

    def resume(self, partitions: list[RdPartition]) -> None:
        if not self.refusals_left:
            self.paused.difference_update(map(to_kafka_python, partitions))

    def reads(self) -> dict[TopicPartition, int]:
        return {partition: offset for partition, offset in self.at.items() if partition not in self.paused}


class Owner:
    """The caller of the assignment, which knows what must be read."""

    def __init__(self, library: Library) -> None:
        self.library, self.assignment = library, Assignment(library, ends)
        self.wanted: dict[TopicPartition, int] = {}
        self.paused: set[TopicPartition] = set()

    def rebalance(self, partitions: list[TopicPartition], offsets: dict[TopicPartition, int]) -> None:
        def set_positions(assigned: list[TopicPartition]) -> None:
            for partition in assigned:
                self.assignment.seek(partition, offsets.get(partition, 0))
                if partition not in offsets:
                    self.assignment.pause([partition])

        self.assignment.assign([to_librdkafka(partition) for partition in partitions], set_positions)
        self.wanted = {partition: offsets[partition] for partition in partitions if partition in offsets}
        self.paused = set(partitions) - offsets.keys()

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.assignment.seek(partition, offset)
        self.wanted[partition] = offset

    def pause(self, partition: TopicPartition) -> None:
        self.assignment.pause([partition])
        self.paused.add(partition)

    def resume(self, partition: TopicPartition) -> None:
        self.assignment.resume([partition])
        self.paused.discard(partition)
        self.wanted.setdefault(partition, self.assignment.positions[partition])

    def stop(self, partition: TopicPartition) -> None:
        """The library stops fetching a partition, and is given a new position."""
        self.library.at.pop(partition, None)
        self.assignment.on_stopped(partition)
        self.seek(partition, 5)

    def apply_assignment(self) -> None:
        self.assignment.apply_assignment()
        assert self.library.at.keys() == self.wanted.keys()
        assert self.library.reads() == {
            partition: at for partition, at in self.wanted.items() if partition not in self.paused
        }


def ends(_partitions: object, _within_ms: int) -> dict[TopicPartition, int]:
    raise AssertionError("nothing was silent for long")


@given(st.lists(st.sampled_from(REFUSALS), max_size=3), st.lists(orders, max_size=20))
def test_the_library_reads_what_it_was_told_to(refusals, story) -> None:
    """After any operations, once applied, exactly the partitions with a position that are not paused are read, from
    there; one without a position is never started.
    """
    owner = Owner(Library(refusals))
    for order, *arguments in story:
        if order in ("rebalance", "apply_assignment") or arguments[0] in owner.assignment.positions:
            getattr(owner, order)(*arguments)
    owner.apply_assignment()


def test_what_is_read_is_where_it_goes_on() -> None:
    """A partition restarts behind its delivered records and the transaction markers after them; late records of a
    revoked partition do not assign it again.
    """
    library = Library([])
    assignment = Assignment(library, ends)
    assignment.assign(
        [to_librdkafka(PARTITIONS[0])], lambda them: [assignment.seek(partition, 3) for partition in them]
    )
    records = RawRecords("events", 0, np.array([3, 5]), np.array([0, 0]), [None] * 2, [None] * 2)
    assignment.on_records({PARTITIONS[0]: records, PARTITIONS[1]: records})
    assert assignment.positions == {PARTITIONS[0]: 6}
    assignment.advance_to(PARTITIONS[0], 8)
    assignment.advance_to(PARTITIONS[0], 7)
    assignment.advance_to(PARTITIONS[1], 7)
    assignment.seek(PARTITIONS[0], assignment.positions[PARTITIONS[0]])
    assert library.reads() == assignment.positions == {PARTITIONS[0]: 8}
