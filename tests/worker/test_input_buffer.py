from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ad.brokers.worker_api import Fetched, InputOffsets, InputTopic
from stream_ad.records.columns import RawRecords
from stream_ad.settings import TopicSettings
from stream_ad.shard.merge import merge_order
from stream_ad.worker.input_buffer import InputBuffer

SIDES = (InputTopic.EVENTS, InputTopic.LABELS)


def topic(side, times, *, first=0, step=1):
    """All records of one side: offset ``first + step * i``, the value names side and index."""
    count = len(times)
    return RawRecords(
        side.value,
        0,
        first + step * np.arange(count, dtype=np.int64),
        np.array(times, dtype=np.int64),
        [b"k%d" % index for index in range(count)],
        [f"{side.value}-{index}".encode() for index in range(count)],
    )


def merged(events, labels):
    """Values in the order in which a shard processes a step."""
    before, order, label = merge_order(events.times_ms, labels.times_ms).tolist(), [], 0
    for event, count in enumerate(before):
        order += [*labels.values[label:count], events.values[event]]
        label = count
    return [*order, *labels.values[label:]]


def inbox(**kinds):
    return InputBuffer(0, TopicSettings(), **({"limit": 1_000} | kinds))


def put(box, **sides):
    """Put (times, drained) for each side named."""
    box.put(
        {
            InputTopic(name): fetched(topic(InputTopic(name), times), drained=drained)
            for name, (times, drained) in sides.items()
        }
    )


def fetched(records, *, drained=True):
    return Fetched(records, drained)


def values(taken):
    return tuple([*records.values] for records in taken)


times = st.lists(st.integers(0, 8), max_size=15)


@settings(deadline=None, max_examples=300)
@given(times, times, st.integers(0, 2**32))
def test_topics_that_are_full_give_one_order_however_they_are_fetched_and_taken(event_times, label_times, seed):
    """Any polls, any sides held, any numbers taken: the merged steps are the merge of the whole topics."""
    whole = {
        side: topic(side, found, first=5, step=2) for side, found in zip(SIDES, (event_times, label_times), strict=True)
    }
    box, order, read = inbox(start=InputOffsets(5, 5)), [], dict.fromkeys(SIDES, 0)
    keys, rng = {side: [] for side in SIDES}, random.Random(seed)
    while len(order) < len(event_times) + len(label_times):
        polled = {}
        for side in rng.choice([SIDES, SIDES, SIDES[:1], SIDES[1:]]):
            stop = min(len(whole[side]), read[side] + rng.randrange(6))
            polled[side] = fetched(whole[side].slice(read[side], stop), drained=stop == len(whole[side]))
            read[side] = stop
        box.put(polled)
        for most in rng.choices(range(8), k=rng.randrange(3)):
            events, labels = box.take(most)
            assert len(events) + len(labels) <= most
            order += merged(events, labels)
            keys[InputTopic.EVENTS] += events.keys
            keys[InputTopic.LABELS] += labels.keys
            for records, position in ((events, box.positions.events), (labels, box.positions.labels)):
                assert len(records) == 0 or records.offsets[-1] == position - 1
    assert order == merged(whole[InputTopic.EVENTS], whole[InputTopic.LABELS])
    assert keys == {side: whole[side].keys for side in SIDES}
    assert len(box) == 0


@settings(deadline=None, max_examples=300)
@given(times, times, st.booleans(), st.booleans(), st.integers(0, 30))
def test_as_many_are_taken_as_the_rule_allows(event_times, label_times, events_drained, labels_drained, most):
    """The prefix ends where a side that may have more to come has nothing to compare, not before."""
    events, labels = topic(InputTopic.EVENTS, event_times), topic(InputTopic.LABELS, label_times)
    box = inbox()
    box.put(
        {
            InputTopic.EVENTS: fetched(events, drained=events_drained),
            InputTopic.LABELS: fetched(labels, drained=labels_drained),
        }
    )
    expected, event, label = [], 0, 0
    while len(expected) < most:
        if (event == len(events) and not events_drained) or (label == len(labels) and not labels_drained):
            break
        if label < len(labels) and (event == len(events) or label_times[label] <= event_times[event]):
            expected.append(labels.values[label])
            label += 1
        elif event < len(events):
            expected.append(events.values[event])
            event += 1
        else:
            break
    assert merged(*box.take(most)) == expected


def test_a_side_with_nothing_to_compare_holds_the_other_up_until_the_broker_has_no_more():
    """An empty side that is not drained may have older records; once drained, the other goes on."""
    box = inbox()
    box.put(
        {
            InputTopic.EVENTS: fetched(topic(InputTopic.EVENTS, [1, 2])),
            InputTopic.LABELS: fetched(topic(InputTopic.LABELS, []), drained=False),
        }
    )
    assert values(box.take(10)) == ([], [])
    put(box, labels=([2], False))
    assert values(box.take(10)) == ([b"events-0"], [b"labels-0"])
    put(box, labels=([], True))
    assert values(box.take(10)) == ([b"events-1"], [])


