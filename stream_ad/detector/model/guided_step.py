"""One training step on the label-guided loss, by torch's autograd: the only step on the CPU that needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from stream_ad.detector.model import losses
from stream_ad.detector.model.device import run_torch_callbacks, to_device, to_numpy

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray
    from torch import Tensor

    from stream_ad.detector.config import LossConfig
    from stream_ad.detector.model.device import Device
    from stream_ad.detector.model.model_stack import Numbers, Stack
    from stream_ad.detector.model.training_batch import Batch, Inputs

run_torch_callbacks()


@dataclass(frozen=True, slots=True, eq=False)
class AnomalyBatch:
    """Labelled anomalies that a step pushes the models away from."""

    batch: Batch
    weight: NDArray[np.float64]  # (A, B) weights of the events, 0 leaves one out
    lam: NDArray[np.float64]  # (A,) lambda of each model
    variance: Numbers  # (A, 1 or B, d) usual squared errors of the inputs


def apply_gradient(
    stack: Stack,
    models: NDArray[np.int64],
    base: Inputs,
    weight: NDArray[np.float64],
    loss_of: LossConfig,
    device: Device,
    *,
    anomaly_batch: AnomalyBatch | None,
    variance: Numbers | None,
) -> NDArray[np.float64]:
    """Take one training step of some models.

    Args:
        stack: All models.
        models: (A,) different models.
        base: (A, B) normal events.
        weight: (A, B) weights of the normal events, 0 leaves one out.
        loss_of: Settings of the loss.
        device: Device of the stack.
        anomaly_batch: Labelled anomalies (A, B), if any.
        variance: (A, 1 or B, d) usual squared errors of the normal events, if the loss has a score penalty.

    Returns:
        (A,) losses before the step.
    """

    def tensor(array: Numbers) -> Tensor:
        return torch.as_tensor(to_device(array, device) if isinstance(array, np.ndarray) else array)

    normal_weight, inputs, mask = tensor(weight), tensor(base.inputs), tensor(base.weights)
    normals = inputs.shape[1]
    event_weight = normal_weight
    if anomaly_batch is not None:
        anomaly_weight = tensor(anomaly_batch.weight)
        anomaly_mask = tensor(anomaly_batch.batch.weights)
        inputs = torch.cat([inputs, tensor(anomaly_batch.batch.inputs)], dim=1)  # (A, 2B, d)
        mask = torch.cat([mask, anomaly_mask], dim=1)
        event_weight = torch.cat([normal_weight, anomaly_weight], dim=1)

    def native(numbers: Tensor) -> Any:
        return to_numpy(numbers.contiguous()) if device == "cpu" else numbers

    reconstructed = tensor(stack.reconstruct_grid(models, native(inputs))).requires_grad_()
    squares = (inputs - reconstructed) ** 2
    own_squares = squares[:, :normals]
    normal_loss = losses.per_event(losses.amplify(own_squares) if loss_of.amplify else own_squares, mask[:, :normals])
    if anomaly_batch is None:
        loss = losses.guided_loss(normal_loss, normal_loss, torch.zeros_like(normal_weight), normal_weight, 1.0)
    else:
        anomalous = torch.cat([torch.zeros_like(normal_weight), torch.ones_like(anomaly_weight)], dim=1)
        away = _anomaly_errors(
            anomaly_batch,
            reconstructed[:, normals:],
            tensor(anomaly_batch.batch.scaled),
            tensor(anomaly_batch.variance),
            loss_of,
        )
        anomaly_loss = losses.per_event(away, anomaly_mask)
        padding = torch.zeros_like(anomaly_loss)
        lam = tensor(anomaly_batch.lam)[:, None]
        loss = losses.guided_loss(
            torch.cat([normal_loss, padding], 1), torch.cat([padding, anomaly_loss], 1), anomalous, event_weight, lam
        ) * losses.guided_scale(anomalous, event_weight, lam)
    if variance is not None:
        scores = losses.per_event(own_squares / tensor(variance), mask[:, :normals])
        loss = loss + loss_of.score_penalty * losses.score_penalty(scores, (normal_weight > 0).float())
    (slope,) = torch.autograd.grad(loss.sum(), reconstructed)
    stack.apply_gradient(models, native(inputs), native(slope))
    return np.asarray(to_numpy(loss), np.float64)


def _anomaly_errors(
    anomaly_batch: AnomalyBatch, reconstructed: Tensor, scaled: Tensor, variance: Tensor, loss_of: LossConfig
) -> Tensor:
    """Return (A, B, d) squared distances of the reconstructions from the targets of labelled anomalies.

    Args:
        anomaly_batch: The anomalies (A, B).
        reconstructed: (A, B, d) reconstructions.
        scaled: (A, B, d) inputs, not clipped.
        variance: (A, 1 or B, d) usual squared errors.
        loss_of: Settings of the loss, with the form of the target.
    """
    if loss_of.guide == "away":
        target, inputs = losses.away_target(scaled, reconstructed, variance)
        return (target - reconstructed) ** 2 * inputs
    return (losses.anomaly_target(torch.as_tensor(anomaly_batch.batch.inputs), loss_of.guide) - reconstructed) ** 2
