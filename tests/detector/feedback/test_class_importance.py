"""Class importance, number by number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_ad.detector.feedback.class_importance import ClassImportance, ema


def streaming(classes: int = 2, **options) -> ClassImportance:
    importance = ClassImportance(**{"rule": "counts", "decay": 0.999, "floor": 0.2, "rate": 0.01, **options})
    importance.classes(classes)
    return importance


@pytest.mark.parametrize(("batches", "expected"), [(69, 0.5), (459, 0.01)])
def test_plain_rule_forgets_a_mastered_class(batches, expected):
    """At rate .01 a class without misses falls to 0.5 after 69 batches and to 0.01 after 459."""
    importance = np.ones(2)
    for _ in range(batches):
        ema(importance, np.array([1]), np.array([False]), 0.01)
    assert importance[1] == pytest.approx(expected, rel=0.01)
    assert importance[1] == pytest.approx(0.99**batches, rel=1e-12)
    assert importance[0] == 1


def test_plain_rule_number_by_number():
    """Importance <- rate · FNR + (1 - rate) · importance, for the classes present only."""
    importance = np.array([0.4, 0.6, 0.9])
    ema(importance, np.array([0, 0, 0, 0, 2]), np.array([True, False, False, False, True]), 0.1)
    assert importance == pytest.approx([0.1 * 0.25 + 0.9 * 0.4, 0.6, 0.1 * 1 + 0.9 * 0.9])


def test_plain_rule_leaves_all_as_it_is_when_there_is_no_label():
    """An empty batch changes nothing and makes no NaN."""
    importance = np.array([0.4, 0.6])
    ema(importance, np.empty(0, np.int64), np.empty(0, np.bool_), 0.1)
    assert importance.tolist() == [0.4, 0.6]


@pytest.mark.parametrize("wrong", [-1, 2])
def test_plain_rule_refuses_an_unknown_class(wrong):
    """A class outside the table is an error, not a write to the last class."""
    with pytest.raises(ValueError, match="classes must lie between 0 and 1"):
        ema(np.ones(2), np.array([wrong]), np.array([False]), 0.1)


def test_streaming_form_number_by_number():
    """With 2 misses in 3 labels of class 1 and none in 5 of class 0 the weights are those of the formula."""
    importance = streaming(decay=0.9)
    classes, missed = np.array([0, 1, 0, 1, 0, 0, 1, 0]), np.array([0, 1, 0, 0, 0, 0, 1, 0], np.bool_)
    labels, misses = np.zeros(2), np.zeros(2)
    for c, m in zip(classes, missed, strict=True):
        labels, misses = 0.9 * labels, 0.9 * misses
        labels[c] += 1
        misses[c] += m
    importance.update(classes, missed)
    assert importance.labels == pytest.approx(labels)
    assert importance.misses == pytest.approx(misses)
    w = 0.2 + 0.8 * (misses + 5) / (labels + 10)
    w /= (labels * w).sum() / labels.sum()
    assert importance.weights() == pytest.approx(w)


def test_streaming_form_keeps_a_floor():
    """A class that is never missed again keeps a weight of at least the floor beside one always missed."""
    importance = streaming()
    for _ in range(5_000):
        importance.update(np.array([0, 1]), np.array([True, False]))
    normal, mastered = importance.weights()
    assert mastered / normal == pytest.approx((0.2 + 0.8 * 5 / 510) / (0.2 + 0.8 * 505 / 510), rel=0.02)
    assert mastered >= 0.2


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=300))
def test_streaming_weights_are_bounded_and_never_nan(labels):
    """Whatever is labelled, every weight lies in [.1, 10] and the label-weighted mean is 1 unless clipped."""
    importance = streaming(5)
    importance.update(np.array([c for c, _ in labels], np.int64), np.array([m for _, m in labels], np.bool_))
    weights = importance.weights()
    assert np.isfinite(weights).all()
    assert (weights >= 0.1).all()
    assert (weights <= 10).all()
    if labels and (weights > 0.1).all() and (weights < 10).all():
        assert (importance.labels * weights).sum() / importance.labels.sum() == pytest.approx(1)


def test_an_unseen_class_weighs_as_one_half_missed():
    """A class without labels has f = 1/2 and no miss rate."""
    importance = streaming(3)
    importance.update(np.array([0, 1]), np.array([False, True]))
    assert np.isnan(importance.miss_rate()[2])
    normal, missed, unseen = importance.weights()
    assert normal < unseen < missed


def test_one_record_moves_less_than_a_thousand():
    """A class with one missed label weighs less than one with a thousand missed labels."""
    few, many = streaming(3), streaming(3)
    few.update(np.array([0] * 100 + [1]), np.array([False] * 100 + [True]))
    many.update(np.array([0] * 100 + [1] * 1000), np.array([False] * 100 + [True] * 1000))
    assert few.weights()[1] / few.weights()[2] < many.weights()[1] / many.weights()[2]


def test_rules_choose_the_weights():
    """`ema` gives the plain average, `off` ones."""
    plain, off = streaming(rule="ema"), streaming(rule="off")
    for importance in (plain, off):
        importance.update(np.array([1]), np.array([False]))
    assert plain.weights().tolist() == [1, 0.99]
    assert off.weights().tolist() == [1, 1]
