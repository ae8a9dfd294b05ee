"""Doubt about verdicts: one that its neighbours and the score contradict is not believed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from stream_ad.detector.feedback.event_buffer import FROM_EVENT, EventBuffer
from stream_ad.detector.feedback.label_trust import (
    EPISODE,
    EPISODE_WORTH,
    FULL_DOUBT,
    LEAST_BELIEF,
    believed,
    doubtful,
    novelty,
)

ROW = np.zeros(1, np.int64)
EVENTS = 40


def judged(verdicts, *, capacity=64):
    """One sensor whose events 0, 1, … have these verdicts; None: nobody knows."""
    number = len(verdicts)
    one = EventBuffer(2, reach=capacity - 8, horizon_events=capacity * 3 // 4, block=8)
    one.append(1)
    rows, event_numbers = np.zeros(number, np.int64), np.arange(number)
    one.next_numbers(rows)
    one.push(
        rows,
        event_numbers,
        ids=event_numbers.astype(np.uint64),
        times=event_numbers,
        order=event_numbers,
        log_score=np.zeros(number),
        flagged=np.zeros(number, np.bool_),
        derived=np.zeros((number, 8), np.float32),
    )
    for place, verdict in enumerate(verdicts):
        if verdict is not None:
            one.set_label(0, place, verdict, FROM_EVENT)
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


def test_anomalies_that_stand_out_are_believed():
    """What lies above all normals counts in full, what lies among them hardly at all, and fewer are doubted less."""
    rng = np.random.default_rng(1)
    normals, true, wrong = rng.normal(size=500), rng.normal(6, 1, 200), rng.normal(size=100)
    belief = believed(np.concatenate([true, wrong]), normals)
    assert np.quantile(belief[:200], 0.05) > 0.9
    assert belief[200:].mean() < 0.2
    few = believed(np.concatenate([true[:4], wrong[:2]]), normals)
    assert few.min() > 0.7
    assert believed(true, normals).min() == 1


def test_belief_is_its_formula():
    """Number by number what SciPy's isotonic regression makes of the false discovery rate."""
    rng = np.random.default_rng(2)
    anomalies, normals = np.r_[rng.normal(2, 1, 40), rng.normal(size=20)], rng.normal(size=300)
    p = np.array([((normals >= one).sum() + 1) / 301 for one in anomalies])
    order = np.argsort(p, kind="stable")
    widths = np.maximum(np.diff(np.r_[0, p[order], 1]), 1e-9)
    density = optimize.isotonic_regression(1 / 61 / widths, weights=widths, increasing=False).x[:60]
    doubt = np.minimum(1, (p > 0.5).mean() / 0.5 / density)
    expected = np.empty(60)
    expected[order] = np.maximum(1 - doubt * 60 / (60 + FULL_DOUBT), LEAST_BELIEF)
    np.testing.assert_allclose(believed(anomalies, normals), expected, rtol=1e-9)


def test_a_long_fault_tells_little_more_with_every_verdict():
    """Few labelled anomalies count in full, and those of a long fault in all as 64 among 256 events."""
    few = [1 if place % 10 == 0 else None for place in range(100)]
    one = judged([*few, *[None] * 10, *[0] * 20, *[2] * 370], capacity=512)
    found = novelty(one, ROW, np.array([[90, 130, 190, 400]]))[0]
    assert found[:2].tolist() == [1, 1]
    assert found[2] == pytest.approx(EPISODE_WORTH / 71)
    assert found[3] == pytest.approx(EPISODE_WORTH / EPISODE)
