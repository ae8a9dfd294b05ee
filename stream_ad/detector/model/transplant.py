"""Models that go on when the features of their sensor change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.row_store import derived_index

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.detector.model.model_stack import Stack


def transplant(
    stack: Stack, other: Stack, model: int, *, features: int, positions: NDArray[np.int64], among: int
) -> None:
    """Make the last model of a stack do on some features what a model of a narrower stack does on its own.

    Args:
        stack: Whose last model it is.
        other: The narrower stack.
        model: Of that.
        features: Features of the other stack.
        positions: (features,) where they stand among this one's.
        among: Features of the stack.
    """
    inner = stack.to_numbers(derived_index(among)[:, positions].ravel())
    outer = stack.to_numbers(derived_index(features).ravel())
    for number, (new, old) in enumerate(zip(stack.layers, other.layers, strict=True)):
        weight, bias = new.of(stack.flat[stack.size - 1 : stack.size])
        old_weight, old_bias = old.of(other.flat[model : model + 1])
        ins = inner if number == 0 else stack.to_numbers(np.arange(old.inputs))
        old_ins = outer if number == 0 else ins
        outs = inner if number == len(stack.layers) - 1 else stack.to_numbers(np.arange(old.outputs))
        old_outs = outer if number == len(stack.layers) - 1 else outs
        weight[0][:, outs] = 0  # what is new must not disturb what was learned
        weight[0][ins[:, None], outs] = old_weight[0][old_ins[:, None], old_outs]
        bias[0, 0, outs] = old_bias[0, 0, old_outs]


def copy(stack: Stack, other: Stack, model: int) -> None:
    """Make the last model of a stack one of a stack of the same width, moments and all."""
    for name in ("flat", "first", "second", "steps"):
        getattr(stack, name)[stack.size - 1] = getattr(other, name)[model]


def reset_feature(stack: Stack, model: int, feature: int, *, among: int) -> None:
    """Forget a feature: as an input it says nothing, as an output it is taken to stand at its mean.

    Args:
        stack: Whose model it is.
        model: Which of them.
        feature: Which of the features.
        among: Features of the stack.
    """
    inputs = stack.to_numbers(derived_index(among)[:, feature])
    for array in (stack.flat, stack.first, stack.second):
        into, _ = stack.layers[0].of(array[model : model + 1])
        out, bias = stack.layers[-1].of(array[model : model + 1])
        into[0, inputs] = 0
        out[0, :, inputs] = 0
        bias[0, 0, inputs] = 0
