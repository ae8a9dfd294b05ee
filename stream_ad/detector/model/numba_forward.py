"""The way forward through the compiled autoencoder: what the layers of a model make of some rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.model.model_stack import SLOPE
from stream_ad.kernels.jit import ONE, ZERO, Arrays, group_by_row, kernel, sigmoid
from stream_ad.kernels.matmul import product, products_apart

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray


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
