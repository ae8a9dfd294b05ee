"""The stack of autoencoders in torch's operations: used on a GPU, and the reference of the compiled one.

All sizes are multiples of 8, and so must be the number of rows: then the result of a row does not depend on the rows
computed with it, bit for bit (tests/detector/model/test_autoencoder.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stream_ad.detector.model import losses
from stream_ad.detector.model.device import run_torch_callbacks, to_device
from stream_ad.detector.model.model_stack import BETA1, BETA2, EPSILON, SLOPE, STEPS_TO_FULL, PlainBatch, Stack
from stream_ad.kernels.jit import cumcount

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.detector.model.device import Device

run_torch_callbacks()
ROW_UNIT = 8  # rows per model come in multiples of this: torch's products then round alike


class Autoencoder(Stack):
    """A stack of M models of one shape, on one device."""

    def __init__(self, width: int, *, device: Device, rate: float) -> None:
        self.device = device
        super().__init__(width, rate=rate)

    def to_numbers(self, array: NDArray[Any]) -> Tensor:
        """Return an array of any shape, such as (M, P), as a tensor on the device."""
        return torch.from_numpy(array).to(self.device)

    def _room_for(self, models: int, like: Tensor) -> Tensor:
        return torch.empty((models, like.shape[1]), dtype=like.dtype, device=self.device)

    def to_array(self, numbers: Tensor) -> NDArray[Any]:
        """Return a tensor of any shape, such as (M, P), as a NumPy array."""
        return numbers.cpu().numpy()

    def forward(self, flat: Tensor, x: Tensor) -> list[Tensor]:
        """Return the activations of all layers, (M, R, units) each: the input first, the reconstruction last.

        Args:
            flat: (M, P) parameters, one row per model.
            x: (M, R, d) inputs, with R a multiple of 8.
        """
        states = [x]
        for layer in self.layers[:-1]:
            weight, bias = layer.of(flat)
            states.append(F.leaky_relu_(torch.baddbmm(bias, states[-1], weight), SLOPE))  # (M, R, hidden)
        weight, bias = self.layers[-1].of(flat)
        states.append(torch.sigmoid_(torch.baddbmm(bias, states[-1], weight)))  # (M, R, d)
        return states

    def backward(self, flat: Tensor, states: list[Tensor], slope: Tensor) -> Tensor:
        """Return (M, P) the gradient of a loss.

        Written out because recording these few operations costs autograd more than computing them; a test compares it
        with autograd.

        Args:
            flat: (M, P) parameters.
            states: Activations from ``forward``, (M, R, units) each.
            slope: (M, R, d) slope of the loss with respect to the reconstruction.
        """
        gradient = torch.empty_like(flat)
        gradient[:, self.layers[-1].stop :] = 0  # padding behind the last layer
        delta = torch.ops.aten.sigmoid_backward(slope, states[-1])
        for number in range(len(self.layers) - 1, -1, -1):
            layer = self.layers[number]
            weight, _ = layer.of(flat)
            into, bias = layer.of(gradient)
            into.copy_(torch.bmm(states[number].transpose(1, 2), delta))
            bias.copy_(delta.sum(1, keepdim=True))
            if number:
                delta = torch.bmm(delta, weight.transpose(1, 2))
                delta = torch.ops.aten.leaky_relu_backward(delta, states[number], SLOPE, self_is_result=True)
        return gradient

    def models(self, which: NDArray[np.int64]) -> Tensor:
        """Return (A, P) the parameters of the models (A,); a view if these are all models in order."""
        if self._all(which):
            return self.flat[: self.size]
        return self.flat[torch.from_numpy(which).to(self.device)]

    def _all(self, which: NDArray[np.int64]) -> bool:
        return len(which) == self.size and bool((which == np.arange(self.size)).all())

    def step(self, which: NDArray[np.int64], gradient: Tensor) -> None:
        """Take one step of Adam on some models.

        Args:
            which: (A,) different models.
            gradient: (A, P) gradients.
        """
        if self._all(which):
            own: slice | Tensor = slice(0, self.size)
        else:
            own = torch.from_numpy(which).to(self.device)
        steps, first, second = self.steps[own] + 1, self.first[own], self.second[own]  # copies, unless all
        first.lerp_(gradient, 1 - BETA1)
        second.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        # p -= rate (m / c1) / (sqrt(v / c2) + eps), with all factors that are constant within a model combined.
        at = steps.clamp_max(STEPS_TO_FULL) - 1
        root2 = self.root2[at]
        root = second.sqrt().add_(EPSILON * root2).mul_(self.correction1[at] / (self.rate * root2))
        flat = self.flat[own]
        flat.addcdiv_(first, root, value=-1)
        self.steps[own] = steps
        if not isinstance(own, slice):
            self.first[own], self.second[own], self.flat[own] = first, second, flat

    def reconstruct_grid(self, which: NDArray[np.int64], x: Tensor) -> Tensor:
        """Return (A, R, d) as ``Stack.reconstruct_grid``."""
        return self.forward(self.models(which), x)[-1]

    def reconstruct_events(self, models: NDArray[np.int64], scaled: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (N, d) as ``Stack.reconstruct_events``."""
        inputs, out = np.clip(scaled, 0, 1), np.empty_like(scaled)
        slot, count = np.empty_like(models), np.zeros(self.size, np.int64)
        cumcount(models, count, slot)
        # Models with few events are not padded to the length of the busiest: there is one grid per length.
        length = -(-count // ROW_UNIT) * ROW_UNIT
        for rows in np.unique(length[length > 0]).tolist():
            chosen = np.flatnonzero(length == rows)
            events = np.flatnonzero(length[models] == rows)
            at = np.searchsorted(chosen, models[events]), slot[events]
            grid = np.full((len(chosen), rows, self.width), 0.5, np.float32)
            grid[at] = inputs[events]
            out[events] = self.reconstruct_grid(chosen, torch.as_tensor(to_device(grid, self.device))).cpu().numpy()[at]
        return out

    def train_step(self, which: NDArray[np.int64], x: Tensor, weight: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return (A,) and (A, B, d) as ``Stack.train_step``."""
        flat = self.models(which)
        states = self.forward(flat, x)
        slope, loss = losses.plain_slope(x, states[-1], weight, inputs)
        self.step(which, self.backward(flat, states, slope))
        return loss, states[-1]

    def plain_steps(self, which: NDArray[np.int64], first: PlainBatch, second: PlainBatch) -> tuple[Tensor, Tensor]:
        """Return (A,) and (A, B, d) as ``Stack.plain_steps``."""
        loss, reconstructed = (kept.clone() for kept in self.train_step(which, *first))
        self.train_step(which, *second)
        return loss, reconstructed

    def apply_gradient(self, which: NDArray[np.int64], x: Tensor, slope: Tensor) -> None:
        """Take a step on a slope (A, R, d) as ``Stack.apply_gradient``."""
        flat = self.models(which)
        self.step(which, self.backward(flat, self.forward(flat, x), slope))
