"""Ridge logistic regression of few labelled events on many inputs, with leave-one-out log odds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from stream_ad.detector.model.device import run_torch_callbacks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

run_torch_callbacks()
NEWTON_STEPS, HALVINGS = 2, 6  # the fit starts near its end, and a step that does not improve is halved
LEAST_FREE = 1e-3  # floor of 1 less the leverage of an event, which ``left_out`` divides by


def fit_ridge(
    x: NDArray[np.float64],
    y: NDArray[np.bool_],
    weight: NDArray[np.float64],
    offset: NDArray[np.float64],
    penalty: NDArray[np.float64],
    start: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return (K,) weights of a ridge logistic regression, improved from ``start`` by a few damped Newton steps.

    Args:
        x: (n, K) inputs.
        y: (n,) which events are anomalies.
        weight: (n,) weight of each event.
        offset: (n,) log odds that are known without ``x``.
        penalty: (K,) penalty of half the square of each weight.
        start: (K,) weights to start from.
    """
    inputs, target, share = torch.from_numpy(x), torch.from_numpy(y).double(), torch.from_numpy(weight)
    ridge, beta = torch.from_numpy(penalty), torch.from_numpy(start)
    margin = torch.from_numpy(offset) + inputs @ beta

    def cost(margin: Tensor, beta: Tensor) -> float:
        fit = share * (F.softplus(margin) - target * margin)
        return float(fit.sum() + 0.5 * (ridge * beta**2).sum())

    best = cost(margin, beta)
    for _ in range(NEWTON_STEPS):
        p = torch.sigmoid(margin)
        gradient = inputs.T @ (share * (p - target)) + ridge * beta
        step = torch.cholesky_solve(gradient[:, None], _root(inputs, share * p * (1 - p), ridge))[:, 0]
        along, length = inputs @ step, 1.0
        for _ in range(HALVINGS):
            reached = cost(margin - length * along, beta - length * step)
            if reached < best:
                break
            length /= 2
        else:
            break
        beta, margin, best = beta - length * step, margin - length * along, reached
    result: NDArray[np.float64] = beta.numpy()
    return result


def curvature(
    x: NDArray[np.float64],
    weight: NDArray[np.float64],
    offset: NDArray[np.float64],
    penalty: NDArray[np.float64],
    beta: NDArray[np.float64],
) -> Tensor:
    """Return (K, K) the lower Cholesky factor of the Hessian at ``beta`` (K,), the result of ``fit_ridge``.

    Args:
        x: (n, K) as in ``fit_ridge``.
        weight: (n,) as in ``fit_ridge``.
        offset: (n,) as in ``fit_ridge``.
        penalty: (K,) as in ``fit_ridge``.
        beta: (K,) fitted weights.
    """
    inputs = torch.from_numpy(x)
    p = torch.sigmoid(torch.from_numpy(offset) + inputs @ torch.from_numpy(beta))
    return _root(inputs, torch.from_numpy(weight) * p * (1 - p), torch.from_numpy(penalty))


def left_out(
    x: NDArray[np.float64],
    y: NDArray[np.bool_],
    weight: NDArray[np.float64],
    offset: NDArray[np.float64],
    beta: NDArray[np.float64],
    root: Tensor,
) -> NDArray[np.float64]:
    """Return (n,) the log odds of each event in a fit without it, to first order.

    One Newton step from the fit with all events (D. Pregibon, "Logistic regression diagnostics", Ann. Stat. 1981):
    it takes back what the pull of the event itself, weight times residual, has moved along its leverage. The
    approximation fails for events of a leverage near 1.

    Args:
        x: (n, K) all events of the fit, or some of them.
        y: (n,) which events are anomalies.
        weight: (n,) weight of each event in the fit.
        offset: (n,) offset in the fit, which is part of the log odds.
        beta: (K,) result of ``fit_ridge``.
        root: (K, K) ``curvature`` at ``beta``.
    """
    inputs, share = torch.from_numpy(x), torch.from_numpy(weight)
    margin = torch.from_numpy(offset) + inputs @ torch.from_numpy(beta)
    p = torch.sigmoid(margin)
    bend = share * p * (1 - p)
    leverage = (torch.linalg.solve_triangular(root, inputs.T, upper=False) ** 2).sum(dim=0)
    pull = share * (torch.from_numpy(y).double() - p)
    result: NDArray[np.float64] = (margin - leverage * pull / (1 - leverage * bend).clamp(min=LEAST_FREE)).numpy()
    return result


def evidence(
    penalty: NDArray[np.float64],
    beta: NDArray[np.float64],
    root: Tensor,
    groups: Sequence[slice],
    usual: float,
) -> NDArray[np.float64]:
    """Return (G,) the penalty of each group of weights, one step nearer to the largest evidence.

    The number of weights that the events determine, divided by the sum of their squares (D. J. C. MacKay, "Bayesian
    interpolation", Neural Computation 1992), as if one more weight of the usual size had been seen.

    Args:
        penalty: (K,) penalties in the fit.
        beta: (K,) result of ``fit_ridge``.
        root: (K, K) ``curvature`` at ``beta``.
        groups: G groups of weights whose sizes are alike.
        usual: Penalty of a group without information.
    """
    # The share of each weight that the penalty determines.
    free = (torch.from_numpy(penalty) * torch.cholesky_inverse(root).diagonal()).numpy()
    return np.array([((1 - free[g]).sum() + 1) / ((beta[g] ** 2).sum() + 1 / usual) for g in groups])


def _root(inputs: Tensor, bend: Tensor, ridge: Tensor) -> Tensor:
    """Return (K, K) the lower Cholesky factor of the Hessian, for inputs (n, K), curvatures (n,) and penalties (K,)."""
    return torch.linalg.cholesky((inputs * bend[:, None]).T @ inputs + torch.diag(ridge))
