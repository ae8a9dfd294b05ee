"""What librdkafka reads is what it was told to read, also where it loses what it is told while it begins."""

from __future__ import annotations

import numpy as np
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicPartition as RdPartition
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition

from stream_ad.brokers.kafka.librdkafka.assignment import Assignment
from stream_ad.brokers.kafka.librdkafka.metadata import plain, rd
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

    def assign(self, places: list[RdPartition]) -> None:
        self.at = {plain(one): one.offset for one in places}
        self.beginning = len(self.refusals) if places else 0

    def seek(self, place: RdPartition) -> None:
        if self.beginning:
            self.beginning -= 1
            raise KafkaException(KafkaError(self.refusals[self.beginning]))
        assert plain(place) in self.at
        self.at[plain(place)] = place.offset

    def pause(self, places: list[RdPartition]) -> None:
        if not self.beginning:
            self.paused.update(map(plain, places))

    def resume(self, places: list[RdPartition]) -> None:
        if not self.beginning:
            self.paused.difference_update(map(plain, places))

    def reads(self) -> dict[TopicPartition, int]:
        return {place: offset for place, offset in self.at.items() if place not in self.paused}


class Owner:
    """Who gives orders, and knows what is to be read then."""

    def __init__(self, library: Library) -> None:
        self.library, self.places = library, Assignment(library, ends)
        self.wanted: dict[TopicPartition, int] = {}
        self.held: set[TopicPartition] = set()

    def rebalance(self, partitions: list[TopicPartition], offsets: dict[TopicPartition, int]) -> None:
        def tell(given: list[TopicPartition]) -> None:
            for one in given:
                self.places.seek(one, offsets.get(one, 0))
                if one not in offsets:
                    self.places.pause([one])

        self.places.assign([rd(one) for one in partitions], tell)
        self.wanted = {one: offsets[one] for one in partitions if one in offsets}
        self.held = set(partitions) - offsets.keys()

    def seek(self, place: TopicPartition, offset: int) -> None:
        self.places.seek(place, offset)
        self.wanted[place] = offset

    def pause(self, place: TopicPartition) -> None:
        self.places.pause([place])
        self.held.add(place)

    def resume(self, place: TopicPartition) -> None:
        self.places.resume([place])
        self.held.discard(place)
        self.wanted.setdefault(place, self.places.positions[place])

    def stop(self, place: TopicPartition) -> None:
        """The library gives up reading there, and is told where to read on."""
        self.library.at.pop(place, None)
        self.places.stopped(place)
        self.seek(place, 5)

    def settle(self) -> None:
        self.places.settle()
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
        if order in ("rebalance", "settle") or arguments[0] in owner.places.positions:
            getattr(owner, order)(*arguments)
    owner.settle()


def test_what_is_read_is_where_it_goes_on() -> None:
    """A partition begins anew behind the records it gave, and behind the marks of transactions after them; records of
    one that was taken away do not make it ours again.
    """
    library = Library([])
    places = Assignment(library, ends)
    places.assign([rd(PARTITIONS[0])], lambda them: [places.seek(one, 3) for one in them])
    records = RawRecords("events", 0, np.array([3, 5]), np.array([0, 0]), [None] * 2, [None] * 2)
    places.on_records({PARTITIONS[0]: records, PARTITIONS[1]: records})
    assert places.positions == {PARTITIONS[0]: 6}
    places.advance_to(PARTITIONS[0], 8)
    places.advance_to(PARTITIONS[0], 7)
    places.advance_to(PARTITIONS[1], 7)
    places.seek(PARTITIONS[0], places.positions[PARTITIONS[0]])
    assert library.reads() == places.positions == {PARTITIONS[0]: 8}