def test_only_the_latest_poll_says_whether_a_side_has_more():
    """A side that was drained and has fallen behind since holds the other up again."""
    box = inbox()
    put(box, events=([], True), labels=([], True))
    put(box, events=([1], True), labels=([], False))
    assert values(box.take(10)) == ([], [])


def test_a_label_of_the_same_record_time_is_taken_first():
    """Ties go to the label, also where only one record may be taken."""
    box = inbox()
    put(box, events=([5], True), labels=([5], True))
    assert values(box.take(1)) == ([], [b"labels-0"])
    assert box.positions == InputOffsets(0, 1)
    assert values(box.take(1)) == ([b"events-0"], [])


def test_a_full_side_is_held_until_the_other_one_lets_it_go():
    """From the limit on a side is not to be fetched; below it, it is again."""
    box = inbox(limit=3)
    box.put(
        {
            InputTopic.EVENTS: fetched(topic(InputTopic.EVENTS, [1, 2, 3]), drained=False),
            InputTopic.LABELS: fetched(topic(InputTopic.LABELS, []), drained=False),
        }
    )
    assert box.paused() == {InputTopic.EVENTS}
    box.put(
        {
            InputTopic.EVENTS: fetched(RawRecords.empty("events", 0), drained=False),
            InputTopic.LABELS: fetched(topic(InputTopic.LABELS, [1])),
        }
    )
    assert values(box.take(2)) == ([b"events-0"], [b"labels-0"])
    assert box.paused() == set()


@settings(deadline=None, max_examples=200)
@given(times, times, st.data())
def test_a_step_taken_before_is_taken_again_whole(event_times, label_times, data):
    """take_upto gives exactly the records before the positions, once all are there, whatever their times."""
    whole = {
        InputTopic.EVENTS: topic(InputTopic.EVENTS, event_times, step=3),
        InputTopic.LABELS: topic(InputTopic.LABELS, label_times, step=3),
    }
    counts = {side: data.draw(st.integers(0, len(whole[side]))) for side in SIDES}
    # A position may lie in a gap of the offsets, behind the last record taken.
    ends = [3 * counts[side] - data.draw(st.integers(0, 2)) if counts[side] else 0 for side in SIDES]
    upto, box, read = InputOffsets(*ends), inbox(limit=1), dict.fromkeys(SIDES, 0)
    for _ in range(100):
        taken = box.take_upto(upto)
        if taken is not None:
            break
        assert box.positions == InputOffsets()
        polled = {}
        for side in set(SIDES) - box.paused():
            stop = min(len(whole[side]), read[side] + data.draw(st.integers(1, 6)))
            polled[side] = fetched(whole[side].slice(read[side], stop), drained=stop == len(whole[side]))
            read[side] = stop
        box.put(polled)
    assert values(taken) == tuple([*whole[side].values[: counts[side]]] for side in SIDES)
    assert box.positions == upto
    rest = len(box)
    assert rest == sum(read.values()) - sum(counts.values())


def test_a_side_is_fetched_beyond_its_limit_when_a_step_taken_before_needs_it():
    """Recovery never waits for records that it forbids to fetch."""
    box = inbox(limit=2)
    box.put(
        {
            InputTopic.EVENTS: fetched(topic(InputTopic.EVENTS, [1, 2]), drained=False),
            InputTopic.LABELS: fetched(topic(InputTopic.LABELS, [])),
        }
    )
    assert box.take_upto(InputOffsets(3, 0)) is None
    assert box.paused() == set()
    box.put({InputTopic.EVENTS: fetched(topic(InputTopic.EVENTS, [3, 4], first=2), drained=False)})
    assert values(box.take_upto(InputOffsets(3, 0))) == ([b"events-0", b"events-1", b"events-0"], [])
    assert box.positions == InputOffsets(3, 0)


def test_records_fetched_twice_are_refused():
    """A broker that goes back without being told to would double events: that is an error, said loudly."""
    box = inbox()
    put(box, events=([1, 2], True), labels=([], True))
    with pytest.raises(ValueError, match="events-0: offset 0 was fetched where 2 is next"):
        put(box, events=([1, 2], True))
    assert values(box.take(2)) == ([b"events-0", b"events-1"], [])
    with pytest.raises(ValueError, match="offset 0 was fetched"):
        put(box, events=([1, 2], True))
    with pytest.raises(ValueError, match="labels-0: offset 0 was fetched where 7 is next"):
        put(inbox(start=InputOffsets(0, 7)), labels=([1], True))
