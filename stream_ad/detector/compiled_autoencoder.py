"""The stacked autoencoder on the processor: model after model, each with all it needs in the cache.

The matrices of one model are so small that starting a library's operation costs more than the
operation, and a pass over all models leaves the cache. Here a model's whole step is one compiled
function around ``product``, whose rows depend on nothing beside them: events are scored as they
come, one or many. Loops run over views from 0 on: with an offset in an index, which could be negative, they would
not become vector instructions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from stream_ad.detector.autoencoder import BETA1, BETA2, EPSILON, SLOPE, STEPS_TO_FULL, Autoencoder, PlainBatch
from stream_ad.detector.compiled import Arrays, kernel, total
from stream_ad.detector.forward import forward, rebuild, reconstruct
from stream_ad.detector.products import product

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_ROWS = 32  # of a model that are scored together
FADED = 1e-30  # a moment below it is none: processors compute with the smallest numbers a hundred times slower


class CompiledAutoencoder(Autoencoder):
    """See Autoencoder: the same to rounding (tests/detector/test_autoencoder.py)."""

    def __init__(self, width: int, *, device: torch.device, rate: float) -> None:
        super().__init__(width, device=device, rate=rate)
        self._shapes = np.array([(layer.inputs, layer.outputs, layer.start) for layer in self.layers])
        self._tables = self.correction1.numpy(), self.root2.numpy(), np.float32(rate)
        self._seen: Tensor | None = None
        self._arrays: tuple[NDArray[Any], ...] = ()
        self._rooms: dict[int, tuple[Any, ...]] = {}

    def reconstruct(self, models: NDArray[np.int64], scaled: NDArray[np.float32]) -> NDArray[np.float32]:
        """As Autoencoder.reconstruct."""
        out = np.empty_like(scaled)
        reconstruct(models, scaled, self._memory()[0], self.parameters, self._shapes, self._room(MOST_ROWS), out)
        return out

    def rebuild(self, which: NDArray[np.int64], x: Tensor) -> Tensor:
        """As Autoencoder.rebuild."""
        out = torch.empty_like(x)
        states = self._room(x.shape[1])[1]
        rebuild(which, x.numpy(), self._memory()[0], self.parameters, self._shapes, states, out.numpy())
        return out

    def plain_step(self, which: NDArray[np.int64], x: Tensor, weight: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """As Autoencoder.plain_step."""
        return self._steps(which, (x, weight, inputs))

    def plain_steps(self, which: NDArray[np.int64], first: PlainBatch, second: PlainBatch) -> tuple[Tensor, Tensor]:
        """As Autoencoder.plain_steps: the second while the model is still in the cache."""
        return self._steps(which, first, second)

    def _steps(self, which: NDArray[np.int64], *batches: PlainBatch) -> tuple[Tensor, Tensor]:
        loss, rebuilt = torch.empty(len(which)), torch.empty_like(batches[0][0])
        arrays = tuple(tuple(tensor.numpy() for tensor in batch) for batch in batches)
        out, room = (loss.numpy(), rebuilt.numpy()), self._room(rebuilt.shape[1])
        _plain_steps(which, arrays, self._memory(), self._tables, self._shapes, room, out)
        return loss, rebuilt

    def descend(self, which: NDArray[np.int64], x: Tensor, slope: Tensor) -> None:
        """As Autoencoder.descend."""
        room = self._room(x.shape[1])
        _descend(which, x.numpy(), slope.numpy(), self._memory(), self._tables, self._shapes, room)

    @property
    def held_bytes(self) -> int:
        """As Autoencoder.held_bytes, with the rooms."""
        arrays = (array for room in self._rooms.values() for array in room)
        flat = (one for array in arrays for one in (array if isinstance(array, tuple) else (array,)))
        return super().held_bytes + sum(one.nbytes for one in flat)

    def _memory(self) -> tuple[NDArray[Any], ...]:
        """The arrays behind the tensors; looked up again when the stack has taken others."""
        if self._seen is not self.flat:
            self._seen = self.flat
            moving = self.flat, self.first, self.second
            self._arrays = *(tensor.numpy().reshape(-1) for tensor in moving), self.steps.numpy()
        return self._arrays

    def _room(self, rows: int) -> tuple[Any, ...]:
        """Where one model's inputs, states, slopes, gradient, loss by input and turned weights are computed."""
        if rows not in self._rooms:
            layers = tuple(rows * layer.outputs for layer in self.layers)
            states, slopes = tuple(map(_aligned, layers)), tuple(map(_aligned, layers))
            x, part = _aligned(rows * self.width), _aligned(rows * self.width)
            gradient = _aligned(self.parameters)
            turned = _aligned(max(layer.inputs * layer.outputs for layer in self.layers))
            ones, zeros = np.ones(1, np.float32), np.zeros(max(layer.outputs for layer in self.layers), np.float32)
            self._rooms[rows] = x, states, slopes, gradient, part, turned, ones, zeros
        return self._rooms[rows]


def _aligned(size: int) -> NDArray[np.float32]:
    """Zeros that begin with a line of the cache: a vector across two lines takes two accesses."""
    return torch.zeros(size).numpy()


