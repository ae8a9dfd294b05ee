"""The stacked autoencoder on the processor: model after model, each with all it needs in the cache.

The matrices of one model are so small that starting a library's operation costs more than the
operation, and a pass over all models leaves the cache. Here a model's whole step is one compiled
function: BLAS multiplies (through numba), the rest is fused around it. Every product of a stack has
the same number of rows, whatever stands beside them, so that a row's result is its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from stream_ad.detector.autoencoder import BETA1, BETA2, EPSILON, SLOPE, STEPS_TO_FULL, Autoencoder
from stream_ad.detector.compiled import Arrays, kernel, together, total

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEW_ROWS, MANY_ROWS = 8, 32  # scored together: few, or many where reading the weights costs more than computing
WIDE = 128  # inputs from which on it does


class CompiledAutoencoder(Autoencoder):
    """See Autoencoder: the same to rounding (tests/detector/test_autoencoder.py)."""

    def __init__(self, width: int, *, device: torch.device, rate: float) -> None:
        super().__init__(width, device=device, rate=rate)
        self._starts = np.array([layer.start for layer in self.layers])
        self._tables = self.correction1.numpy(), self.root2.numpy(), np.float32(rate)
        self._seen: Tensor | None = None
        self._arrays: tuple[NDArray[Any], ...] = ()
        self._rooms: dict[int, tuple[Any, ...]] = {}

    def reconstruct(self, models: NDArray[np.int64], scaled: NDArray[np.float32]) -> NDArray[np.float32]:
        """As Autoencoder.reconstruct."""
        out = np.empty_like(scaled)
        rows = FEW_ROWS if self.width < WIDE else MANY_ROWS
        states, *_ = self._room(rows)
        _reconstruct(models, scaled, self._memory()[0], self._starts, states, out)
        return out

    def rebuild(self, which: NDArray[np.int64], x: Tensor) -> Tensor:
        """As Autoencoder.rebuild."""
        out = torch.empty_like(x)
        states, *_ = self._room(x.shape[1])
        _rebuild(which, x.numpy(), self._memory()[0], self._starts, states, out.numpy())
        return out

    def plain_step(self, which: NDArray[np.int64], x: Tensor, weight: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """As Autoencoder.plain_step."""
        loss, rebuilt = torch.empty(len(which)), torch.empty_like(x)
        batch = x.numpy(), weight.numpy(), inputs.numpy()
        out = loss.numpy(), rebuilt.numpy()
        _plain_step(which, batch, self._memory(), self._tables, self._starts, self._room(x.shape[1]), out)
        return loss, rebuilt

    def descend(self, which: NDArray[np.int64], x: Tensor, slope: Tensor) -> None:
        """As Autoencoder.descend."""
        room = self._room(x.shape[1])
        _descend(which, x.numpy(), slope.numpy(), self._memory(), self._tables, self._starts, room)

    def _memory(self) -> tuple[NDArray[Any], ...]:
        """The arrays behind the tensors; looked up again when the stack has taken others."""
        if self._seen is not self.flat:
            self._seen = self.flat
            self._arrays = self.flat.numpy(), self.first.numpy(), self.second.numpy(), self.steps.numpy()
        return self._arrays

    def _room(self, rows: int) -> tuple[Any, ...]:
        """Where one model's states, its slopes, its gradient and its errors are computed."""
        if rows not in self._rooms:
            states, slopes = (
                tuple(np.empty((rows, layer.outputs), np.float32) for layer in self.layers) for _ in range(2)
            )
            error = np.empty((rows, self.width), np.float32)
            self._rooms[rows] = states, slopes, np.zeros(self.parameters, np.float32), error
        return self._rooms[rows]


