"""A stack of autoencoders of one shape, on any device: their layers, and the arrays that hold their parameters.

d inputs -> max(16, d) -> d / 3 -> max(16, d) -> d, leaky ReLU, sigmoid at the end. Adam (D. P. Kingma, J. Ba, arXiv
1412.6980) at a rate that halves over the first 400 steps, with a step count per model, so that the moments of a model
that learns nothing stay unchanged.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector.row_store import ColumnSpec, derived_index, loaded
from stream_ad.kernels.counter_rng import uniform

if TYPE_CHECKING:
    from numpy.typing import NDArray

SLOPE = 0.1  # of the leaky ReLU below 0
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # Adam's defaults
STEPS_TO_FULL = 20_000  # steps after which Adam's bias corrections are 1 in float32
FAST_STEPS, SLOWEST = 100, 0.5  # steps at the full rate, which then falls with their root to this share

Numbers = Any
"""An array on the device of the stack: of NumPy on the CPU, of torch on a GPU."""

PlainBatch = tuple[Numbers, Numbers, Numbers]
"""Inputs (A, B, d), weights of the events (A, B) and of the inputs (A, B, d), as in ``Stack.train_step``."""


def _up(size: int, to: int = 8) -> int:
    return -(-size // to) * to


@dataclass(frozen=True, slots=True)
class Layer:
    """Position of one layer in the flat parameters of a model."""

    inputs: int
    outputs: int
    start: int

    @property
    def bias(self) -> int:
        """Index of the first bias, behind the weights."""
        return self.start + self.inputs * self.outputs

    @property
    def stop(self) -> int:
        """Index behind the last bias."""
        return self.bias + self.outputs

    def of(self, flat: Numbers) -> tuple[Numbers, Numbers]:
        """Return weights (M, inputs, outputs) and biases (M, 1, outputs) of parameters (M, P), as views."""
        weight = flat[:, self.start : self.bias].reshape(-1, self.inputs, self.outputs)
        return weight, flat[:, self.bias : self.stop][:, None]


class Stack(ABC):
    """M models with P parameters each, as arrays that share their first axis.

    An autoencoder fails on anomalies that it reconstructs well: those that resemble what it learned, or that came
    often enough to be learned.
    """

    flat: Numbers  # (M, P) weights and biases of each model
    first: Numbers  # (M, P) Adam's first moment
    second: Numbers  # (M, P) Adam's second moment
    steps: Numbers  # (M, 1) steps taken

    def __init__(self, width: int, *, rate: float) -> None:
        hidden, code = max(16, width), _up(-(-width // 3))
        sizes = [width, hidden, code, hidden, width]
        self.layers: list[Layer] = []
        at = 0
        for inputs, outputs in pairwise(sizes):
            self.layers.append(Layer(inputs, outputs, at))
            at = self.layers[-1].stop
        self.width, self.rate = width, rate
        self.parameters = _up(at, 64)
        self.size = 0
        self._take_over({name: np.empty((0, of), kind) for name, (of, kind) in self._forms().items()})
        powers = np.arange(1, STEPS_TO_FULL + 1)
        # Looked up, not computed per step: a vector unit's power function rounds by position.
        pace = np.clip(np.sqrt(FAST_STEPS / powers), SLOWEST, 1)  # the floor lets a model follow a drift for ever
        self.correction1 = self.to_numbers(((1 - BETA1**powers) / pace).astype(np.float32))
        self.root2 = self.to_numbers(np.sqrt(1 - BETA2**powers).astype(np.float32))

    @abstractmethod
    def to_numbers(self, array: NDArray[Any]) -> Numbers:
        """Return an array of any shape, such as (M, P), on the device of the stack: the same memory or a copy."""

    @abstractmethod
    def _room_for(self, models: int, like: Numbers) -> Numbers:
        """Return an uninitialised array (models, n) for an array ``like`` (M, n)."""

    @abstractmethod
    def to_array(self, numbers: Numbers) -> NDArray[Any]:
        """Return numbers of any shape, such as (M, P), as a NumPy array; the inverse of ``to_numbers``."""

    def _forms(self) -> dict[str, tuple[int, type]]:
        """Return how many numbers each array has per model, and their type, by name."""
        own = self.parameters, np.float32
        return {"flat": own, "first": own, "second": own, "steps": (1, np.int64)}

    def _take_over(self, arrays: dict[str, NDArray[Any]]) -> None:
        for name, array in arrays.items():
            setattr(self, name, self.to_numbers(array))

    @property
    def nbytes(self) -> int:
        """Bytes of the models in use."""
        return sum(int(getattr(self, name)[: self.size].nbytes) for name in self._forms())

    @property
    def held_bytes(self) -> int:
        """Bytes of all models, including those reserved for later sensors."""
        return sum(int(getattr(self, name).nbytes) for name in self._forms())

    def append(self, keys: NDArray[np.uint64]) -> None:
        """Add one model per key (A,); the key alone decides its initial weights."""
        needed = self.size + len(keys)
        if needed > len(self.flat):
            capacity = max(needed, len(self.flat) * 3 // 2)
            for name in self._forms():
                old = getattr(self, name)
                new = self._room_for(capacity, old)
                new[: self.size] = old[: self.size]
                setattr(self, name, new)
        fresh = slice(self.size, needed)
        self.flat[fresh] = self.to_numbers(self.initial(keys))
        self.first[fresh], self.second[fresh], self.steps[fresh] = 0, 0, 0
        self.size = needed

    def initial(self, keys: NDArray[np.uint64]) -> NDArray[np.float32]:
        """Return (A, P) the initial parameters of the models of the keys (A,), uniform.

        K. He et al., "Delving deep into rectifiers", ICCV 2015.
        """
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

    def models(self, which: NDArray[np.int64]) -> Numbers:
        """Return (A, P) the parameters of the models (A,)."""
        return self.flat[self.to_numbers(which)]

    def keep(self, models: NDArray[np.int64]) -> None:
        """Keep only the models (A,), in this order."""
        for name in self._forms():
            setattr(self, name, getattr(self, name)[self.to_numbers(models)])
        self.size = len(models)

    def remove(self, model: int) -> None:
        """Drop a model; the last model moves to its index."""
        last = self.size - 1
        for name in self._forms():
            array = getattr(self, name)
            array[model] = array[last]
        self.size = last

    def copy_model(self, other: Stack, model: int) -> None:
        """Make the last model a copy of a model of a stack of the same width, with its moments."""
        for name in self._forms():
            getattr(self, name)[self.size - 1] = getattr(other, name)[model]

    def transplant(self, other: Stack, model: int, *, features: int, positions: NDArray[np.int64], among: int) -> None:
        """Make the last model compute on some features what a model of a narrower stack computes on its own.

        Args:
            other: The narrower stack.
            model: Its model.
            features: Features of the narrower stack.
            positions: (features,) index of each of them among those of this stack.
            among: Features of this stack.
        """
        inner = self.to_numbers(derived_index(among)[:, positions].ravel())
        outer = self.to_numbers(derived_index(features).ravel())
        for number, (new, old) in enumerate(zip(self.layers, other.layers, strict=True)):
            weight, bias = new.of(self.flat[self.size - 1 : self.size])
            old_weight, old_bias = old.of(other.flat[model : model + 1])
            ins = inner if number == 0 else self.to_numbers(np.arange(old.inputs))
            old_ins = outer if number == 0 else ins
            outs = inner if number == len(self.layers) - 1 else self.to_numbers(np.arange(old.outputs))
            old_outs = outer if number == len(self.layers) - 1 else outs
            weight[0][:, outs] = 0  # new inputs and units must not disturb what was learned
            weight[0][ins[:, None], outs] = old_weight[0][old_ins[:, None], old_outs]
            bias[0, 0, outs] = old_bias[0, 0, old_outs]

    def reset_feature(self, model: int, feature: int, *, among: int) -> None:
        """Make a model ignore a feature as an input, and reconstruct it at its mean.

        Args:
            model: The model.
            feature: The feature.
            among: Features of this stack.
        """
        inputs = self.to_numbers(derived_index(among)[:, feature])
        for array in (self.flat, self.first, self.second):
            into, _ = self.layers[0].of(array[model : model + 1])
            out, bias = self.layers[-1].of(array[model : model + 1])
            into[0, inputs] = 0
            out[0, :, inputs] = 0
            bias[0, 0, inputs] = 0

    def state(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return parameters and moments, (M, P) by name, for a snapshot: views unless the stack is on a GPU."""
        return {prefix + name: self.to_array(getattr(self, name)[: self.size]) for name in self._forms()}

    def load(self, prefix: str, arrays: dict[str, NDArray[Any]]) -> None:
        """Restore the arrays, such as (M, P), that ``state`` returned; raises NonsenseError if a shape differs."""
        for name, (width, kind) in self._forms().items():
            setattr(self, name, self.to_numbers(loaded(arrays, prefix + name, ColumnSpec((width,), kind))))
        self.size = len(self.flat)

    # ------------------------------------------------------------ computation

    @abstractmethod
    def reconstruct_events(self, models: NDArray[np.int64], scaled: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (N, d) reconstructions, in (0, 1), of single events.

        Args:
            models: (N,) model of each event.
            scaled: (N, d) inputs, which are clipped to [0, 1].
        """

    @abstractmethod
    def reconstruct_grid(self, which: NDArray[np.int64], x: Numbers) -> Numbers:
        """Return (A, R, d) reconstructions, in (0, 1), of R events for each model.

        Args:
            which: (A,) different models.
            x: (A, R, d) inputs in [0, 1].
        """

    @abstractmethod
    def train_step(
        self, which: NDArray[np.int64], x: Numbers, weight: Numbers, inputs: Numbers
    ) -> tuple[Numbers, Numbers]:
        """Take one training step on the plain loss (``losses.plain_slope``).

        Args:
            which: (A,) different models.
            x: (A, B, d) inputs in [0, 1].
            weight: (A, B) weights of the events, 0 leaves one out.
            inputs: (A, B, d) weights of the inputs, 0 where missing.

        Returns:
            (A,) the loss, (A, B, d) the reconstructions, both before the step.
        """

    @abstractmethod
    def plain_steps(self, which: NDArray[np.int64], first: PlainBatch, second: PlainBatch) -> tuple[Numbers, Numbers]:
        """Take two training steps, one after the other.

        Args:
            which: (A,) different models.
            first: Batch of the first step: (A, B, d), (A, B), (A, B, d) as in ``train_step``.
            second: Batch of the second step.

        Returns:
            (A,) the loss, (A, B, d) the reconstructions, both before the first step.
        """

    @abstractmethod
    def apply_gradient(self, which: NDArray[np.int64], x: Numbers, slope: Numbers) -> None:
        """Take one step of Adam on a given slope.

        Args:
            which: (A,) different models.
            x: (A, R, d) inputs in [0, 1].
            slope: (A, R, d) slope of the loss with respect to their reconstructions.
        """
