"""One stacked autoencoder: M models as one tensor; M = 1 is the plain case.

d inputs -> max(16, d) -> d / 3 -> max(16, d) -> d, leaky ReLU, sigmoid at the end; Adam
(D. P. Kingma, J. Ba, arXiv 1412.6980) at a rate that halves over the first 400 steps, each model
with its own step count, so that the moments of a model that learns nothing rest.

All sizes are multiples of 8, and so must be the number of rows handed in: then a row's result does
not depend on what stands beside it, bit for bit (tests/detector/test_autoencoder.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stream_ad.detector import losses
from stream_ad.detector.compiled import count_up
from stream_ad.detector.device import to_device
from stream_ad.detector.rng import uniform
from stream_ad.detector.rows import Column, loaded

if TYPE_CHECKING:
    from numpy.typing import NDArray

SLOPE = 0.1
ROW_UNIT = 8  # rows of a model handed to torch together come in multiples of this: its products then round alike
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
STEPS_TO_FULL = 20_000  # after so many, Adam's bias corrections are 1 in float32
FAST_STEPS, SLOWEST = 100, 0.5  # the rate falls with the root of the steps after so many, to this share


def _up(size: int, to: int = 8) -> int:
    return -(-size // to) * to


@dataclass(frozen=True, slots=True)
class Layer:
    """Where one layer stands in a model's flat parameters."""

    inputs: int
    outputs: int
    start: int

    @property
    def bias(self) -> int:
        return self.start + self.inputs * self.outputs

    @property
    def stop(self) -> int:
        return self.bias + self.outputs

    def of(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """(M, P) -> weights (M, inputs, outputs), biases (M, 1, outputs); views."""
        weight = flat[:, self.start : self.bias].view(-1, self.inputs, self.outputs)
        return weight, flat[:, self.bias : self.stop].unsqueeze(1)


@cache
def _corrections(device: torch.device) -> tuple[Tensor, Tensor]:
    """What Adam's moments are corrected by at each step, the same for all stacks."""
    powers = np.arange(1, STEPS_TO_FULL + 1)
    # Looked up, not computed per step: a vector unit's power function rounds by position.
    pace = np.clip(np.sqrt(FAST_STEPS / powers), SLOWEST, 1)  # the floor lets a model follow a drift for ever
    first, second = (1 - BETA1**powers) / pace, np.sqrt(1 - BETA2**powers)
    return torch.from_numpy(first).float().to(device), torch.from_numpy(second).float().to(device)


PlainBatch = tuple[Tensor, Tensor, Tensor]
"""Inputs, weights of the events and of the inputs, as of ``Autoencoder.plain_step``."""


class Autoencoder:
    """A stack of models of one shape, on one device."""

    def __init__(self, width: int, *, device: torch.device, rate: float) -> None:
        hidden, code = max(16, width), _up(-(-width // 3))
        sizes = [width, hidden, code, hidden, width]
        self.layers: list[Layer] = []
        at = 0
        for inputs, outputs in pairwise(sizes):
            self.layers.append(Layer(inputs, outputs, at))
            at = self.layers[-1].stop
        self.width, self.device, self.rate = width, device, rate
        self.parameters = _up(at, 64)
        self.size = 0
        self.flat = self._empty(0)  # (M, P) weights and biases of each model
        self.first = self._empty(0)  # (M, P) Adam's first moment
        self.second = self._empty(0)  # (M, P) Adam's second moment
        self.steps = torch.zeros((0, 1), dtype=torch.int64, device=device)  # (M, 1) steps taken
        self.correction1, self.root2 = _corrections(device)

    @property
    def nbytes(self) -> int:
        """Of the models in use."""
        return sum(array[: self.size].nbytes for array in (self.flat, self.first, self.second, self.steps))

    @property
    def held_bytes(self) -> int:
        """With what is kept free for sensors to come."""
        return sum(array.nbytes for array in (self.flat, self.first, self.second, self.steps))

    def _empty(self, models: int) -> Tensor:
        return torch.zeros((models, self.parameters), device=self.device)

    def append(self, keys: NDArray[np.uint64]) -> None:
        """Add one model per key; the key alone decides its initial weights (He uniform)."""
        needed = self.size + len(keys)
        if needed > len(self.flat):
            capacity = max(needed, len(self.flat) * 3 // 2)
            for name in ("flat", "first", "second", "steps"):
                old = getattr(self, name)
                new = torch.empty((capacity, old.shape[1]), dtype=old.dtype, device=self.device)
                new[: self.size] = old[: self.size]
                setattr(self, name, new)
        fresh = slice(self.size, needed)
        self.flat[fresh] = torch.from_numpy(self.initial(keys)).to(self.device)
        self.first[fresh], self.second[fresh], self.steps[fresh] = 0, 0, 0
        self.size = needed

    def initial(self, keys: NDArray[np.uint64]) -> NDArray[np.float32]:
        """(A, P) what the models of some keys (A,) begin with."""
        initial = np.zeros((len(keys), self.parameters), np.float32)
        for layer in self.layers:
            bound = (
                math.sqrt(6 / ((1 + SLOPE**2) * layer.inputs))
                if layer is not self.layers[-1]
                else math.sqrt(3 / layer.inputs)
            )
            draws = uniform(keys, layer.start, layer.inputs * layer.outputs)
            initial[:, layer.start : layer.bias] = (2 * draws - 1) * bound
        return initial

    def keep(self, models: NDArray[np.int64]) -> None:
        """Drop all models but these, in this order."""
        for name in ("flat", "first", "second", "steps"):
            setattr(self, name, getattr(self, name)[torch.from_numpy(models).to(self.device)])
        self.size = len(models)

    def remove(self, model: int) -> None:
        """Drop a model; the last one takes its place."""
        last = self.size - 1
        for array in (self.flat, self.first, self.second, self.steps):
            array[model] = array[last].clone()
        self.size = last

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

    def rebuild(self, which: NDArray[np.int64], x: Tensor) -> Tensor:
        """(A, R, d) reconstructions.

        Args:
            which: (A,) different models.
            x: (A, R, d).
        """
        return self.forward(self.models(which), x)[-1]

    def reconstruct(self, models: NDArray[np.int64], scaled: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, d) reconstructions of single events.

        Args:
            models: (N,) model of each event.
            scaled: (N, d) inputs, taken as if within [0, 1].
        """
        inputs, out = np.clip(scaled, 0, 1), np.empty_like(scaled)
        slot, count = np.empty_like(models), np.zeros(self.size, np.int64)
        count_up(models, count, slot)
        # Models with few events are not padded to the length of the busiest: each length has its grid.
        length = -(-count // ROW_UNIT) * ROW_UNIT
        for rows in np.unique(length[length > 0]).tolist():
            chosen = np.flatnonzero(length == rows)
            mine = np.flatnonzero(length[models] == rows)
            at = np.searchsorted(chosen, models[mine]), slot[mine]
            grid = np.full((len(chosen), rows, self.width), 0.5, np.float32)
            grid[at] = inputs[mine]
            out[mine] = self.rebuild(chosen, to_device(grid, self.device)).cpu().numpy()[at]
        return out

    def plain_step(self, which: NDArray[np.int64], x: Tensor, weight: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """One step down the plain loss; the arguments are those of losses.plain_slope.

        Args:
            which: (A,) different models.
            x: (A, B, d).
            weight: (A, B).
            inputs: (A, B, d).

        Returns:
            (A,) the loss, (A, B, d) the reconstructions, both before the step.
        """
        flat = self.models(which)
        states = self.forward(flat, x)
        slope, loss = losses.plain_slope(x, states[-1], weight, inputs)
        self.step(which, self.backward(flat, states, slope))
        return loss, states[-1]

    def plain_steps(self, which: NDArray[np.int64], first: PlainBatch, second: PlainBatch) -> tuple[Tensor, Tensor]:
        """Two ``plain_step``, one after the other; returns what the first gives."""
        loss, rebuilt = (kept.clone() for kept in self.plain_step(which, *first))
        self.plain_step(which, *second)
        return loss, rebuilt

    def descend(self, which: NDArray[np.int64], x: Tensor, slope: Tensor) -> None:
        """One step of Adam down a loss.

        Args:
            which: (A,) different models.
            x: (A, R, d) inputs.
            slope: (A, R, d) of the loss by their reconstructions.
        """
        flat = self.models(which)
        self.step(which, self.backward(flat, self.forward(flat, x), slope))

    def state(self, prefix: str) -> dict[str, NDArray[Any]]:
        """All parameters and moments, by name, for a snapshot: views where the stack is not on a GPU."""
        arrays = {"flat": self.flat, "first": self.first, "second": self.second, "steps": self.steps}
        return {prefix + name: array[: self.size].cpu().numpy() for name, array in arrays.items()}

    def load(self, prefix: str, arrays: dict[str, NDArray[Any]]) -> None:
        """Take over what ``state`` gave; raises NonsenseError when a shape differs."""
        for name in ("flat", "first", "second", "steps"):
            width, kind = (1, np.int64) if name == "steps" else (self.parameters, np.float32)
            array = loaded(arrays, prefix + name, Column((width,), kind))
            setattr(self, name, torch.from_numpy(array).to(self.device))
        self.size = len(self.flat)
