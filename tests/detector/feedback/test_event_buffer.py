"""Events that wait: which of them can be learned, and when."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ad.detector.feedback.event_buffer import (
    DROPPED,
    FROM_EVENT,
    LEARNED_ANOMALY,
    LEARNED_NORMAL,
    NORMAL,
    UNLABELLED,
    WAITING,
    EventBuffer,
)

BATCH, HORIZON, REACH = 8, 16, 48
CAPACITY = REACH + BATCH
ROW = np.array([0])


def pending(sensors: int = 1) -> EventBuffer:
    out = EventBuffer(1, reach=REACH, horizon_events=HORIZON, block=BATCH)
    out.append(sensors)
    return out


def push(store: EventBuffer, number: int, row: int = 0, *, step_ns: int = 1) -> int:
    """Add events with ids = numbers and times = numbers * step; returns how many were lost."""
    event_numbers = store.count[row] + np.arange(number)
    return store.push(
        np.full(number, row),
        event_numbers,
        ids=event_numbers.astype(np.uint64) + np.uint64(1),
        times=event_numbers * step_ns,
        order=event_numbers,
        log_score=event_numbers.astype(np.float64),
        marks=(event_numbers % 2 == 0, np.zeros(len(event_numbers), np.int8)),
        derived=np.zeros((number, 8), np.float32),
    )


def find(store: EventBuffer, rows: list[int], ids: list[int], before: list[int]) -> list[int]:
    """Numbers of the events that labels name."""
    return store.find(np.array(rows), np.array(ids, np.uint64), np.array(before))[0].tolist()


def take(store: EventBuffer, horizon_ns: int | None = None) -> list[int]:
    event_numbers, valid, _ = store.take(ROW, BATCH, horizon_ns)
    return event_numbers[valid].tolist()


def mark(store: EventBuffer, event_numbers: list[int], state: int) -> None:
    store.learned[0, np.array(event_numbers, np.int64) % CAPACITY] = state


def test_an_event_waits_for_its_horizon():
    """Without a label an event is taken once `horizon` later events of its sensor are there, oldest first."""
    store = pending()
    push(store, HORIZON)
    assert take(store) == []
    push(store, 3)
    assert take(store) == [0, 1, 2]
    assert take(store) == []


def test_a_label_ends_the_wait():
    """Labelled events are taken at once, the oldest first, before those whose horizon passed."""
    store = pending()
    push(store, HORIZON + 2)
    store.set_label(0, 9, NORMAL, FROM_EVENT)
    store.set_label(0, 5, 3, FROM_EVENT)
    assert take(store) == [5, 9, 0, 1]


def test_time_ends_the_wait_too():
    """With a horizon in seconds an event is taken when its sensor's clock has moved on by so much."""
    store = pending()
    push(store, 4, step_ns=100)
    assert take(store, horizon_ns=150) == [0, 1]


def test_no_more_than_a_batch_is_taken_and_none_is_forgotten():
    """A backlog leaves in batches, every event once."""
    store = pending()
    push(store, 40)
    taken = []
    while now := take(store):
        assert len(now) <= BATCH
        mark(store, now, LEARNED_NORMAL)
        taken += now
    assert taken == list(range(40 - HORIZON))


def test_more_says_that_another_batch_is_ready():
    """The third result is true exactly while a whole further batch waits."""
    store = pending()
    push(store, HORIZON + 2 * BATCH)
    assert store.take(ROW, BATCH, None)[2].tolist() == [True]
    assert store.take(ROW, BATCH, None)[2].tolist() == [False]


def test_a_correction_is_learned_again():
    """An event learned as normal is taken again when the label becomes an anomaly, and not when it stays."""
    store = pending()
    push(store, 3)
    for label, state, again in ((NORMAL, LEARNED_NORMAL, []), (2, LEARNED_ANOMALY, [1])):
        store.set_label(0, 1, label, FROM_EVENT)
        assert take(store) == [1]
        mark(store, [1], state)
        store.set_label(0, 1, label, FROM_EVENT)
        assert take(store) == [], again


def test_a_late_label_revives_a_dropped_event():
    """An event that was dropped at its horizon is taken when a label comes after all."""
    store = pending()
    push(store, HORIZON + 1)
    mark(store, take(store), DROPPED)
    store.set_label(0, 0, NORMAL, FROM_EVENT)
    assert take(store) == [0]


