"""The merge of events and labels by record time."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream_ad.shard.merge import merge_order, record_numbers

# Few different times, so that ties and steps backwards are common; extremes, to detect overflow.
times = st.lists(st.integers(0, 6) | st.sampled_from([-(2**63), 2**63 - 1]), max_size=12)


def head_against_head(events, labels):
    """The rule itself, record by record: ("event" or "label", index) in merged order."""
    order, event, label = [], 0, 0
    while event < len(events) or label < len(labels):
        if event == len(events) or (label < len(labels) and labels[label] <= events[event]):
            order.append(("label", label))
            label += 1
        else:
            order.append(("event", event))
            event += 1
    return order


def merged(events, labels):
    """The merged order by merge_order."""
    before = merge_order(np.array(events, dtype=np.int64), np.array(labels, dtype=np.int64)).tolist()
    order, label = [], 0
    for event, count in enumerate(before):
        order += [("label", index) for index in range(label, count)] + [("event", event)]
        label = count
    return order + [("label", index) for index in range(label, len(labels))]


@settings(deadline=None, max_examples=500)
@given(times, times)
@example([5, 1, 5], [3, 3, 9, 2])
def test_the_order_is_that_of_comparing_heads(events, labels):
    """The order is that of the rule, even if record times run backwards within an input."""
    assert merged(events, labels) == head_against_head(events, labels)


@settings(deadline=None)
@given(times, times, st.lists(st.integers(0, 24)))
def test_pieces_of_the_merged_order_merge_to_the_whole(events, labels, cuts):
    """Merging the merged order piece by piece gives the same order."""
    whole = merged(events, labels)
    pieces, start = [], (0, 0)
    for cut in [*sorted(cuts), len(whole)]:
        taken = whole[:cut]
        stop = (sum(kind == "event" for kind, _ in taken), sum(kind == "label" for kind, _ in taken))
        piece = merged(events[start[0] : stop[0]], labels[start[1] : stop[1]])
        pieces += [(kind, index + start[kind == "label"]) for kind, index in piece]
        start = stop
    assert pieces == whole


def test_ties_take_the_label_first():
    """A label with the same record time precedes the event."""
    assert merge_order(np.array([4, 5, 6]), np.array([5, 5])).tolist() == [0, 2, 2]


@settings(deadline=None)
@given(times, times, st.integers(0, 100))
def test_record_numbers_are_those_of_the_merged_order(events, labels, first):
    """Events and labels are numbered without a gap from the first number on, in merged order."""
    numbers = record_numbers(np.array(events, dtype=np.int64), np.array(labels, dtype=np.int64), first)
    numbered = {
        number: (kind, index)
        for kind, of_kind in zip(("event", "label"), numbers, strict=True)
        for index, number in enumerate(of_kind.tolist())
    }
    assert [numbered[first + n] for n in range(len(numbered))] == merged(events, labels)
