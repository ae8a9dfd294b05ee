"""What librdkafka reads is what it was told to read, also where it loses what it is told while it begins."""

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

some = st.sets(st.sampled_from(PARTITIONS)).map(sorted)
told_offsets = st.dictionaries(st.sampled_from(PARTITIONS), st.integers(0, 9))
orders = st.one_of(
    st.tuples(st.just("rebalance"), some, told_offsets),
    st.tuples(st.just("seek"), st.sampled_from(PARTITIONS), st.integers(0, 9)),
    st.tuples(st.sampled_from(["pause", "resume", "stop"]), st.sampled_from(PARTITIONS)),
    st.tuples(st.just("settle")),
)


class Library:
    """As librdkafka: while it begins, seeks are refused and other orders get lost; pauses outlive assignments."""

    def __init__(self, refusals: list[int]) -> None:
        self.refusals = refusals
        self.at: dict[TopicPartition, int] = {}
        self.paused: set[TopicPartition] = set()
        self.beginning = 0

    def assign(self, assignment: list[RdPartition]) -> None:
        self.at = {to_kafka_python(one): one.offset for one in assignment}
        self.beginning = len(self.refusals) if assignment else 0

    def seek(self, place: RdPartition) -> None:
        if self.beginning:
            self.beginning -= 1
            raise KafkaException(KafkaError(self.refusals[self.beginning]))
        assert to_kafka_python(place) in self.at
        self.at[to_kafka_python(place)] = place.offset

    def pause(self, assignment: list[RdPartition]) -> None:
        if not self.beginning:
            self.paused.update(map(to_kafka_python, assignment))

    def resume(self, assignment: list[RdPartition]) -> None:
        if not self.beginning:
            self.paused.difference_update(map(to_kafka_python, assignment))

    def reads(self) -> dict[TopicPartition, int]:
        return {place: offset for place, offset in self.at.items() if place not in self.paused}


class Owner:
    """Who gives orders, and knows what is to be read then."""

    def __init__(self, library: Library) -> None:
        self.library, self.assignment = library, Assignment(library, ends)
        self.wanted: dict[TopicPartition, int] = {}
        self.held: set[TopicPartition] = set()

    def rebalance(self, partitions: list[TopicPartition], offsets: dict[TopicPartition, int]) -> None:
        def tell(given: list[TopicPartition]) -> None:
            for one in given:
                self.assignment.seek(one, offsets.get(one, 0))
                if one not in offsets:
                    self.assignment.pause([one])

        self.assignment.assign([to_librdkafka(one) for one in partitions], tell)
        self.wanted = {one: offsets[one] for one in partitions if one in offsets}
        self.held = set(partitions) - offsets.keys()

    def seek(self, place: TopicPartition, offset: int) -> None:
        self.assignment.seek(place, offset)
        self.wanted[place] = offset

    def pause(self, place: TopicPartition) -> None:
        self.assignment.pause([place])
        self.held.add(place)

    def resume(self, place: TopicPartition) -> None:
        self.assignment.resume([place])
        self.held.discard(place)
        self.wanted.setdefault(place, self.assignment.positions[place])

    def stop(self, place: TopicPartition) -> None:
        """The library gives up reading there, and is told where to read on."""
        self.library.at.pop(place, None)
        self.assignment.stopped(place)
        self.seek(place, 5)

    def apply_assignment(self) -> None:
        self.assignment.apply_assignment()
        assert self.library.at.keys() == self.wanted.keys()
        assert self.library.reads() == {one: at for one, at in self.wanted.items() if one not in self.held}


def ends(_places: object, _within_ms: int) -> dict[TopicPartition, int]:
    raise AssertionError("nothing was silent for long")


@given(st.lists(st.sampled_from(REFUSALS), max_size=3), st.lists(orders, max_size=20))
def test_the_library_reads_what_it_was_told_to(refusals, story) -> None:
    """Whatever was ordered, once it is settled all that has a position and is not paused is read, from there; and
    what has none was never begun with.
    """
    owner = Owner(Library(refusals))
    for order, *arguments in story:
        if order in ("rebalance", "settle") or arguments[0] in owner.assignment.positions:
            getattr(owner, order)(*arguments)
    owner.apply_assignment()


def test_what_is_read_is_where_it_goes_on() -> None:
    """A partition begins anew behind the records it gave, and behind the marks of transactions after them; records of
    one that was taken away do not make it ours again.
    """
    library = Library([])
    assignment = Assignment(library, ends)
    assignment.assign([to_librdkafka(PARTITIONS[0])], lambda them: [assignment.seek(one, 3) for one in them])
    records = RawRecords("events", 0, np.array([3, 5]), np.array([0, 0]), [None] * 2, [None] * 2)
    assignment.on_records({PARTITIONS[0]: records, PARTITIONS[1]: records})
    assert assignment.positions == {PARTITIONS[0]: 6}
    assignment.advance_to(PARTITIONS[0], 8)
    assignment.advance_to(PARTITIONS[0], 7)
    assignment.advance_to(PARTITIONS[1], 7)
    assignment.seek(PARTITIONS[0], assignment.positions[PARTITIONS[0]])
    assert library.reads() == assignment.positions == {PARTITIONS[0]: 8}