@kernel
def _sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)) as (1 + tanh(x / 2)) / 2, by a rational function good to float32's rounding.

    The coefficients of tanh are those of Eigen's vectorised one.
    """
    half = np.float32(0.5)
    x = min(max(half * x, np.float32(-7.9)), np.float32(7.9))
    square = x * x
    top = np.float32(-2.76076847742355e-16)
    top = top * square + np.float32(2.00018790482477e-13)
    top = top * square + np.float32(-8.60467152213735e-11)
    top = top * square + np.float32(5.12229709037114e-08)
    top = top * square + np.float32(1.48572235717979e-05)
    top = top * square + np.float32(6.37261928875436e-04)
    top = top * square + np.float32(4.89352455891786e-03)
    bottom = np.float32(1.19825839466702e-06)
    bottom = bottom * square + np.float32(1.18534705686654e-04)
    bottom = bottom * square + np.float32(2.26843463243900e-03)
    bottom = bottom * square + np.float32(4.89352518554385e-03)
    return half + half * (x * top / bottom)


@kernel
def _forward(x: NDArray[np.float32], flat: NDArray[np.float32], starts: NDArray[np.int64], states: Arrays) -> None:
    """One model (P,) on x (R, d): fills the states of its layers, (R, outputs) each."""
    slope, here = np.float32(SLOPE), x
    for number in range(len(states)):
        out = states[number]
        inputs, outputs = here.shape[1], out.shape[1]
        stop = starts[number] + inputs * outputs
        np.dot(here, flat[starts[number] : stop].reshape((inputs, outputs)), out)
        bias = flat[stop : stop + outputs]
        for b in range(len(out)):
            if number == len(states) - 1:
                for k in range(outputs):
                    out[b, k] = _sigmoid(out[b, k] + bias[k])
            else:
                for k in range(outputs):
                    z = out[b, k] + bias[k]
                    out[b, k] = z if z > 0 else slope * z
        here = out


@kernel
def _backward(
    x: NDArray[np.float32],
    flat: NDArray[np.float32],
    starts: NDArray[np.int64],
    states: Arrays,
    slopes: Arrays,
    gradient: NDArray[np.float32],
) -> None:
    """Fill one model's gradient (P,); the last of ``slopes`` holds that of the loss by the reconstruction."""
    slope, one, last = np.float32(SLOPE), np.float32(1), len(states) - 1
    for step in range(len(states)):
        number = last - step
        y, delta = states[number], slopes[number]
        inputs, outputs = states[number - 1].shape[1] if number > 0 else x.shape[1], y.shape[1]
        stop = starts[number] + inputs * outputs
        bias = gradient[stop : stop + outputs]
        bias[:] = 0
        for b in range(len(y)):
            if number == last:
                for k in range(outputs):
                    delta[b, k] *= y[b, k] * (one - y[b, k])
                    bias[k] += delta[b, k]
            else:
                for k in range(outputs):
                    delta[b, k] *= one if y[b, k] > 0 else slope
                    bias[k] += delta[b, k]
        here = states[number - 1] if number > 0 else x
        np.dot(here.T, delta, gradient[starts[number] : stop].reshape((inputs, outputs)))
        if number > 0:
            np.dot(delta, flat[starts[number] : stop].reshape((inputs, outputs)).T, slopes[number - 1])


@kernel
def _adam(m: int, memory: Arrays, tables: tuple[Any, ...], gradient: NDArray[np.float32]) -> None:
    flat, first, second, steps = memory
    correction1, root2, rate = tables
    keep1, keep2 = np.float32(1 - BETA1), np.float32(BETA2)
    add2, epsilon = np.float32(1 - BETA2), np.float32(EPSILON)
    at = min(steps[m, 0], STEPS_TO_FULL - 1)
    # p -= rate (m / c1) / (sqrt(v / c2) + eps), with what does not vary inside a model taken together.
    scale, floor = correction1[at] / (rate * root2[at]), epsilon * root2[at]
    p, average, square = flat[m], first[m], second[m]
    for k in range(len(gradient)):
        average[k] += keep1 * (gradient[k] - average[k])
        square[k] = keep2 * square[k] + add2 * (gradient[k] * gradient[k])
        p[k] -= average[k] / ((np.sqrt(square[k]) + floor) * scale)
    steps[m, 0] += 1


