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

from stream_ad.detector.model.model_stack import BETA1, BETA2, EPSILON, SLOPE, STEPS_TO_FULL, PlainBatch, Stack
from stream_ad.kernels.jit import ONE, ZERO, Arrays, group_by_row, kernel, row_sum, sigmoid
from stream_ad.kernels.matmul import product, products_apart

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_ROWS = 32  # of a model that are scored together
FADED = 1e-30  # a moment below it is none: processors compute with the smallest numbers a hundred times slower
LINE = 64  # bytes of the cache that are fetched together
NO_WEIGHT, NO_SLOPE = np.empty((0, 0), np.float32), np.empty((0, 0, 0), np.float32)


class CompiledAutoencoder(Stack):
    """See Stack: the same as Autoencoder to rounding (tests/detector/model/test_autoencoder.py)."""

    def __init__(self, width: int, *, rate: float) -> None:
        super().__init__(width, rate=rate)
        self._shapes = np.array([(layer.inputs, layer.outputs, layer.start) for layer in self.layers])
        self._tables = self.correction1, self.root2, np.float32(rate)
        self._rooms: dict[int, tuple[Any, ...]] = {}

    def to_numbers(self, array: NDArray[Any]) -> NDArray[Any]:
        return array

    def _room_for(self, models: int, like: NDArray[Any]) -> NDArray[Any]:
        return _aligned((models, like.shape[1]), like.dtype)

    def to_array(self, numbers: NDArray[Any]) -> NDArray[Any]:
        return numbers

    def reconstruct_events(self, models: NDArray[np.int64], scaled: NDArray[np.float32]) -> NDArray[np.float32]:
        """As Stack.reconstruct."""
        out = np.empty_like(scaled)
        room = self._room(MOST_ROWS)
        reconstruct_events(models, scaled, self.flat.reshape(-1), self.parameters, self._shapes, room[:2], out)
        return out

    def reconstruct_grid(self, which: NDArray[np.int64], x: NDArray[np.float32]) -> NDArray[np.float32]:
        """As Stack.rebuild."""
        return self.reconstruct_events(np.repeat(which, x.shape[1]), x.reshape(-1, self.width)).reshape(x.shape)

    def train_step(
        self,
        which: NDArray[np.int64],
        x: NDArray[np.float32],
        weight: NDArray[np.float32],
        inputs: NDArray[np.float32],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As Stack.plain_step."""
        batch = x, weight, inputs
        return self._steps(which, batch, batch, 1)

    def plain_steps(
        self, which: NDArray[np.int64], first: PlainBatch, second: PlainBatch
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As Stack.plain_steps: the second while the model is still in the cache."""
        return self._steps(which, first, second, 2)

    def apply_gradient(self, which: NDArray[np.int64], x: NDArray[np.float32], slope: NDArray[np.float32]) -> None:
        """As Stack.descend."""
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
        """As Stack.held_bytes, with the rooms."""
        arrays = (array for room in self._rooms.values() for array in room)
        flat = (one for array in arrays for one in (array if isinstance(array, tuple) else (array,)))
        return super().held_bytes + sum(one.nbytes for one in flat)

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


def _aligned(shape: int | tuple[int, ...], kind: Any = np.float32) -> NDArray[Any]:
    """Zeros that begin with a line of the cache: a vector across two lines takes two accesses."""
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
    """Fill the states of a model's layers, (rows, outputs) each, from the rows (rows, d) that begin in ``x``.

    Args:
        x: SensorTable of inputs.
        begin: Where in ``x`` the first row begins.
        rows: How many.
        flat: All models' parameters.
        model: Where in ``flat`` the model's begin.
        shapes: (L, 3) inputs, outputs and start of each layer.
        states: What is filled.
    """
    here = x
    for number in range(len(states)):
        out = states[number]
        inputs, outputs, weights = shapes[number, 0], shapes[number, 1], model + shapes[number, 2]
        bias = weights + inputs * outputs
        product(out, flat, here, flat, (ZERO, bias, begin, weights), (rows, inputs, outputs), (ZERO, inputs, ONE))
        _activate(out, rows * outputs, number == len(states) - 1)
        here, begin = out, ZERO


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
    """``forward`` of four rows, each by a model of its own, whose parameters begin where ``models`` says."""
    here = x
    for number in range(len(states)):
        out = states[number]
        inputs, outputs, weights = shapes[number, 0], shapes[number, 1], shapes[number, 2]
        products_apart(out, flat, here, flat, (weights + inputs * outputs, weights), (inputs, outputs), models)
        _activate(out, len(models) * outputs, number == len(states) - 1)
        here = out


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
    """Rows of the same model are brought together, at most as many as the room has; single ones of four models, too."""
    states, width = room[1], scaled.shape[1]
    x, reconstructed = room[0].reshape((-1, width)), states[-1].reshape((-1, width))
    nothing, one = np.float32(0), np.float32(1)
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
        for place in range(begin, stop):
            for k in range(width):
                x[place - begin, k] = min(max(scaled[order[place], k], nothing), one)
        if apart:
            a, b, c = models[order[begin + 1]], models[order[begin + 2]], models[order[begin + 3]]
            offsets = model * parameters, a * parameters, b * parameters, c * parameters
            forward_apart(room[0], flat, offsets, shapes, states)
        else:
            forward(room[0], ZERO, stop - begin, flat, model * parameters, shapes, states)
        for place in range(begin, stop):
            for k in range(width):
                out[order[place], k] = reconstructed[place - begin, k]
        begin = stop


@kernel
def _four_apart(models: NDArray[np.int64], order: NDArray[np.int64], begin: int) -> bool:
    """Whether the next four events are of four models."""
    different = begin + 4 <= len(order)
    for place in range(begin, begin + 3 if different else begin):
        different &= models[order[place]] != models[order[place + 1]]
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
        bias = start + inputs * outputs
        product(gradient, zeros, one, delta, (bias, ZERO, ZERO, ZERO), (ONE, rows, outputs), (ZERO, ZERO, ZERO))
        here, at = (states[number - 1], ZERO) if number > 0 else (x, begin)
        product(gradient, zeros, here, delta, (start, ZERO, at, ZERO), (inputs, rows, outputs), (ZERO, ONE, inputs))
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
    reconstructed: NDArray[np.float32],
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
        slope[b] = two * weight[b] / (max(events, least) * max(row_sum(inputs, b), least))
    target, found, by_input, down, parts = x.ravel(), reconstructed.ravel(), inputs.ravel(), slope.ravel(), part.ravel()
    for k in range(len(target)):
        error = found[k] - target[k]
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
    """Steps of Adam, one after the other for each model.

    Args:
        which: (A,) different models.
        batches: Of each step: inputs (A, B, d), weights of the events (A, B) and of the inputs (A, B, d).
        how: Number of steps; slope (A, B, d) of the loss by the reconstructions, (0, 0, 0) for that of the plain loss.
        memory: All models' parameters, both moments and step counts.
        tables: Both corrections by the number of steps, and the rate.
        shapes: (L, 3) inputs, outputs and start of each layer.
        room: See ``CompiledAutoencoder._room``.
        out: (A,) plain loss and (A, B, d) reconstructions, to be filled with those before the first step.
    """
    states, slopes, gradient, part = room[1:5]
    number, given = how
    loss, reconstructed = out
    rows, width = reconstructed.shape[1:]
    flat, parameters, size = memory[0], len(gradient), rows * width
    shape = rows, width
    last, down = states[-1], slopes[-1]
    state, slope, parts, told = last.reshape(shape), down.reshape(shape), part.reshape(shape), reconstructed.reshape(-1)
    plain = given.size == 0
    for a in range(len(which)):
        for step in range(number):
            x, weight, inputs = batches[step]
            forward(x.reshape(-1), a * size, rows, flat, which[a] * parameters, shapes, states)
            if plain:
                found = _plain_slope(x[a], state, weight[a], inputs[a], slope, parts)
                if step == 0:
                    loss[a] = found
            else:
                steepness = given[a].reshape(-1)
                for k in range(size):
                    down[k] = steepness[k]
            if step == 0:
                before = told[a * size : (a + 1) * size]
                for k in range(size):
                    before[k] = last[k]
            _backward(x.reshape(-1), a * size, rows, flat, which[a] * parameters, shapes, room)
            _adam(which[a], memory, tables, gradient)
