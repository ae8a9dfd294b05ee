"""The stack of autoencoders on the CPU: model after model, each with all that it needs in the cache.

The matrices of one model are so small that calling a library costs more than the computation, and a pass over all
models leaves the cache. Here the whole step of a model is one compiled function around ``product``, whose rows are
independent of each other: one event or many are scored alike, bit for bit. Loops run over views from index 0: with an
offset in the index, which could be negative, they would not become vector instructions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector.model.model_stack import BETA1, BETA2, EPSILON, SLOPE, STEPS_TO_FULL, PlainBatch, Stack
from stream_ad.kernels.jit import ONE, ZERO, Arrays, group_by_row, kernel, row_sum, sigmoid
from stream_ad.kernels.matmul import product, products_apart

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_ROWS = 32  # events of a model that are scored together
FADED = 1e-30  # moments below are set to 0: CPUs compute with denormal numbers a hundred times slower
LINE = 64  # bytes of a cache line
NO_WEIGHT, NO_SLOPE = np.empty((0, 0), np.float32), np.empty((0, 0, 0), np.float32)


class CompiledAutoencoder(Stack):
    """A stack on the CPU: the same results as ``Autoencoder`` up to rounding (test_autoencoder.py compares them)."""

    def __init__(self, width: int, *, rate: float) -> None:
        super().__init__(width, rate=rate)
        self._shapes = np.array([(layer.inputs, layer.outputs, layer.start) for layer in self.layers])
        self._tables = self.correction1, self.root2, np.float32(rate)
        self._rooms: dict[int, tuple[Any, ...]] = {}

    def to_numbers(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the array itself, of any shape such as (M, P)."""
        return array

    def _room_for(self, models: int, like: NDArray[Any]) -> NDArray[Any]:
        return _aligned((models, like.shape[1]), like.dtype)

    def to_array(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """Return the numbers themselves, of any shape such as (M, P)."""
        return numbers

    def reconstruct_events(self, models: NDArray[np.int64], scaled: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (N, d) as ``Stack.reconstruct_events``."""
        out = np.empty_like(scaled)
        room = self._room(MOST_ROWS)
        reconstruct_events(models, scaled, self.flat.reshape(-1), self.parameters, self._shapes, room[:2], out)
        return out

    def reconstruct_grid(self, which: NDArray[np.int64], x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (A, R, d) as ``Stack.reconstruct_grid``."""
        return self.reconstruct_events(np.repeat(which, x.shape[1]), x.reshape(-1, self.width)).reshape(x.shape)

    def train_step(
        self,
        which: NDArray[np.int64],
        x: NDArray[np.float32],
        weight: NDArray[np.float32],
        inputs: NDArray[np.float32],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return (A,) and (A, B, d) as ``Stack.train_step``."""
        batch = x, weight, inputs
        return self._steps(which, batch, batch, 1)

    def plain_steps(
        self, which: NDArray[np.int64], first: PlainBatch, second: PlainBatch
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return (A,) and (A, B, d) as ``Stack.plain_steps``; the second step finds the model still in the cache."""
        return self._steps(which, first, second, 2)

    def apply_gradient(self, which: NDArray[np.int64], x: NDArray[np.float32], slope: NDArray[np.float32]) -> None:
        """Take a step on a slope (A, R, d) as ``Stack.apply_gradient``."""
        batch = x, NO_WEIGHT, NO_SLOPE
        self._steps(which, batch, batch, 1, slope)

    def _steps(
        self,
        which: NDArray[np.int64],
        first: PlainBatch,
        second: PlainBatch,
        number: int,
        slope: NDArray[np.float32] = NO_SLOPE,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        loss, reconstructed = np.empty(len(which), np.float32), np.empty_like(first[0])
        flats = self.flat.reshape(-1), self.first.reshape(-1), self.second.reshape(-1), self.steps
        room = self._room(reconstructed.shape[1])
        _steps(which, (first, second), (number, slope), flats, self._tables, self._shapes, room, (loss, reconstructed))
        return loss, reconstructed

    @property
    def held_bytes(self) -> int:
        """Bytes of all models and of the workspaces."""
        entries = (entry for room in self._rooms.values() for entry in room)
        arrays = (array for entry in entries for array in (entry if isinstance(entry, tuple) else (entry,)))
        return super().held_bytes + sum(array.nbytes for array in arrays)

    def _room(self, rows: int) -> tuple[Any, ...]:
        """Return the workspace of one model with so many rows.

        It holds inputs, states, slopes, gradient, loss by input, transposed weights, a one and zeros.
        """
        if rows not in self._rooms:
            layers = tuple(rows * layer.outputs for layer in self.layers)
            states, slopes = tuple(map(_aligned, layers)), tuple(map(_aligned, layers))
            x, part = _aligned(rows * self.width), _aligned(rows * self.width)
            gradient = _aligned(self.parameters)
            turned = _aligned(max(layer.inputs * layer.outputs for layer in self.layers))
            ones, zeros = np.ones(1, np.float32), np.zeros(max(layer.outputs for layer in self.layers), np.float32)
            self._rooms[rows] = x, states, slopes, gradient, part, turned, ones, zeros
        return self._rooms[rows]


def _aligned(shape: int | tuple[int, ...], kind: Any = np.float32) -> NDArray[Any]:
    """Return zeros that begin at a cache line: a vector across two lines takes two accesses."""
    room = np.zeros(int(np.prod(shape)) * np.dtype(kind).itemsize + LINE, np.uint8)
    begin = -room.ctypes.data % LINE
    return room[begin : len(room) - LINE + begin].view(kind).reshape(shape)


@kernel
def forward(
    x: NDArray[np.float32],
    begin: int,
    rows: int,
    flat: NDArray[np.float32],
    model: int,
    shapes: NDArray[np.int64],
    states: Arrays,
) -> None:
    """Fill the states of the layers of a model from some rows of inputs.

    Args:
        x: Inputs (n, d), flat.
        begin: Index in ``x`` of the first row.
        rows: Number of rows.
        flat: Parameters of all models (M, P), flat.
        model: Index in ``flat`` of the parameters of the model.
        shapes: (L, 3) inputs, outputs and start of each layer.
        states: Filled: (rows, outputs) of each layer, flat.
    """
    source = x
    for number in range(len(states)):
        out = states[number]
        inputs, outputs, weights = shapes[number, 0], shapes[number, 1], model + shapes[number, 2]
        bias = weights + inputs * outputs
        product(out, flat, source, flat, (ZERO, bias, begin, weights), (rows, inputs, outputs), (ZERO, inputs, ONE))
        _activate(out, rows * outputs, number == len(states) - 1)
        source, begin = out, ZERO


@kernel
def _activate(out: NDArray[np.float32], size: int, last: bool) -> None:
    slope = np.float32(SLOPE)
    if last:
        for i in range(size):
            out[i] = sigmoid(out[i])
    else:
        for i in range(size):
            z = out[i]
            out[i] = z if z > 0 else slope * z


@kernel
def forward_apart(
    x: NDArray[np.float32],
    flat: NDArray[np.float32],
    models: tuple[int, int, int, int],
    shapes: NDArray[np.int64],
    states: Arrays,
) -> None:
    """Fill the states as ``forward`` does, for four rows of four different models.

    Args:
        x: Inputs (4, d), flat.
        flat: Parameters of all models (M, P), flat.
        models: Indices in ``flat`` of the parameters of the four models.
        shapes: (L, 3) inputs, outputs and start of each layer.
        states: Filled: (4, outputs) of each layer, flat.
    """
    source = x
    for number in range(len(states)):
        out = states[number]
        inputs, outputs, weights = shapes[number, 0], shapes[number, 1], shapes[number, 2]
        products_apart(out, flat, source, flat, (weights + inputs * outputs, weights), (inputs, outputs), models)
        _activate(out, len(models) * outputs, number == len(states) - 1)
        source = out


@kernel
def reconstruct_events(
    models: NDArray[np.int64],
    scaled: NDArray[np.float32],
    flat: NDArray[np.float32],
    parameters: int,
    shapes: NDArray[np.int64],
    room: tuple[Any, ...],
    out: NDArray[np.float32],
) -> None:
    """Fill ``out`` (N, d) with the reconstructions of ``scaled`` (N, d) by the models (N,).

    Events of one model are computed together, as many as the workspace has rows; so are four events of four models.
    """
    states, width = room[1], scaled.shape[1]
    x, reconstructed = room[0].reshape((-1, width)), states[-1].reshape((-1, width))
    nothing, whole = np.float32(0), np.float32(1)
    order = group_by_row(models, len(flat) // parameters)
    begin = ZERO
    while begin < len(order):
        model, stop = models[order[begin]], begin
        apart = _four_apart(models, order, begin)
        if apart:
            stop = begin + 4
        else:
            while stop < len(order) and stop - begin < len(x) and models[order[stop]] == model:
                stop += 1
        for n in range(begin, stop):
            for k in range(width):
                x[n - begin, k] = min(max(scaled[order[n], k], nothing), whole)
        if apart:
            a, b, c = models[order[begin + 1]], models[order[begin + 2]], models[order[begin + 3]]
            offsets = model * parameters, a * parameters, b * parameters, c * parameters
            forward_apart(room[0], flat, offsets, shapes, states)
        else:
            forward(room[0], ZERO, stop - begin, flat, model * parameters, shapes, states)
        for n in range(begin, stop):
            for k in range(width):
                out[order[n], k] = reconstructed[n - begin, k]
        begin = stop


@kernel
def _four_apart(models: NDArray[np.int64], order: NDArray[np.int64], begin: int) -> bool:
    """Return whether the next four events are of four different models."""
    different = begin + 4 <= len(order)
    for n in range(begin, begin + 3 if different else begin):
        different &= models[order[n]] != models[order[n + 1]]
    return different


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
    """Fill the gradient of a model from the slope of the loss with respect to the reconstruction.

    That slope is the last of the slopes of the workspace, all of which are overwritten.
    """
    _, states, slopes, gradient, _, turned, unit, zeros = room
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
        bias = start + inputs * outputs
        product(gradient, zeros, unit, delta, (bias, ZERO, ZERO, ZERO), (ONE, rows, outputs), (ZERO, ZERO, ZERO))
        source, at = (states[number - 1], ZERO) if number > 0 else (x, begin)
        product(gradient, zeros, source, delta, (start, ZERO, at, ZERO), (inputs, rows, outputs), (ZERO, ONE, inputs))
        if number == 0:
            break
        weights = flat[model + start : model + start + inputs * outputs].reshape((inputs, outputs))
        across = turned[: inputs * outputs].reshape((outputs, inputs))
        for k in range(outputs):
            for i in range(inputs):
                across[k, i] = weights[i, k]
        shape, strides = (rows, outputs, inputs), (ZERO, outputs, ONE)
        product(slopes[number - 1], zeros, delta, turned, (ZERO, ZERO, ZERO, ZERO), shape, strides)


@kernel
def _adam(model: int, memory: Arrays, tables: tuple[Any, ...], gradient: NDArray[np.float32]) -> None:
    flat, first, second, steps = memory
    correction1, root2, rate = tables
    keep1, keep2 = np.float32(1 - BETA1), np.float32(BETA2)
    add2, epsilon, faded, nothing = np.float32(1 - BETA2), np.float32(EPSILON), np.float32(FADED), np.float32(0)
    at = min(steps[model, 0], STEPS_TO_FULL - 1)
    # p -= rate (m / c1) / (sqrt(v / c2) + eps), with all factors that are constant within a model combined.
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
    reconstructed: NDArray[np.float32],
    weight: NDArray[np.float32],
    inputs: NDArray[np.float32],
    slope: NDArray[np.float32],
    part: NDArray[np.float32],
) -> Any:
    """Compute ``losses.plain_slope`` of one model.

    Fills the slope (B, d) and the summand of each input in twice the loss (B, d), and returns the loss.
    """
    least, two, events, twice = np.float32(1e-12), np.float32(2), np.float32(0), np.float32(0)
    for b in range(len(x)):
        events += weight[b]
    for b in range(len(x)):
        slope[b] = two * weight[b] / (max(events, least) * max(row_sum(inputs, b), least))
    target, output, by_input, down, parts = (
        x.ravel(),
        reconstructed.ravel(),
        inputs.ravel(),
        slope.ravel(),
        part.ravel(),
    )
    for k in range(len(target)):
        error = output[k] - target[k]
        down[k] = down[k] * by_input[k] * error
        parts[k] = down[k] * error
    for b in range(len(x)):
        twice += row_sum(part, b)
    return np.float32(0.5) * twice


@kernel
def _steps(
    which: NDArray[np.int64],
    batches: tuple[Arrays, ...],
    how: tuple[int, NDArray[np.float32]],
    memory: Arrays,
    tables: tuple[Any, ...],
    shapes: NDArray[np.int64],
    room: tuple[Any, ...],
    out: Arrays,
) -> None:
    """Take steps of Adam, one after the other for each model.

    Args:
        which: (A,) different models.
        batches: Of each step: inputs (A, B, d), weights of the events (A, B) and of the inputs (A, B, d).
        how: Number of steps; slope (A, B, d) of the loss by the reconstructions, (0, 0, 0) for that of the plain loss.
        memory: Parameters, both moments and step counts of all models, flat.
        tables: Both bias corrections by the number of steps, and the learning rate.
        shapes: (L, 3) inputs, outputs and start of each layer.
        room: Workspace (see ``CompiledAutoencoder._room``).
        out: Filled with (A,) the plain loss and (A, B, d) the reconstructions, both before the first step.
    """
    states, slopes, gradient, part = room[1:5]
    number, given = how
    loss, reconstructed = out
    rows, width = reconstructed.shape[1:]
    flat, parameters, size = memory[0], len(gradient), rows * width
    shape = rows, width
    last, down = states[-1], slopes[-1]
    state, slope, parts, result = (
        last.reshape(shape),
        down.reshape(shape),
        part.reshape(shape),
        reconstructed.reshape(-1),
    )
    plain = given.size == 0
    for a in range(len(which)):
        for step in range(number):
            x, weight, inputs = batches[step]
            forward(x.reshape(-1), a * size, rows, flat, which[a] * parameters, shapes, states)
            if plain:
                plain_loss = _plain_slope(x[a], state, weight[a], inputs[a], slope, parts)
                if step == 0:
                    loss[a] = plain_loss
            else:
                steepness = given[a].reshape(-1)
                for k in range(size):
                    down[k] = steepness[k]
            if step == 0:
                before = result[a * size : (a + 1) * size]
                for k in range(size):
                    before[k] = last[k]
            _backward(x.reshape(-1), a * size, rows, flat, which[a] * parameters, shapes, room)
            _adam(which[a], memory, tables, gradient)
