"""The losses the autoencoder learns from: pure functions of tensors.

- Label-guided reconstruction: F. Angiulli, F. Fassetti, L. Ferragina, "Reconstruction error-based
  anomaly detection with few outlying examples" (AE-SAD), arXiv 2305.10464.
- Amplification: "LAMP: improving anomaly detection through amplified loss", arXiv 2308.14595.
- Score penalty: the mean squared anomaly score, as in fusionlab's ``anomaly_loss``.

Shapes: B events of d inputs each, any number of leading axes (a stack of models) before them.
Inputs lie in [0, 1]; a missing input has mask 0, adds nothing and gets no gradient.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

AMPLIFY_LIMIT = 0.99
AWAY_SD = 5.0


def anomaly_target(x: Tensor, form: Literal["f0", "f1", "f2"]) -> Tensor:
    """AE-SAD's target F(x) of a labelled anomaly: something in [0, 1] that is not x.

    ``f0``: 1 - x (no margin where x is near .5); ``f1``: 1 where x <= .5, else 0; ``f2``: x moved by
    half the interval, so that F(x) and x are .5 apart everywhere.

    Args:
        x: Any shape, in [0, 1].
    """
    low = x <= 0.5
    if form == "f0":
        return 1 - x
    if form == "f1":
        return low.to(x.dtype)
    return torch.where(low, x + 0.5, x - 0.5)


def away_target(x: Tensor, reconstructed: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """A target away from the present reconstruction that saturates, and the weight of each input.

    F(x)_j = clip(x_j - sign(e_j) max(|e_j|, 5 sd_j), 0, 1) with e = x - rebuilt: an input that is off
    already by 5 standard deviations of its usual error has no loss left. The weight
    f = q / (q + 4), q = e² / variance, pushes only what stands out, where plain F pushes
    everything and ruins the reconstruction of normal events beside it.

    Args:
        x: (…, B, d) the inputs; may reach past [0, 1].
        rebuilt: (…, B, d) the present reconstruction, taken as a constant.
        variance: (…, 1, d) usual squared error of each input, above 0.

    Returns:
        (…, B, d) target in [0, 1]; (…, B, d) weight in [0, 1). Neither carries a gradient.
    """
    with torch.no_grad():
        error = x - reconstructed
        distance = torch.maximum(error.abs(), AWAY_SD * variance.sqrt())
        target = (x - torch.sign(error) * distance).clamp(0, 1)
        q = error**2 / variance
        return target, q / (q + 4)


def amplify(loss: Tensor) -> Tensor:
    """LAMP: -log(1 - loss), elementwise, for losses of 0 and above.

    From .99 on it continues as its tangent, 4.605… + 100 (loss - .99): the formula itself is
    infinite at 1 and undefined above, an added epsilon gives gradients of 10⁶, and clamping gives
    none to the worst elements.
    """
    below = loss < AMPLIFY_LIMIT
    inner = torch.where(below, loss, torch.zeros_like(loss))  # keeps NaN out of the branch not taken
    tangent = -math.log1p(-AMPLIFY_LIMIT) + (loss - AMPLIFY_LIMIT) / (1 - AMPLIFY_LIMIT)
    return torch.where(below, -torch.log1p(-inner), tangent)


def per_event(squares: Tensor, weight: Tensor) -> Tensor:
    """(…, B) weighted mean over the inputs; 0 where an event has none.

    Args:
        squares: (…, B, d).
        weight: (…, B, d), 0 where missing.
    """
    return (squares * weight).sum(-1) / weight.sum(-1).clamp_min(1e-12)


def guided_loss(normal: Tensor, guided: Tensor, anomalous: Tensor, weight: Tensor, lam: Tensor | float) -> Tensor:
    """AE-SAD: sum of w [(1 - y) normal + y lambda guided] over the events, divided by the sum of w.

    Dividing by the weights and not by the number of events keeps the size of a step independent
    of the mix.

    Args:
        normal: (…, B) mean of A(|x - x̂|²), what an event costs as a normal one.
        guided: (…, B) mean of |F(x) - x̂|², what it costs as an anomaly.
        anomalous: (…, B) y, 1 for labelled anomalies.
        weight: (…, B) w, class importance; 0 leaves an event out.
        lam: lambda = alpha / odds of an anomaly; a number or (…, 1).

    Returns:
        (…,) 0 where no event has weight.
    """
    each = torch.where(anomalous > 0, lam * guided, normal)
    return (weight * each).sum(-1) / weight.sum(-1).clamp_min(1e-12)


def plain_slope(x: Tensor, reconstructed: Tensor, weight: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """``guided_loss`` where no event is an anomaly and nothing is amplified: slope and loss in few operations.

    Nearly all steps are of this kind; a test holds it to autograd.

    Args:
        x: (…, B, d).
        rebuilt: (…, B, d).
        weight: (…, B) w.
        inputs: (…, B, d) weight of each input, 0 where missing.

    Returns:
        (…, B, d) slope of the loss with respect to the reconstruction; (…,) the loss.
    """
    share = weight / (weight.sum(-1, keepdim=True).clamp_min(1e-12) * inputs.sum(-1).clamp_min(1e-12))
    error = reconstructed - x
    slope = error * inputs
    slope *= share.unsqueeze(-1)
    loss = (slope * error).sum((-1, -2))
    return slope.mul_(2), loss


def guided_scale(anomalous: Tensor, weight: Tensor, lam: Tensor | float) -> Tensor:
    """(…,) what ``guided_loss`` is multiplied with so that a large lambda cannot lengthen the step.

    The sum of w divided by the sum of w [(1 - y) + y lambda]: without it a rare class makes
    gradients a hundred times as long, and Adam's second moment then stalls everything else.
    """
    balance = torch.where(anomalous > 0, lam * weight, weight).sum(-1)
    return weight.sum(-1) / balance.clamp_min(1e-12)


def score_penalty(scores: Tensor, weight: Tensor) -> Tensor:
    """(…,) mean squared anomaly score of the events taken as normal; 0 where there is none.

    Args:
        scores: (…, B) anomaly scores, part of the graph.
        weight: (…, B) 1 for events taken as normal, else 0.
    """
    return (weight * scores**2).sum(-1) / weight.sum(-1).clamp_min(1e-12)
