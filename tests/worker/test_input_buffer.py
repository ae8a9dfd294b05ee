"""The input buffer: which records a step may take, and which topics wait."""

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

TOPICS = (InputTopic.EVENTS, InputTopic.LABELS)


def records_of(topic, times, *, first=0, step=1):
    """All records of a topic: offset ``first + step * i``; the value names topic and index."""
    count = len(times)
    return RawRecords(
        topic.value,
        0,
        first + step * np.arange(count, dtype=np.int64),
        np.array(times, dtype=np.int64),
        [b"k%d" % index for index in range(count)],
        [f"{topic.value}-{index}".encode() for index in range(count)],
    )


def merged(events, labels):
    """Values in the order in which a shard processes a step."""
    before, order, label = merge_order(events.times_ms, labels.times_ms).tolist(), [], 0
    for event, count in enumerate(before):
        order += [*labels.values[label:count], events.values[event]]
        label = count
    return [*order, *labels.values[label:]]


def buffer(**options):
    return InputBuffer(0, TopicSettings(), **({"limit": 1_000} | options))


def put(waiting, **topics):
    """Put (times, drained) for each topic named."""
    waiting.put(
        {
            InputTopic(name): fetched(records_of(InputTopic(name), times), drained=drained)
            for name, (times, drained) in topics.items()
        }
    )


def fetched(records, *, drained=True):
    return Fetched(records, drained)


def values(taken):
    return tuple([*records.values] for records in taken)


times = st.lists(st.integers(0, 8), max_size=15)


@settings(deadline=None, max_examples=300)
@given(times, times, st.integers(0, 2**32))
def test_full_topics_give_one_order_however_they_are_fetched_and_taken(event_times, label_times, seed):
    """The steps, each merged, are the merge of the whole topics, however records are polled and taken."""
    whole = {
        topic: records_of(topic, topic_times, first=5, step=2)
        for topic, topic_times in zip(TOPICS, (event_times, label_times), strict=True)
    }
    waiting, order, read = buffer(start=InputOffsets(5, 5)), [], dict.fromkeys(TOPICS, 0)
    keys, rng = {topic: [] for topic in TOPICS}, random.Random(seed)
    while len(order) < len(event_times) + len(label_times):
        polled = {}
        for topic in rng.choice([TOPICS, TOPICS, TOPICS[:1], TOPICS[1:]]):
            stop = min(len(whole[topic]), read[topic] + rng.randrange(6))
            polled[topic] = fetched(whole[topic].slice(read[topic], stop), drained=stop == len(whole[topic]))
            read[topic] = stop
        waiting.put(polled)
        for most in rng.choices(range(8), k=rng.randrange(3)):
            events, labels = waiting.take(most)
            assert len(events) + len(labels) <= most
            order += merged(events, labels)
            keys[InputTopic.EVENTS] += events.keys
            keys[InputTopic.LABELS] += labels.keys
            for records, position in ((events, waiting.positions.events), (labels, waiting.positions.labels)):
                assert len(records) == 0 or records.offsets[-1] == position - 1
    assert order == merged(whole[InputTopic.EVENTS], whole[InputTopic.LABELS])
    assert keys == {topic: whole[topic].keys for topic in TOPICS}
    assert len(waiting) == 0


