"""Doubt about verdicts: one that its neighbours and the score contradict is not believed."""

from __future__ import annotations

import numpy as np
import pytest

from stream_ad.detector.pending import FROM_EVENT, Pending
from stream_ad.detector.trust import doubtful

ROW = np.zeros(1, np.int64)
EVENTS = 40


def judged(verdicts):
    """One sensor whose events 0, 1, … have these verdicts; None: nobody knows."""
    one = Pending(2, capacity=64, horizon_events=48, block=8)
    one.append(1)
    rows, places = np.zeros(EVENTS, np.int64), np.arange(EVENTS)
    one.numbers(rows)
    one.push(
        rows,
        places,
        ids=places.astype(np.uint64),
        times=places,
        order=places,
        log_score=np.zeros(EVENTS),
        flagged=np.zeros(EVENTS, np.bool_),
        derived=np.zeros((EVENTS, 8), np.float32),
    )
    for place, verdict in enumerate(verdicts):
        if verdict is not None:
            one.judge(0, place, verdict, FROM_EVENT)
    return one


def doubts(verdicts, high):
    return doubtful(judged(verdicts), ROW, np.arange(EVENTS)[None], np.isin(np.arange(EVENTS), high)[None])[0]


def around(verdict, others):
    """Event 20 is told ``verdict``, all others the other thing."""
    return [verdict if place == 20 else others for place in range(EVENTS)]


@pytest.mark.parametrize(
    ("verdict", "others", "high", "doubted"),
    [
        (0, 1, True, True),  # normal, amid a fault that the score saw
        (0, 1, False, False),  # normal, and the score says so too
        (2, 0, False, True),  # an anomaly that neither neighbours nor score show
        (2, 0, True, False),  # a quick anomaly that the score saw
        (0, 0, True, False),  # a false alarm among normal events
        (1, 2, False, False),  # a fault of two classes
        (0, None, True, False),  # nobody else was judged
        (2, None, False, False),
    ],
)
def test_a_verdict_is_doubted_only_if_neighbours_and_score_contradict_it(verdict, others, high, doubted):
    """Both witnesses are needed against a verdict."""
    found = doubts(around(verdict, others), [20] if high else [])
    assert found[20] == doubted


def test_events_without_a_verdict_are_never_doubted():
    """There is nothing to doubt."""
    assert not doubts([None] * EVENTS, range(EVENTS)).any()


def test_sparse_verdicts_count_alike():
    """With every fourth event judged, the neighbours that were are asked."""
    verdicts = [1 if place % 4 == 0 else None for place in range(EVENTS)]
    verdicts[20] = 0
    assert doubts(verdicts, [20])[20]
