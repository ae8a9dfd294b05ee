"""Baselines are what their libraries make of the same rows."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from river import anomaly, preprocessing
from sklearn.ensemble import IsolationForest

from stream_ad.errors import SettingsError
from stream_ad.evaluation.backtest import baselines
from stream_ad.evaluation.backtest.baselines import Forest, HalfSpace, RunningZ, check
from stream_ad.evaluation.backtest.stream import Stream
from tests.support.recordings import drawn


@pytest.fixture(scope="module")
def stream():
    return Stream([drawn()], warmup=None, default_warmup=64)


def test_half_space_trees_are_rivers(stream):
    """Half-space trees are river's pipeline over each sensor's rows, scored before they are learned."""
    values = stream.values(0, 400)
    scores = HalfSpace(7).score(stream.sensor, values)
    pipeline = preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(seed=7)
    for row in np.flatnonzero(stream.sensor == 1).tolist():
        x = dict(enumerate(values[row].tolist()))
        assert scores[row] == pipeline.score_one(x)
        pipeline.learn_one(x)


def test_the_forest_is_fitted_on_the_warm_up(stream):
    """The isolation forest is scikit-learn's, fitted on the rows of the sensor before the first evaluated one."""
    values = stream.values(0, 400)
    members = np.flatnonzero(stream.sensor == 0)
    warmup = members[~stream.evaluated[members]]
    assert len(warmup) == 64
    forest = IsolationForest(random_state=3).fit(values[warmup])
    scores = Forest(stream, stream.sensor, 3).score(stream.sensor, values)
    np.testing.assert_array_equal(scores[members], -forest.score_samples(values[members]))


def test_running_z_by_hand():
    """The running z-score is the mean square in standard deviations of what came before; missing cells take no part."""
    values = np.array([[1, 1], [3, np.nan], [5, 2], [2, np.nan]], np.float64)
    scores = RunningZ().score(np.zeros(4, np.int64), values)
    assert scores[:2].tolist() == [0, 0]  # no variance yet
    assert scores[2] == (5 - 2) ** 2 / 1  # 1, 3: mean 2, variance 1; the other column has no variance
    assert scores[3] == pytest.approx((2 - 3) ** 2 / np.var([1, 3, 5]))


def test_missing_cells_are_survived(stream):
    """Readings that are missing, in a row or from the beginning, leave all scores finite."""
    values = stream.values(0, 400)
    values[::3, 0] = np.nan
    values[:, 2] = np.nan
    broken = Stream([drawn()], warmup=None, default_warmup=64)
    broken.recordings[0].values[:] = values
    for baseline in (HalfSpace(0), Forest(broken, broken.sensor, 0), RunningZ()):
        assert np.isfinite(baseline.score(broken.sensor, values)).all()


def test_names_are_checked(monkeypatch):
    """An unknown baseline is refused with those there are; without scikit-learn the forest says what to install."""
    check(["hst", "iforest", "zscore"])
    with pytest.raises(ValueError, match="hst, iforest, zscore"):
        check(["lof"])
    monkeypatch.setattr(baselines, "find_spec", lambda name: None if name == "sklearn" else importlib.util.find_spec)
    check(["hst", "zscore"])
    with pytest.raises(SettingsError, match="scikit-learn") as caught:
        check(["iforest"])
    assert "stream-ad[bench]" in caught.value.hint
