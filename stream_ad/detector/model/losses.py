"""Losses of the autoencoder: pure functions of tensors.

- Label-guided reconstruction: F. Angiulli, F. Fassetti, L. Ferragina, "Reconstruction error-based
  anomaly detection with few outlying examples" (AE-SAD), arXiv 2305.10464.
- Amplification: "LAMP: improving anomaly detection through amplified loss", arXiv 2308.14595.
- Score penalty: the mean squared anomaly score, as in fusionlab's ``anomaly_loss``.

Shapes: M models, B events of d inputs for each. The first axis may be absent, or there may be several in its place.
Inputs lie in [0, 1]; a missing input has weight 0, adds nothing to the loss and gets no gradient.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

AMPLIFY_LIMIT = 0.99  # loss from which on ``amplify`` continues as its tangent, of slope 100
AWAY_SD = 5.0  # standard deviations of the usual error at which a labelled anomaly has no loss left


def anomaly_target(x: Tensor, form: Literal["f0", "f1", "f2"]) -> Tensor:
    """Return the target F(x) of a labelled anomaly (AE-SAD): something in [0, 1] that is not x.

    ``f0``: 1 - x, which fails where x is near .5; ``f1``: 1 where x <= .5, else 0; ``f2``: x moved by half the
    interval, so that F(x) and x are .5 apart everywhere.

    Args:
        x: (M, B, d) inputs in [0, 1].
        form: Which of the three.

    Returns:
        (M, B, d) targets in [0, 1].
    """
    low = x <= 0.5
    if form == "f0":
        return 1 - x
    if form == "f1":
        return low.to(x.dtype)
    return torch.where(low, x + 0.5, x - 0.5)


def away_target(x: Tensor, reconstructed: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Return a saturating target away from the present reconstruction, and the weight of each input.

    F(x)_j = clip(x_j - sign(e_j) max(|e_j|, 5 sd_j), 0, 1) with e = x - reconstructed: an input whose error is already
    5 standard deviations of the usual error has no loss left. The weight f = q / (q + 4), q = e² / variance, pushes
    only inputs that stand out; plain F pushes all inputs and ruins the reconstruction of normal events.

    It fails on anomalies that are reconstructed well: no input stands out, and nothing is pushed.

    Args:
        x: (M, B, d) inputs; may lie outside [0, 1].
        reconstructed: (M, B, d) present reconstruction, taken as a constant.
        variance: (M, 1, d) usual squared error of each input, above 0.

    Returns:
        (M, B, d) target in [0, 1]; (M, B, d) weight in [0, 1). Neither carries a gradient.
    """
    with torch.no_grad():
        error = x - reconstructed
        distance = torch.maximum(error.abs(), AWAY_SD * variance.sqrt())
        target = (x - torch.sign(error) * distance).clamp(0, 1)
        q = error**2 / variance
        return target, q / (q + 4)


def amplify(loss: Tensor) -> Tensor:
    """Return the amplified loss -log(1 - loss), elementwise (LAMP).

    From .99 on it continues as its tangent, 4.605... + 100 (loss - .99): the formula itself is infinite at 1 and
    undefined above, an added epsilon gives gradients of 10⁶, and clamping gives no gradient to the worst elements.

    Args:
        loss: (M, B, d) losses of 0 and above.

    Returns:
        (M, B, d) amplified losses of 0 and above.
    """
    below = loss < AMPLIFY_LIMIT
    inner = torch.where(below, loss, torch.zeros_like(loss))  # keeps NaN out of the branch not taken
    tangent = -math.log1p(-AMPLIFY_LIMIT) + (loss - AMPLIFY_LIMIT) / (1 - AMPLIFY_LIMIT)
    return torch.where(below, -torch.log1p(-inner), tangent)


def per_event(squares: Tensor, weight: Tensor) -> Tensor:
    """Return (M, B) the weighted mean over the inputs of each event; 0 for an event without inputs.

    Args:
        squares: (M, B, d) squared errors.
        weight: (M, B, d) weight of each input, 0 where missing.
    """
    return (squares * weight).sum(-1) / weight.sum(-1).clamp_min(1e-12)


def guided_loss(normal: Tensor, guided: Tensor, anomalous: Tensor, weight: Tensor, lam: Tensor | float) -> Tensor:
    """Return the sum of w [(1 - y) normal + y lambda guided] over the events, divided by the sum of w (AE-SAD).

    Dividing by the weights and not by the number of events keeps the size of a step independent of the mix.

    Args:
        normal: (M, B) mean of A(|x - x̂|²), the loss of an event as a normal one.
        guided: (M, B) mean of |F(x) - x̂|², the loss of an event as an anomaly.
        anomalous: (M, B) y, 1 for labelled anomalies, else 0.
        weight: (M, B) w, class importance; 0 leaves an event out.
        lam: lambda = alpha / odds of an anomaly; a number or (M, 1).

    Returns:
        (M,) losses of the models, 0 where no event has weight.
    """
    each = torch.where(anomalous > 0, lam * guided, normal)
    return (weight * each).sum(-1) / weight.sum(-1).clamp_min(1e-12)


def plain_slope(x: Tensor, reconstructed: Tensor, weight: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return slope and value of ``guided_loss`` without anomalies and amplification, in few operations.

    Nearly all steps are of this kind; a test compares it with autograd.

    Args:
        x: (M, B, d) inputs in [0, 1].
        reconstructed: (M, B, d) reconstructions.
        weight: (M, B) w, weights of the events.
        inputs: (M, B, d) weight of each input, 0 where missing.

    Returns:
        (M, B, d) slope of the loss with respect to the reconstruction; (M,) the loss.
    """
    share = weight / (weight.sum(-1, keepdim=True).clamp_min(1e-12) * inputs.sum(-1).clamp_min(1e-12))
    error = reconstructed - x
    slope = error * inputs
    slope *= share.unsqueeze(-1)
    loss = (slope * error).sum((-1, -2))
    return slope.mul_(2), loss


def guided_scale(anomalous: Tensor, weight: Tensor, lam: Tensor | float) -> Tensor:
    """Return (M,) the factor of ``guided_loss`` that keeps a large lambda from lengthening the step.

    The sum of w divided by the sum of w [(1 - y) + y lambda]: without it a rare class makes gradients a hundred times
    as long, and Adam's second moment then stalls everything else.

    Args:
        anomalous: (M, B) as in ``guided_loss``.
        weight: (M, B) as in ``guided_loss``.
        lam: As in ``guided_loss``.
    """
    balance = torch.where(anomalous > 0, lam * weight, weight).sum(-1)
    return weight.sum(-1) / balance.clamp_min(1e-12)


def score_penalty(scores: Tensor, weight: Tensor) -> Tensor:
    """Return (M,) the mean squared anomaly score of the events taken as normal; 0 without such events.

    Args:
        scores: (M, B) anomaly scores, part of the graph; higher is more unusual.
        weight: (M, B) 1 for events taken as normal, else 0.
    """
    return (weight * scores**2).sum(-1) / weight.sum(-1).clamp_min(1e-12)
