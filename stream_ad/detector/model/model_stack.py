"""A stack of autoencoders of one shape, wherever they are computed: their layers, and the arrays that hold them.

d inputs -> max(16, d) -> d / 3 -> max(16, d) -> d, leaky ReLU, sigmoid at the end; Adam
(D. P. Kingma, J. Ba, arXiv 1412.6980) at a rate that halves over the first 400 steps, each model
with its own step count, so that the moments of a model that learns nothing rest.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector.row_store import ColumnSpec, loaded
from stream_ad.kernels.counter_rng import uniform

if TYPE_CHECKING:
    from numpy.typing import NDArray

SLOPE = 0.1
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
STEPS_TO_FULL = 20_000  # after so many, Adam's bias corrections are 1 in float32
FAST_STEPS, SLOWEST = 100, 0.5  # the rate falls with the root of the steps after so many, to this share

Numbers = Any
"""An array where the stack computes: of NumPy on the processor, of torch on a GPU."""

PlainBatch = tuple[Numbers, Numbers, Numbers]
"""Inputs, weights of the events and of the inputs, as of ``Stack.train_step``."""


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

    def of(self, flat: Numbers) -> tuple[Numbers, Numbers]:
        """(M, P) -> weights (M, inputs, outputs), biases (M, 1, outputs); views."""
        weight = flat[:, self.start : self.bias].reshape(-1, self.inputs, self.outputs)
        return weight, flat[:, self.bias : self.stop][:, None]


class Stack(ABC):
    """M models as arrays that share their first axis; M = 1 is the plain case."""

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
        """The array where the stack computes; the same memory or a copy."""

    @abstractmethod
    def _room_for(self, models: int, like: Numbers) -> Numbers:
        """An array of so many models, of nothing in particular."""

    @abstractmethod
    def to_array(self, numbers: Numbers) -> NDArray[Any]:
        """The inverse of ``to_numbers``."""

    def _forms(self) -> dict[str, tuple[int, type]]:
        """Numbers of each model and their type, by the name of the array."""
        own = self.parameters, np.float32
        return {"flat": own, "first": own, "second": own, "steps": (1, np.int64)}

    def _take_over(self, arrays: dict[str, NDArray[Any]]) -> None:
        for name, array in arrays.items():
            setattr(self, name, self.to_numbers(array))

    @property
    def nbytes(self) -> int:
        """Of the models in use."""
        return sum(int(getattr(self, name)[: self.size].nbytes) for name in self._forms())

    @property
    def held_bytes(self) -> int:
        """With what is kept free for sensors to come."""
        return sum(int(getattr(self, name).nbytes) for name in self._forms())

    def append(self, keys: NDArray[np.uint64]) -> None:
        """Add one model per key; the key alone decides its initial weights (He uniform)."""
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

    def models(self, which: NDArray[np.int64]) -> Numbers:
        """(len(which), P) parameters."""
        return self.flat[self.to_numbers(which)]

    def keep(self, models: NDArray[np.int64]) -> None:
        """Drop all models but these, in this order."""
        for name in self._forms():
            setattr(self, name, getattr(self, name)[self.to_numbers(models)])
        self.size = len(models)

    def remove(self, model: int) -> None:
        """Drop a model; the last one takes its place."""
        last = self.size - 1
        for name in self._forms():
            array = getattr(self, name)
            array[model] = array[last]
        self.size = last

    def state(self, prefix: str) -> dict[str, NDArray[Any]]:
        """All parameters and moments, by name, for a snapshot: views where the stack is not on a GPU."""
        return {prefix + name: self.to_array(getattr(self, name)[: self.size]) for name in self._forms()}

    def load(self, prefix: str, arrays: dict[str, NDArray[Any]]) -> None:
        """Take over what ``state`` gave; raises NonsenseError when a shape differs."""
        for name, (width, kind) in self._forms().items():
            setattr(self, name, self.to_numbers(loaded(arrays, prefix + name, ColumnSpec((width,), kind))))
        self.size = len(self.flat)

    # ------------------------------------------------------------ computation

    @abstractmethod
    def reconstruct_events(self, models: NDArray[np.int64], scaled: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, d) reconstructions of single events.

        Args:
            models: (N,) model of each event.
            scaled: (N, d) inputs, taken as if within [0, 1].
        """

    @abstractmethod
    def reconstruct_grid(self, which: NDArray[np.int64], x: Numbers) -> Numbers:
        """(A, R, d) reconstructions.

        Args:
            which: (A,) different models.
            x: (A, R, d), within [0, 1].
        """

    @abstractmethod
    def train_step(
        self, which: NDArray[np.int64], x: Numbers, weight: Numbers, inputs: Numbers
    ) -> tuple[Numbers, Numbers]:
        """One step down the plain loss; the arguments are those of losses.plain_slope.

        Args:
            which: (A,) different models.
            x: (A, B, d).
            weight: (A, B).
            inputs: (A, B, d).

        Returns:
            (A,) the loss, (A, B, d) the reconstructions, both before the step.
        """

    @abstractmethod
    def plain_steps(self, which: NDArray[np.int64], first: PlainBatch, second: PlainBatch) -> tuple[Numbers, Numbers]:
        """Two ``train_step``, one after the other; returns what the first gives."""

    @abstractmethod
    def apply_gradient(self, which: NDArray[np.int64], x: Numbers, slope: Numbers) -> None:
        """One step of Adam down a loss.

        Args:
            which: (A,) different models.
            x: (A, R, d) inputs.
            slope: (A, R, d) of the loss by their reconstructions.
        """
