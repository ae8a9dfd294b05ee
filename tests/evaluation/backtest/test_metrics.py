"""Figures of quality: those of scikit-learn where it has them, counted by hand where it does not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from stream_ad.evaluation.backtest.metrics import by_row, curve, detection, segments

TRUE, FALSE = True, False
ranked = st.lists(st.tuples(st.integers(-3, 3) | st.floats(-1e6, 1e6), st.booleans()), min_size=2, max_size=60)


def columns(pairs):
    scores, anomalous = zip(*pairs, strict=True)
    return np.array(scores, np.float64), np.array(anomalous, np.bool_)


@settings(deadline=None)
@given(ranked.filter(lambda pairs: len({anomalous for _, anomalous in pairs}) == 2))
def test_areas_are_those_of_scikit_learn(pairs):
    """Both areas are scikit-learn's, whatever ties there are."""
    scores, anomalous = columns(pairs)
    result = curve(scores, anomalous)
    assert result.roc_auc() == pytest.approx(roc_auc_score(anomalous, scores), abs=1e-12)
    assert result.average_precision() == pytest.approx(average_precision_score(anomalous, scores), abs=1e-12)


def test_areas_by_hand():
    """Ties count half: four rows with one tie across the classes."""
    result = curve(np.array([3.0, 2.0, 2.0, 1.0]), np.array([TRUE, TRUE, FALSE, FALSE]))
    assert result.roc_auc() == (1 + 1 + 0.5 + 1) / 4
    assert result.average_precision() == 0.5 * 1 + 0.5 * (2 / 3)


@pytest.mark.parametrize("anomalous", [[], [TRUE, TRUE], [FALSE, FALSE]])
def test_one_class_has_no_area(anomalous):
    """Where there is nothing to tell apart, an area is not a number rather than a made-up one."""
    result = curve(np.zeros(len(anomalous)), np.array(anomalous, np.bool_))
    assert math.isnan(result.roc_auc())
    assert math.isnan(result.average_precision())


@settings(deadline=None)
@given(ranked, st.integers(4, 12))
def test_thinning_keeps_both_ends(pairs, points):
    """A thinned curve has few points, both ends, and only points of the whole."""
    whole = curve(*columns(pairs))
    thin = whole.thinned(points)
    assert len(thin.scores) <= max(points + 2, 2)
    assert set(zip(thin.hits.tolist(), thin.alarms.tolist(), strict=True)) <= set(
        zip(whole.hits.tolist(), whole.alarms.tolist(), strict=True)
    )
    assert (thin.scores[0], thin.scores[-1]) == (whole.scores[0], whole.scores[-1])


def test_rows_by_hand():
    """Two of three anomalies alarm and one of four normal rows."""
    alarming = np.array([TRUE, TRUE, FALSE, TRUE, FALSE, FALSE, FALSE])
    anomalous = np.array([TRUE, TRUE, TRUE, FALSE, FALSE, FALSE, FALSE])
    assert by_row(alarming, anomalous) == {
        "precision": 2 / 3,
        "recall": 2 / 3,
        "f1": 4 / 6,
        "false_alarm_rate": 1 / 4,
    }


def test_where_nothing_alarms_there_is_no_precision():
    """A share of nothing is not a number."""
    result = by_row(np.zeros(2, np.bool_), np.array([TRUE, FALSE]))
    assert math.isnan(result["precision"])
    assert (result["recall"], result["f1"], result["false_alarm_rate"]) == (0, 0, 0)


def test_segments_by_hand():
    """Segments are cut per sensor, where the label changes and where it is unknown, in the order of their ends."""
    sensor = np.array([0, 1, 0, 1, 0, 1, 0, 0])
    code = np.array([1, 0, 1, 0, 2, -1, 2, 2])
    result = [(segment.sensor, segment.code, segment.rows.tolist()) for segment in segments(sensor, code)]
    assert result == [(0, 1, [0, 2]), (1, 0, [1, 3]), (0, 2, [4, 6, 7])]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 2)), max_size=50))
def test_segments_hold_every_labelled_row_once(rows):
    """Every row with a label is in exactly one segment, with its own sensor and label."""
    sensor, code = np.array(rows, np.int64).reshape(-1, 2).T
    result = segments(sensor, code)
    inside = sorted(row for segment in result for row in segment.rows.tolist())
    assert inside == np.flatnonzero(code >= 0).tolist()
    for segment in result:
        assert set(sensor[segment.rows]) == {segment.sensor}
        assert set(code[segment.rows]) == {segment.code}


def test_detection_by_hand():
    """A fault counts as found by its first alarming row, and the delay is the rows before that."""
    sensor, code = np.zeros(9, np.int64), np.array([1, 1, 1, 0, 1, 1, 0, 1, 1])
    alarming = np.array([FALSE, FALSE, TRUE, TRUE, TRUE, FALSE, FALSE, FALSE, FALSE])
    faults = [segment for segment in segments(sensor, code) if segment.code > 0]
    assert detection(faults, alarming) == {"detected": 2, "total": 3, "delay_events_median": 1.0}
    assert math.isnan(detection(faults, np.zeros(9, np.bool_))["delay_events_median"])
