"""Doubt about labels: one that its neighbours and the score contradict is not believed."""

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


def labelled(labels, *, capacity=64):
    """Return a buffer of one sensor whose events 0, 1, ... have these labels; None is no label."""
    number = len(labels)
    buffer = EventBuffer(2, reach=capacity - 8, horizon_events=capacity * 3 // 4, block=8)
    buffer.append(1)
    rows, event_numbers = np.zeros(number, np.int64), np.arange(number)
    buffer.next_numbers(rows)
    buffer.push(
        rows,
        event_numbers,
        ids=event_numbers.astype(np.uint64),
        times=event_numbers,
        order=event_numbers,
        log_score=np.zeros(number),
        marks=(np.zeros(number, np.bool_), np.zeros(number, np.int8)),
        derived=np.zeros((number, 8), np.float32),
    )
    for event_number, label in enumerate(labels):
        if label is not None:
            buffer.set_label(0, event_number, label, FROM_EVENT)
    return buffer


def doubts(labels, high):
    return doubtful(labelled(labels), ROW, np.arange(EVENTS)[None], np.isin(np.arange(EVENTS), high)[None])[0]


def around(label, others):
    """Return labels of all events: event 20 has ``label``, all others ``others``."""
    return [label if event_number == 20 else others for event_number in range(EVENTS)]


@pytest.mark.parametrize(
    ("label", "others", "high", "doubted"),
    [
        (0, 1, True, True),  # normal, amid a fault that the score saw
        (0, 1, False, False),  # normal, and the score says so too
        (2, 0, False, True),  # an anomaly that neither neighbours nor score show
        (2, 0, True, False),  # a quick anomaly that the score saw
        (0, 0, True, False),  # a false alarm among normal events
        (1, 2, False, False),  # a fault of two classes
        (0, None, True, False),  # no neighbour is labelled
        (2, None, False, False),
    ],
)
def test_a_label_is_doubted_only_if_neighbours_and_score_contradict_it(label, others, high, doubted):
    """Both witnesses are needed against a label."""
    results = doubts(around(label, others), [20] if high else [])
    assert results[20] == doubted


def test_events_without_a_label_are_never_doubted():
    """There is nothing to doubt."""
    assert not doubts([None] * EVENTS, range(EVENTS)).any()


def test_sparse_labels_count_alike():
    """With every fourth event labelled, only the labelled neighbours count."""
    labels = [1 if event_number % 4 == 0 else None for event_number in range(EVENTS)]
    labels[20] = 0
    assert doubts(labels, [20])[20]


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
    p = np.array([((normals >= anomaly).sum() + 1) / 301 for anomaly in anomalies])
    order = np.argsort(p, kind="stable")
    widths = np.maximum(np.diff(np.r_[0, p[order], 1]), 1e-9)
    density = optimize.isotonic_regression(1 / 61 / widths, weights=widths, increasing=False).x[:60]
    doubt = np.minimum(1, (p > 0.5).mean() / 0.5 / density)
    expected = np.empty(60)
    expected[order] = np.maximum(1 - doubt * 60 / (60 + FULL_DOUBT), LEAST_BELIEF)
    np.testing.assert_allclose(believed(anomalies, normals), expected, rtol=1e-9)


def test_a_long_fault_adds_little_with_every_label():
    """Few labelled anomalies count in full, and those of a long fault together as 64 among 256 events."""
    few = [1 if event_number % 10 == 0 else None for event_number in range(100)]
    buffer = labelled([*few, *[None] * 10, *[0] * 20, *[2] * 370], capacity=512)
    results = novelty(buffer, ROW, np.array([[90, 130, 190, 400]]))[0]
    assert results[:2].tolist() == [1, 1]
    assert results[2] == pytest.approx(EPISODE_WORTH / 71)
    assert results[3] == pytest.approx(EPISODE_WORTH / EPISODE)
