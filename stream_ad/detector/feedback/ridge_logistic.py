"""Ridge logistic regression of few labelled events on many inputs, and what it would say of events it had not seen."""

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
NEWTON_STEPS, HALVINGS = 2, 6
LEAST_FREE = 1e-3  # share of an event's own weight that leaves it out divides by


def fit_ridge(
    x: NDArray[np.float64],
    y: NDArray[np.bool_],
    weight: NDArray[np.float64],
    offset: NDArray[np.float64],
    penalty: NDArray[np.float64],
    start: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Weights of a ridge logistic regression, improved from ``start`` by a few damped Newton steps.

    Args:
        x: (n, K).
        y: (n,).
        weight: (n,) of each event.
        offset: (n,) log odds that are known without ``x``.
        penalty: (K,) of each squared weight, halved.
        start: (K,).
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
            found = cost(margin - length * along, beta - length * step)
            if found < best:
                break
            length /= 2
        else:
            break
        beta, margin, best = beta - length * step, margin - length * along, found
    result: NDArray[np.float64] = beta.numpy()
    return result


def curvature(
    x: NDArray[np.float64],
    weight: NDArray[np.float64],
    offset: NDArray[np.float64],
    penalty: NDArray[np.float64],
    beta: NDArray[np.float64],
) -> Tensor:
    """(K, K) lower Cholesky factor of the Hessian at ``beta``, which ``fit_ridge`` gave; arguments as of that."""
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
    """(n,) log odds that a fit without it would give each event, to the first order (D. Pregibon, Ann. Stat. 1981).

    One Newton step from the fit with all events: what the event's own pull, weight times residual, has moved along its
    own leverage is taken back.

    Args:
        x: (n, K) all events of the fit, or some.
        y: (n,).
        weight: (n,) in the fit.
        offset: (n,) in the fit; part of the log odds.
        beta: (K,) what ``fit_ridge`` gave.
        root: The ``curvature`` there.
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
    """(G,) the penalty under which the weights of each group are as large as one would expect them to be.

    One step towards the greatest evidence (D. J. C. MacKay, Neural Computation 1992): the number of weights that the
    events determine, by the sum of the squares of all; as if one more had been seen, of the usual size.

    Args:
        penalty: (K,) in the fit.
        beta: (K,) what ``fit_ridge`` gave.
        root: The ``curvature`` there.
        groups: Of weights that are of the same size, as far as is known.
        usual: Penalty of a group that nothing is known of.
    """
    # The share of each weight that the penalty determines.
    free = (torch.from_numpy(penalty) * torch.cholesky_inverse(root).diagonal()).numpy()
    return np.array([((1 - free[g]).sum() + 1) / ((beta[g] ** 2).sum() + 1 / usual) for g in groups])


def _root(inputs: Tensor, bend: Tensor, ridge: Tensor) -> Tensor:
    """(K, K) lower Cholesky factor of the Hessian."""
    return torch.linalg.cholesky((inputs * bend[:, None]).T @ inputs + torch.diag(ridge))
