"""Residuals between readings are those of a regression on the others, and show what breaks."""

from __future__ import annotations

import numpy as np
import pytest

from stream_ad.detector.features.linear_residuals import FIRST_EVENTS, LinearResiduals

FEATURES = 4
ONE = np.zeros(1, np.int64)


def readings(number, seed=0):
    """Standardised readings that two hidden causes drive, as the scaler would hand them over (padded to 16)."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(1).normal(size=(2, FEATURES))
    return rng.normal(size=(number, 2)) @ mix / np.sqrt((mix**2).sum(axis=0)) + 0.1 * rng.normal(
        size=(number, FEATURES)
    )


def scaled(z):
    out = np.full((len(z), 16), 0.5, np.float32)
    out[:, :FEATURES] = 0.5 + z / 8
    return out


def observed(z):
    out = np.zeros((len(z), 16), np.bool_)
    out[:, :FEATURES] = ~np.isnan(z)
    return out


def taught(number=4096):
    table = LinearResiduals(FEATURES)
    table.append(1)
    z = readings(number)
    for start in range(0, number, 32):
        batch = z[None, start : start + 32]
        table.update(ONE, scaled(batch[0])[None], observed(batch[0])[None], np.ones((1, 32), np.bool_))
    return table


def sizes(table, z):
    """(N, F) squared normalised residuals, as they enter Q."""
    instant, *_ = table.residuals(np.zeros(len(z), np.int64), scaled(np.nan_to_num(z)), observed(z))
    return instant


def test_weights_are_those_of_a_regression_on_the_other_readings():
    """Column k predicts reading k from the others as ridge regression does."""
    table, z = taught(), readings(4096)
    weights = table.weights[0].astype(np.float64)
    for k in range(FEATURES):
        others = np.delete(np.arange(FEATURES), k)
        x = z[:, others]
        fitted = np.linalg.solve(x.T @ x / len(x) + 0.05 * np.eye(3), x.T @ z[:, k] / len(x))
        assert weights[k, k] == pytest.approx(1)
        np.testing.assert_allclose(-weights[others, k], fitted, atol=0.02)


def test_broken_coupling_stands_out_within_the_usual_range():
    """A reading one standard deviation off its prediction is the largest residual, and far above the usual ones."""
    table, z = taught(), readings(200, seed=7)
    usual = sizes(table, z).sum(axis=1)
    for k in range(FEATURES):
        broken = z.copy()
        broken[:, k] += 1
        measured = sizes(table, broken)
        assert (measured.argmax(axis=1) == k).mean() > 0.9
        assert np.median(measured.sum(axis=1)) > 5 * np.quantile(usual, 0.9)


def test_missing_reading_is_no_anomaly_and_hides_none():
    """A missing reading adds nothing, changes the others' residuals little, and a fault beside it is still found."""
    table, z = taught(), readings(200, seed=7)
    gap = z.copy()
    gap[:, 1] = np.nan
    measured = sizes(table, gap)
    assert (measured[:, 1] == 0).all()
    assert measured.sum(axis=1).mean() < 2 * sizes(table, z).sum(axis=1).mean()
    gap[:, 3] += 3
    assert np.median(sizes(table, gap).sum(axis=1)) > 5 * np.median(measured.sum(axis=1))


def test_residuals_are_zero_before_there_is_a_covariance():
    """Few events make no covariance: residuals are 0 until then."""
    table, z = taught(FIRST_EVENTS - 32), readings(100, seed=7)
    assert (sizes(table, z) == 0).all()


def test_a_new_feature_leaves_the_couplings_of_the_others():
    """A sensor that shows a feature more keeps what is known of the others, wherever they stand now."""
    narrow, wide, positions = taught(), LinearResiduals(FEATURES + 1), np.array([0, 1, 3, 4])
    wide.append(1)
    wide.copy_row(narrow, 0, positions=positions)
    z = readings(50, seed=9)
    spread, seen = np.full((50, 16), 0.5, np.float32), np.zeros((50, 16), np.bool_)
    spread[:, positions], seen[:, positions] = scaled(z)[:, :FEATURES], True
    instant, *_ = wide.residuals(np.zeros(50, np.int64), spread, seen)
    np.testing.assert_allclose(instant[:, positions], sizes(narrow, z), rtol=1e-5)