@kernel
def _backward(
    x: NDArray[np.float32],
    begin: int,
    rows: int,
    flat: NDArray[np.float32],
    model: int,
    shapes: NDArray[np.int64],
    room: tuple[Any, ...],
) -> None:
    """Fill the gradient; the last of the slopes holds that of the loss by the reconstruction, and all are used up."""
    _, states, slopes, gradient, _, turned, one, zeros = room
    slope, whole, last = np.float32(SLOPE), np.float32(1), len(states) - 1
    for step in range(len(states)):
        number = last - step
        y, delta = states[number], slopes[number]
        inputs, outputs, start = shapes[number, 0], shapes[number, 1], shapes[number, 2]
        if number == last:
            for i in range(rows * outputs):
                delta[i] *= y[i] * (whole - y[i])
        else:
            for i in range(rows * outputs):
                delta[i] *= whole if y[i] > 0 else slope
        product(gradient, zeros, one, delta, (start + inputs * outputs, 0, 0, 0), (1, rows, outputs), (0, 0, 0))
        here, at = (states[number - 1], 0) if number > 0 else (x, begin)
        product(gradient, zeros, here, delta, (start, 0, at, 0), (inputs, rows, outputs), (0, 1, inputs))
        if number == 0:
            break
        weights = flat[model + start : model + start + inputs * outputs].reshape((inputs, outputs))
        across = turned[: inputs * outputs].reshape((outputs, inputs))
        for k in range(outputs):
            for i in range(inputs):
                across[k, i] = weights[i, k]
        product(slopes[number - 1], zeros, delta, turned, (0, 0, 0, 0), (rows, outputs, inputs), (0, outputs, 1))


@kernel
def _adam(model: int, memory: Arrays, tables: tuple[Any, ...], gradient: NDArray[np.float32]) -> None:
    flat, first, second, steps = memory
    correction1, root2, rate = tables
    keep1, keep2 = np.float32(1 - BETA1), np.float32(BETA2)
    add2, epsilon, faded, nothing = np.float32(1 - BETA2), np.float32(EPSILON), np.float32(FADED), np.float32(0)
    at = min(steps[model, 0], STEPS_TO_FULL - 1)
    # p -= rate (m / c1) / (sqrt(v / c2) + eps), with what does not vary inside a model taken together.
    scale, floor = correction1[at] / (rate * root2[at]), epsilon * root2[at]
    own = slice(model * len(gradient), (model + 1) * len(gradient))
    p, averages, squares = flat[own], first[own], second[own]
    for k in range(len(gradient)):
        average = averages[k] + keep1 * (gradient[k] - averages[k])
        square = keep2 * squares[k] + add2 * (gradient[k] * gradient[k])
        averages[k] = average if abs(average) > faded else nothing
        squares[k] = square if square > faded else nothing
        p[k] -= average / ((np.sqrt(square) + floor) * scale)
    steps[model, 0] += 1


@kernel
def _plain_slope(
    x: NDArray[np.float32],
    rebuilt: NDArray[np.float32],
    weight: NDArray[np.float32],
    inputs: NDArray[np.float32],
    slope: NDArray[np.float32],
    part: NDArray[np.float32],
) -> Any:
    """losses.plain_slope of one model: fills the slope and what each input adds to twice the loss (B, d); the loss."""
    least, two, events, twice = np.float32(1e-12), np.float32(2), np.float32(0), np.float32(0)
    for b in range(len(x)):
        events += weight[b]
    for b in range(len(x)):
        slope[b] = two * weight[b] / (max(events, least) * max(total(inputs, b), least))
    target, found, by_input, down, parts = x.ravel(), rebuilt.ravel(), inputs.ravel(), slope.ravel(), part.ravel()
    for k in range(len(target)):
        error = found[k] - target[k]
        down[k] = down[k] * by_input[k] * error
        parts[k] = down[k] * error
    for b in range(len(x)):
        twice += total(part, b)
    return np.float32(0.5) * twice


@kernel
def _plain_steps(
    which: NDArray[np.int64],
    batches: tuple[Arrays, ...],
    memory: Arrays,
    tables: tuple[Any, ...],
    shapes: NDArray[np.int64],
    room: tuple[Any, ...],
    out: Arrays,
) -> None:
    states, slopes, gradient, part = room[1:5]
    loss, rebuilt = out
    rows, width = rebuilt.shape[1:]
    flat, parameters = memory[0], len(gradient)
    shape = rows, width
    state, slope, parts = states[-1].reshape(shape), slopes[-1].reshape(shape), part.reshape(shape)
    for a in range(len(which)):
        for number in range(len(batches)):
            x, weight, inputs = batches[number]
            forward(x.ravel(), a * rows * width, rows, flat, which[a] * parameters, shapes, states)
            found = _plain_slope(x[a], state, weight[a], inputs[a], slope, parts)
            if number == 0:
                loss[a], rebuilt[a] = found, state
            _backward(x.ravel(), a * rows * width, rows, flat, which[a] * parameters, shapes, room)
            _adam(which[a], memory, tables, gradient)


@kernel
def _descend(
    which: NDArray[np.int64],
    x: NDArray[np.float32],
    slope: NDArray[np.float32],
    memory: Arrays,
    tables: tuple[Any, ...],
    shapes: NDArray[np.int64],
    room: tuple[Any, ...],
) -> None:
    states, slopes, gradient = room[1:4]
    rows, width = x.shape[1:]
    flat, parameters = memory[0], len(gradient)
    for a in range(len(which)):
        forward(x.ravel(), a * rows * width, rows, flat, which[a] * parameters, shapes, states)
        slopes[-1][:] = slope[a].ravel()
        _backward(x.ravel(), a * rows * width, rows, flat, which[a] * parameters, shapes, room)
        _adam(which[a], memory, tables, gradient)
