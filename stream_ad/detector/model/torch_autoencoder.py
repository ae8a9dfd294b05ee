"""The stacked autoencoder in torch's operations: on a GPU, and what the compiled one is held to.

All sizes are multiples of 8, and so must be the number of rows handed in: then a row's result does
not depend on what stands beside it, bit for bit (tests/detector/model/test_autoencoder.py).
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
ROW_UNIT = 8  # rows of a model handed to torch together come in multiples of this: its products then round alike


class Autoencoder(Stack):
    """A stack of models of one shape, on one device."""

    def __init__(self, width: int, *, device: Device, rate: float) -> None:
        self.device = device
        super().__init__(width, rate=rate)

    def to_numbers(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _room_for(self, models: int, like: Tensor) -> Tensor:
        return torch.empty((models, like.shape[1]), dtype=like.dtype, device=self.device)

    def to_array(self, numbers: Tensor) -> NDArray[Any]:
        return numbers.cpu().numpy()

    def forward(self, flat: Tensor, x: Tensor) -> list[Tensor]:
        """Activations of every layer, the input first and the reconstruction last.

        Args:
            flat: (M, P) parameters, one row per model.
            x: (M, R, d) with R a multiple of 8.
        """
        states = [x]
        for layer in self.layers[:-1]:
            weight, bias = layer.of(flat)
            states.append(F.leaky_relu_(torch.baddbmm(bias, states[-1], weight), SLOPE))  # (M, R, hidden)
        weight, bias = self.layers[-1].of(flat)
        states.append(torch.sigmoid_(torch.baddbmm(bias, states[-1], weight)))  # (M, R, d)
        return states

    def backward(self, flat: Tensor, states: list[Tensor], slope: Tensor) -> Tensor:
        """(M, P) gradient of a loss, given its slope with respect to the reconstruction (M, R, d).

        Written out because recording these few operations costs autograd more than computing them;
        a test holds it to autograd.
        """
        gradient = torch.empty_like(flat)
        gradient[:, self.layers[-1].stop :] = 0  # the filling behind the last layer
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
        """(len(which), P) parameters; the stack itself, uncopied, when all are asked for in order."""
        if self._all(which):
            return self.flat[: self.size]
        return self.flat[torch.from_numpy(which).to(self.device)]

    def _all(self, which: NDArray[np.int64]) -> bool:
        return len(which) == self.size and bool((which == np.arange(self.size)).all())

    def step(self, which: NDArray[np.int64], gradient: Tensor) -> None:
        """One step of Adam on some models.

        Args:
            which: (A,) different models.
            gradient: (A, P).
        """
        if self._all(which):
            own: slice | Tensor = slice(0, self.size)
        else:
            own = torch.from_numpy(which).to(self.device)
        steps, first, second = self.steps[own] + 1, self.first[own], self.second[own]  # copies, unless all
        first.lerp_(gradient, 1 - BETA1)
        second.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        # p -= rate (m / c1) / (sqrt(v / c2) + eps), with what does not vary inside a model taken together.
        at = steps.clamp_max(STEPS_TO_FULL) - 1
        root2 = self.root2[at]
        root = second.sqrt().add_(EPSILON * root2).mul_(self.correction1[at] / (self.rate * root2))
        flat = self.flat[own]
        flat.addcdiv_(first, root, value=-1)
        self.steps[own] = steps
        if not isinstance(own, slice):
            self.first[own], self.second[own], self.flat[own] = first, second, flat

    def reconstruct_grid(self, which: NDArray[np.int64], x: Tensor) -> Tensor:
        """As Stack.rebuild."""
        return self.forward(self.models(which), x)[-1]

    def reconstruct_events(self, models: NDArray[np.int64], scaled: NDArray[np.float32]) -> NDArray[np.float32]:
        """As Stack.reconstruct."""
        inputs, out = np.clip(scaled, 0, 1), np.empty_like(scaled)
        slot, count = np.empty_like(models), np.zeros(self.size, np.int64)
        cumcount(models, count, slot)
        # Models with few events are not padded to the length of the busiest: each length has its grid.
        length = -(-count // ROW_UNIT) * ROW_UNIT
        for rows in np.unique(length[length > 0]).tolist():
            chosen = np.flatnonzero(length == rows)
            mine = np.flatnonzero(length[models] == rows)
            at = np.searchsorted(chosen, models[mine]), slot[mine]
            grid = np.full((len(chosen), rows, self.width), 0.5, np.float32)
            grid[at] = inputs[mine]
            out[mine] = self.reconstruct_grid(chosen, torch.as_tensor(to_device(grid, self.device))).cpu().numpy()[at]
        return out

    def train_step(self, which: NDArray[np.int64], x: Tensor, weight: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """As Stack.plain_step."""
        flat = self.models(which)
        states = self.forward(flat, x)
        slope, loss = losses.plain_slope(x, states[-1], weight, inputs)
        self.step(which, self.backward(flat, states, slope))
        return loss, states[-1]

    def plain_steps(self, which: NDArray[np.int64], first: PlainBatch, second: PlainBatch) -> tuple[Tensor, Tensor]:
        """As Stack.plain_steps."""
        loss, reconstructed = (kept.clone() for kept in self.train_step(which, *first))
        self.train_step(which, *second)
        return loss, reconstructed

    def apply_gradient(self, which: NDArray[np.int64], x: Tensor, slope: Tensor) -> None:
        """As Stack.descend."""
        flat = self.models(which)
        self.step(which, self.backward(flat, self.forward(flat, x), slope))
