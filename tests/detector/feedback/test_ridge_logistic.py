"""Ridge logistic regression, and what it would say of events it had not seen."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from stream_ad.detector.feedback.ridge_logistic import curvature, evidence, fit_ridge, left_out

RIDGE = 3.0
STEEP, FLAT = 5, 10


def problem(rng, count=200, inputs=5):
    x = np.hstack([rng.normal(size=(count, inputs)), np.ones((count, 1))])
    offset = rng.normal(size=count)
    y = x[:, 0] + 0.5 * offset + rng.normal(size=count) > 1
    return x, y, rng.uniform(0.5, 2, count), offset, np.r_[np.full(inputs, RIDGE), 1e-2]


def settled(x, y, weight, offset, penalty):
    beta = np.zeros(x.shape[1])
    for _ in range(8):
        beta = fit_ridge(x, y, weight, offset, penalty, beta)
    return beta


def test_fit_is_the_ridge_regression():
    """Enough steps reach the minimum that a general optimiser finds; no step makes it worse."""
    x, y, weight, offset, penalty = problem(np.random.default_rng(1))

    def cost(beta):
        margin = offset + x @ beta
        return (weight * (np.logaddexp(0, margin) - y * margin)).sum() + 0.5 * (penalty * beta**2).sum()

    beta, costs = np.zeros(6), [cost(np.zeros(6))]
    for _ in range(6):
        beta = fit_ridge(x, y, weight, offset, penalty, beta)
        costs.append(cost(beta))
    assert costs == pytest.approx(sorted(costs, reverse=True), abs=1e-9)
    assert beta == pytest.approx(optimize.minimize(cost, np.zeros(6)).x, abs=1e-3)


def test_left_out_is_a_fit_without_the_event():
    """Close to the log odds of a fit on all other events, and far from those of the fit that saw it."""
    x, y, weight, offset, penalty = problem(np.random.default_rng(2), count=80, inputs=30)
    beta = settled(x, y, weight, offset, penalty)
    root, truth = curvature(x, weight, offset, penalty, beta), np.empty(80)
    results = left_out(x, y, weight, offset, beta, root)
    for event in range(80):
        rest = np.arange(80) != event
        truth[event] = offset[event] + x[event] @ settled(x[rest], y[rest], weight[rest], offset[rest], penalty)
    seen = np.abs(offset + x @ beta - truth).mean()
    assert np.abs(results - truth).mean() < 0.15 * seen


def test_left_out_is_its_formula():
    """Number by number what NumPy makes of the formula."""
    x, y, weight, offset, penalty = problem(np.random.default_rng(3), count=40, inputs=12)
    beta = settled(x, y, weight, offset, penalty)
    p = 1 / (1 + np.exp(-offset - x @ beta))
    bend = weight * p * (1 - p)
    leverage = np.einsum("nk,kj,nj->n", x, np.linalg.inv(x.T @ (x * bend[:, None]) + np.diag(penalty)), x)
    expected = offset + x @ beta - leverage * weight * (y - p) / (1 - leverage * bend)
    root = curvature(x, weight, offset, penalty, beta)
    np.testing.assert_allclose(left_out(x, y, weight, offset, beta, root), expected, rtol=1e-9)
    np.testing.assert_allclose(left_out(x[9:], y[9:], weight[9:], offset[9:], beta, root), expected[9:], rtol=1e-9)


def test_evidence_is_its_formula():
    """Number by number what NumPy makes of it, and in the end the weights are as large as their penalty says."""
    x, y, weight, offset, penalty = problem(np.random.default_rng(4), count=150, inputs=12)
    groups = slice(0, 4), slice(4, 12)
    for _ in range(50):
        beta = settled(x, y, weight, offset, penalty)
        p = 1 / (1 + np.exp(-offset - x @ beta))
        spread = np.diag(np.linalg.inv(x.T @ (x * (weight * p * (1 - p))[:, None]) + np.diag(penalty)))
        results = evidence(penalty, beta, curvature(x, weight, offset, penalty, beta), groups, 3.0)
        for ridge, g in zip(results, groups, strict=True):
            expected = (beta[g].size - (penalty[g] * spread[g]).sum() + 1) / ((beta[g] ** 2).sum() + 1 / 3)
            assert ridge == pytest.approx(expected)
            penalty[g] = ridge
    assert penalty[0] < STEEP
    assert penalty[4] > FLAT  # the first input of the first group tells, those of the second do not