@settings(deadline=None, max_examples=300)
@given(times, times, st.booleans(), st.booleans(), st.integers(0, 30))
def test_as_many_are_taken_as_the_rule_allows(event_times, label_times, events_drained, labels_drained, most):
    """The prefix ends where a topic that may have more records has none left to compare, and not before."""
    events, labels = records_of(InputTopic.EVENTS, event_times), records_of(InputTopic.LABELS, label_times)
    waiting = buffer()
    waiting.put(
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
    assert merged(*waiting.take(most)) == expected


def test_a_topic_waits_for_the_other_until_that_one_is_drained():
    """An empty topic that is not drained may have older records; once it is drained, the other continues."""
    waiting = buffer()
    waiting.put(
        {
            InputTopic.EVENTS: fetched(records_of(InputTopic.EVENTS, [1, 2])),
            InputTopic.LABELS: fetched(records_of(InputTopic.LABELS, []), drained=False),
        }
    )
    assert values(waiting.take(10)) == ([], [])
    put(waiting, labels=([2], False))
    assert values(waiting.take(10)) == ([b"events-0"], [b"labels-0"])
    put(waiting, labels=([], True))
    assert values(waiting.take(10)) == ([b"events-1"], [])


def test_only_the_latest_poll_decides_whether_a_topic_is_drained():
    """A topic that was drained and has fallen behind since makes the other wait again."""
    waiting = buffer()
    put(waiting, events=([], True), labels=([], True))
    put(waiting, events=([1], True), labels=([], False))
    assert values(waiting.take(10)) == ([], [])


def test_a_label_of_the_same_record_time_is_taken_first():
    """The label is taken first even if only one record may be taken."""
    waiting = buffer()
    put(waiting, events=([5], True), labels=([5], True))
    assert values(waiting.take(1)) == ([], [b"labels-0"])
    assert waiting.positions == InputOffsets(0, 1)
    assert values(waiting.take(1)) == ([b"events-0"], [])


def test_a_full_topic_is_paused_until_the_other_one_catches_up():
    """A topic is paused from the limit on, and fetched again below it."""
    waiting = buffer(limit=3)
    waiting.put(
        {
            InputTopic.EVENTS: fetched(records_of(InputTopic.EVENTS, [1, 2, 3]), drained=False),
            InputTopic.LABELS: fetched(records_of(InputTopic.LABELS, []), drained=False),
        }
    )
    assert waiting.paused() == {InputTopic.EVENTS}
    waiting.put(
        {
            InputTopic.EVENTS: fetched(RawRecords.empty("events", 0), drained=False),
            InputTopic.LABELS: fetched(records_of(InputTopic.LABELS, [1])),
        }
    )
    assert values(waiting.take(2)) == ([b"events-0"], [b"labels-0"])
    assert waiting.paused() == set()


@settings(deadline=None, max_examples=200)
@given(times, times, st.data())
def test_a_step_is_replayed_whole(event_times, label_times, data):
    """take_upto gives exactly the records before the offsets, once all are fetched, whatever their times."""
    whole = {
        InputTopic.EVENTS: records_of(InputTopic.EVENTS, event_times, step=3),
        InputTopic.LABELS: records_of(InputTopic.LABELS, label_times, step=3),
    }
    counts = {topic: data.draw(st.integers(0, len(whole[topic]))) for topic in TOPICS}
    # An offset may lie in a gap after the last record taken.
    ends = [3 * counts[topic] - data.draw(st.integers(0, 2)) if counts[topic] else 0 for topic in TOPICS]
    upto, waiting, read = InputOffsets(*ends), buffer(limit=1), dict.fromkeys(TOPICS, 0)
    for _ in range(100):
        taken = waiting.take_upto(upto)
        if taken is not None:
            break
        assert waiting.positions == InputOffsets()
        polled = {}
        for topic in set(TOPICS) - waiting.paused():
            stop = min(len(whole[topic]), read[topic] + data.draw(st.integers(1, 6)))
            polled[topic] = fetched(whole[topic].slice(read[topic], stop), drained=stop == len(whole[topic]))
            read[topic] = stop
        waiting.put(polled)
    assert values(taken) == tuple([*whole[topic].values[: counts[topic]]] for topic in TOPICS)
    assert waiting.positions == upto
    rest = len(waiting)
    assert rest == sum(read.values()) - sum(counts.values())


def test_a_topic_is_fetched_beyond_its_limit_when_a_replay_needs_it():
    """A replay never waits for records of a topic that it pauses."""
    waiting = buffer(limit=2)
    waiting.put(
        {
            InputTopic.EVENTS: fetched(records_of(InputTopic.EVENTS, [1, 2]), drained=False),
            InputTopic.LABELS: fetched(records_of(InputTopic.LABELS, [])),
        }
    )
    assert waiting.take_upto(InputOffsets(3, 0)) is None
    assert waiting.paused() == set()
    waiting.put({InputTopic.EVENTS: fetched(records_of(InputTopic.EVENTS, [3, 4], first=2), drained=False)})
    assert values(waiting.take_upto(InputOffsets(3, 0))) == ([b"events-0", b"events-1", b"events-0"], [])
    assert waiting.positions == InputOffsets(3, 0)


def test_records_fetched_twice_are_refused():
    """A broker that goes back by itself would double events, so it raises an error."""
    waiting = buffer()
    put(waiting, events=([1, 2], True), labels=([], True))
    with pytest.raises(ValueError, match="events-0: offset 0 was fetched where 2 is next"):
        put(waiting, events=([1, 2], True))
    assert values(waiting.take(2)) == ([b"events-0", b"events-1"], [])
    with pytest.raises(ValueError, match="offset 0 was fetched"):
        put(waiting, events=([1, 2], True))
    with pytest.raises(ValueError, match="labels-0: offset 0 was fetched where 7 is next"):
        put(buffer(start=InputOffsets(0, 7)), labels=([1], True))