def test_a_retracted_label_lets_the_event_wait_again():
    """Retraction before learning puts the event back among the unlabelled ones until its horizon."""
    store = pending()
    push(store, 4)
    store.set_label(0, 2, 1, FROM_EVENT)
    store.set_label(0, 2, UNLABELLED, FROM_EVENT)
    assert take(store) == []
    push(store, HORIZON)
    assert take(store) == [0, 1, 2, 3]


def test_the_ring_counts_what_it_loses():
    """Unlearned events that the ring evicts are counted, and are not taken for others."""
    store = pending()
    assert push(store, CAPACITY) == 0
    assert push(store, 5) == 5
    assert find(store, [0], [1], [999]) == [-1]


def test_find_gives_the_newest_of_equal_ids():
    """Of two events with one id the later is meant, but none after the label; an unknown id is -1."""
    store = pending(2)
    push(store, 5)
    store.ids[0, 3] = store.ids[0, 1]
    assert find(store, [0, 0, 1, 0], [2, 99, 2, 2], [9, 9, 9, 3]) == [3, -1, -1, 1]


def test_a_label_reaches_back_from_its_own_position():
    """An event that came after a label is not found by it, and does not shorten its reach."""
    store = pending()
    push(store, CAPACITY + 20)
    for after in range(BATCH):
        stands = CAPACITY + 20 - after
        oldest = stands - REACH
        assert find(store, [0, 0, 0], [oldest, oldest + 1, stands + 1], [stands] * 3) == [-1, oldest, -1]
        assert store.in_interval(0, 0, 10**9, stands).tolist() == list(range(oldest, stands))
        assert store.count_before(0, stands) == stands


def test_a_bulk_upload_is_learned_whole():
    """Labels on everything in memory, newest first, and on every later event are all learned before they leave it."""
    store = pending()
    push(store, REACH)
    mark(store, list(range(REACH)), DROPPED)
    for event_number in reversed(range(REACH)):
        store.set_label(0, event_number, NORMAL, FROM_EVENT)
    learned: list[int] = []
    for _ in range(3 * REACH // BATCH):
        event_numbers = range(int(store.count[0]), int(store.count[0]) + BATCH)
        push(store, BATCH)
        for event_number in event_numbers:
            store.set_label(0, event_number, NORMAL, FROM_EVENT)
        for _ in range(2):  # as many batches as a learn point takes of a backlog
            taken = take(store)
            mark(store, taken, LEARNED_NORMAL)
            learned += taken
    assert learned == list(range(4 * REACH))


def test_an_interval_includes_both_ends():
    """Events at the very start and end of an interval belong to it."""
    store = pending()
    push(store, CAPACITY + 10, step_ns=10)
    assert store.in_interval(0, 200, 230, 999).tolist() == [20, 21, 22, 23]


actions = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(1, BATCH)),
        st.tuples(st.just("label"), st.integers(0, 60), st.sampled_from([UNLABELLED, NORMAL, 1, 2])),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(actions)
def test_every_event_is_learned_as_its_last_label_says(steps):
    """Whatever order events and labels come in, nothing is taken twice for one reason, nothing labelled or
    expired is forgotten, and nothing still waiting is taken.
    """
    store, pushed = pending(), 0
    state: dict[int, int] = {}
    labels: dict[int, int] = {}
    for step in steps:
        if step[0] == "push":
            push(store, step[1])
            pushed += step[1]
        elif pushed - REACH <= step[1] < pushed:
            store.set_label(0, step[1], step[2], FROM_EVENT)
            labels[step[1]] = step[2]
        while now := take(store):
            for event_number in now:
                label = labels.get(event_number, UNLABELLED)
                wanted = {UNLABELLED: DROPPED, NORMAL: LEARNED_NORMAL}.get(label, LEARNED_ANOMALY)
                assert state.get(event_number) != wanted
                assert label != UNLABELLED or pushed - event_number > HORIZON
                state[event_number] = wanted
                mark(store, [event_number], wanted)
    for event_number in range(max(0, pushed - CAPACITY), pushed):
        label = labels.get(event_number, UNLABELLED)
        if label != UNLABELLED:
            assert state[event_number] == (LEARNED_NORMAL if label == NORMAL else LEARNED_ANOMALY)
        elif pushed - event_number > HORIZON:
            assert event_number in state
        assert (store.learned[0, event_number % CAPACITY] == WAITING) == (event_number not in state)
