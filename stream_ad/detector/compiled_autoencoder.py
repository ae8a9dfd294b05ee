"""The stacked autoencoder on the processor: torch multiplies the matrices, the rest is compiled.

At these sizes a pass over memory costs as much as a product, so that what torch does in many
passes (biases, activations, their slopes, Adam) is done here in one each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from stream_ad.detector.autoencoder import BETA1, BETA2, EPSILON, SLOPE, STEPS_TO_FULL, Autoencoder
from stream_ad.detector.compiled import Arrays, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray


class CompiledAutoencoder(Autoencoder):
    """See Autoencoder: the same to rounding (tests/detector/test_autoencoder.py)."""

    def forward(self, flat: Tensor, x: Tensor) -> list[Tensor]:
        """As Autoencoder.forward; the models' parameters must be rows of one block of memory."""
        states, parameters = [x], flat.numpy()
        for layer in self.layers:
            z = torch.bmm(states[-1], layer.weight(flat))
            _activate(z.numpy(), parameters, layer.bias, layer is self.layers[-1])
            states.append(z)
        return states

    def plain_slope(self, x: Tensor, rebuilt: Tensor, weight: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """See losses.plain_slope."""
        slope, loss = torch.empty_like(x), torch.empty(len(x))
        _plain_slope(*(one.numpy() for one in (x, rebuilt, weight, inputs, slope, loss)))
        return slope, loss

    def descend(self, which: NDArray[np.int64], flat: Tensor, states: list[Tensor], slope: Tensor) -> None:
        """As Autoencoder.descend."""
        delta = slope
        _sigmoid_slope(delta.numpy(), states[-1].numpy())
        steps = self.steps.numpy()
        memory = (self.flat.numpy(), self.first.numpy(), self.second.numpy())
        tables = self.correction1.numpy(), self.root2.numpy(), self.rate
        for number in range(len(self.layers) - 1, -1, -1):
            layer, here = self.layers[number], delta
            gradient = torch.bmm(states[number].transpose(1, 2), here)  # (A, inputs, outputs)
            if number:
                delta = torch.bmm(here, layer.weight(flat).transpose(1, 2))
                _leaky_slope(delta.numpy(), states[number].numpy())
            _adam(which, memory, steps, tables, layer.start, gradient.numpy(), here.numpy())
        steps[which] += 1


@kernel
def _activate(z: NDArray[np.float32], flat: NDArray[np.float32], start: int, last: bool) -> None:
    slope = np.float32(SLOPE)
    for a in range(z.shape[0]):
        bias = flat[a, start : start + z.shape[2]]
        for b in range(z.shape[1]):
            row = z[a, b]
            if last:
                for k in range(len(row)):
                    row[k] = _sigmoid(row[k] + bias[k])
            else:
                for k in range(len(row)):
                    x = row[k] + bias[k]
                    row[k] = x if x > 0 else slope * x


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
def _plain_slope(
    x: NDArray[np.float32],
    rebuilt: NDArray[np.float32],
    weight: NDArray[np.float32],
    inputs: NDArray[np.float32],
    slope: NDArray[np.float32],
    loss: NDArray[np.float32],
) -> None:
    least, two = np.float32(1e-12), np.float32(2)
    for a in range(x.shape[0]):
        events, total = np.float32(0), np.float32(0)
        for b in range(x.shape[1]):
            events += weight[a, b]
        for b in range(x.shape[1]):
            each, squares = np.float32(0), np.float32(0)
            for k in range(x.shape[2]):
                each += inputs[a, b, k]
            share = weight[a, b] / (max(events, least) * max(each, least))
            for k in range(x.shape[2]):
                error = rebuilt[a, b, k] - x[a, b, k]
                slope[a, b, k] = two * share * inputs[a, b, k] * error
                squares += inputs[a, b, k] * error * error
            total += share * squares
        loss[a] = total


@kernel
def _sigmoid_slope(delta: NDArray[np.float32], y: NDArray[np.float32]) -> None:
    one = np.float32(1)
    for a in range(y.shape[0]):
        for b in range(y.shape[1]):
            for k in range(y.shape[2]):
                delta[a, b, k] *= y[a, b, k] * (one - y[a, b, k])


@kernel
def _leaky_slope(delta: NDArray[np.float32], y: NDArray[np.float32]) -> None:
    slope, one = np.float32(SLOPE), np.float32(1)
    for a in range(y.shape[0]):
        for b in range(y.shape[1]):
            for k in range(y.shape[2]):
                delta[a, b, k] *= one if y[a, b, k] > 0 else slope


@kernel
def _adam(
    which: NDArray[np.int64],
    memory: Arrays,
    steps: NDArray[np.int64],
    tables: tuple[Any, ...],
    start: int,
    gradient: NDArray[np.float32],
    delta: NDArray[np.float32],
) -> None:
    """One layer's weights, then its biases, whose gradient is the sum of delta (A, B, outputs) over the events."""
    flat, first, second = memory
    correction1, root2, rate = tables
    _, inputs, outputs = gradient.shape
    own = np.empty((inputs + 1) * outputs, np.float32)
    keep1, keep2 = np.float32(1 - BETA1), np.float32(BETA2)
    add2, epsilon, pace = np.float32(1 - BETA2), np.float32(EPSILON), np.float32(rate)
    for a in range(len(which)):
        m = which[a]
        own[: inputs * outputs] = gradient[a].ravel()
        bias = own[inputs * outputs :]
        bias[:] = 0
        for b in range(delta.shape[1]):
            row = delta[a, b]
            for k in range(outputs):
                bias[k] += row[k]
        at = min(steps[m, 0], STEPS_TO_FULL - 1)
        # p -= rate (m / c1) / (sqrt(v / c2) + eps), with what does not vary inside a model taken together.
        scale, floor = correction1[at] / (pace * root2[at]), epsilon * root2[at]
        stop = start + len(own)
        p, average, square = flat[m, start:stop], first[m, start:stop], second[m, start:stop]
        for k in range(len(own)):
            average[k] += keep1 * (own[k] - average[k])
            square[k] = keep2 * square[k] + add2 * (own[k] * own[k])
            p[k] -= average[k] / ((np.sqrt(square[k]) + floor) * scale)