@kernel
def _plain_slope(
    x: NDArray[np.float32],
    rebuilt: NDArray[np.float32],
    weight: NDArray[np.float32],
    inputs: NDArray[np.float32],
    slope: NDArray[np.float32],
    error: NDArray[np.float32],
) -> Any:
    """losses.plain_slope of one model: fills the slope and the errors (B, d), returns the loss."""
    least, two, events = np.float32(1e-12), np.float32(2), np.float32(0)
    for b in range(len(x)):
        events += weight[b]
    for b in range(len(x)):
        share = two * weight[b] / (max(events, least) * max(total(inputs, b), least))
        for k in range(x.shape[1]):
            error[b, k] = rebuilt[b, k] - x[b, k]
            slope[b, k] = share * inputs[b, k] * error[b, k]
    return np.float32(0.5) * np.dot(slope.ravel(), error.ravel())


@kernel
def _plain_step(
    which: NDArray[np.int64],
    batch: Arrays,
    memory: Arrays,
    tables: tuple[Any, ...],
    starts: NDArray[np.int64],
    room: tuple[Any, ...],
    out: Arrays,
) -> None:
    x, weight, inputs = batch
    states, slopes, gradient, error = room
    loss, rebuilt = out
    for a in range(len(which)):
        flat = memory[0][which[a]]
        _forward(x[a], flat, starts, states)
        rebuilt[a] = states[-1]
        loss[a] = _plain_slope(x[a], states[-1], weight[a], inputs[a], slopes[-1], error)
        _backward(x[a], flat, starts, states, slopes, gradient)
        _adam(which[a], memory, tables, gradient)


@kernel
def _descend(
    which: NDArray[np.int64],
    x: NDArray[np.float32],
    slope: NDArray[np.float32],
    memory: Arrays,
    tables: tuple[Any, ...],
    starts: NDArray[np.int64],
    room: tuple[Any, ...],
) -> None:
    states, slopes, gradient, _ = room
    for a in range(len(which)):
        flat = memory[0][which[a]]
        _forward(x[a], flat, starts, states)
        slopes[-1][:] = slope[a]
        _backward(x[a], flat, starts, states, slopes, gradient)
        _adam(which[a], memory, tables, gradient)


@kernel
def _rebuild(
    which: NDArray[np.int64],
    x: NDArray[np.float32],
    flat: NDArray[np.float32],
    starts: NDArray[np.int64],
    states: Arrays,
    out: NDArray[np.float32],
) -> None:
    for a in range(len(which)):
        _forward(x[a], flat[which[a]], starts, states)
        out[a] = states[-1]


@kernel
def _reconstruct(
    models: NDArray[np.int64],
    scaled: NDArray[np.float32],
    flat: NDArray[np.float32],
    starts: NDArray[np.int64],
    states: Arrays,
    out: NDArray[np.float32],
) -> None:
    """Rows of the same model are brought together, so many at a time as a state has rows."""
    rows, width = states[0].shape[0], scaled.shape[1]
    nothing, one = np.float32(0), np.float32(1)
    x = np.full((rows, width), np.float32(0.5))
    order = together(models, len(flat))
    begin = 0
    while begin < len(order):
        model, stop = models[order[begin]], begin
        while stop < len(order) and stop - begin < rows and models[order[stop]] == model:
            for k in range(width):
                x[stop - begin, k] = min(max(scaled[order[stop], k], nothing), one)
            stop += 1
        _forward(x, flat[model], starts, states)
        rebuilt = states[-1]
        for place in range(begin, stop):
            for k in range(width):
                out[order[place], k] = rebuilt[place - begin, k]
        begin = stop
