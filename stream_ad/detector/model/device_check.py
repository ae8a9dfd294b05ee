"""Check of a device against the CPU: a small stack of models learns and scores on both.

Losses, reconstructions, weights and moments are compared, each by its largest difference as a share of its largest
number. Rounding alone amounts to half a millionth of that after the few steps of the check: torch on the CPU differs
by so much from the compiled loops, since it sums in another order and rounds products differently. Products with half
the digits, as some devices compute them, amount to ten thousandths. The limit is twenty times the former, which
different builds of torch keep as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector.model.numba_autoencoder import CompiledAutoencoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from stream_ad.detector.model.model_stack import Stack

WIDTH, ROWS, RATE = 24, 32, 3e-3
ALL, SOME = np.arange(3), np.array([2, 0])
STEPS = 5  # a GPU records the third operation of a shape, and replays it from then on: both must be compared
MOST = 1e-5  # largest difference that counts as rounding


@dataclass(frozen=True, slots=True)
class Difference:
    """The largest difference between two stacks, and in which result it is."""

    where: str
    share: float  # of the largest number of the result; NaN if the device gives NaN or infinity

    @property
    def too_large(self) -> bool:
        """Whether the difference is more than rounding."""
        return not self.share <= MOST

    def __str__(self) -> str:
        """As a clause of a sentence."""
        by = "it gives no numbers" if np.isnan(self.share) else f"it differs by {self.share:.1e} of the largest number"
        return f"{by} in {self.where}; up to {MOST:.0e} is rounding"


def largest_difference(make: Callable[..., Stack]) -> Difference:
    """Return the first difference from the CPU that is too large, else the largest of all.

    Args:
        make: Creates a stack of a given width and learning rate on the device (see ``stack_on``).
    """
    worst = Difference("nothing", 0.0)
    results = zip(_trace(CompiledAutoencoder(WIDTH, rate=RATE)), _trace(make(WIDTH, rate=RATE)), strict=True)
    for (where, ours), (_, theirs) in results:
        difference = Difference(where, _share(ours, theirs))
        if difference.too_large:
            return difference
        worst = max(worst, difference, key=lambda other: other.share)
    return worst


def _share(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    if not np.isfinite(theirs).all():
        return float("nan")
    off = np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max()
    return float(off / max(float(np.abs(ours).max()), np.finfo(np.float32).tiny))


def _trace(stack: Stack) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the results and the state of a stack, step by step.

    The steps are all that the detector asks of a stack, some of them often enough to be recorded on a GPU.
    """
    random = np.random.default_rng(0)

    def numbers(*shape: int) -> Any:
        return stack.to_numbers(random.random(shape, np.float32))

    def batch(models: int) -> tuple[Any, Any, Any]:
        return numbers(models, ROWS, WIDTH), numbers(models, ROWS), numbers(models, ROWS, WIDTH)

    def taken(what: str, loss: Any, reconstructed: Any) -> Iterator[tuple[str, NDArray[Any]]]:
        yield f"the loss of {what}", stack.to_array(loss)
        yield f"the reconstructions before {what}", stack.to_array(reconstructed)
        for name, array in stack.state("").items():
            yield f"the {NAMES[name]} after {what}", array

    stack.append(np.arange(1, len(ALL) + 1, dtype=np.uint64))
    yield "the first weights", stack.state("")["flat"]
    for step in range(1, STEPS + 1):
        yield from taken(f"step {step}", *stack.train_step(ALL, *batch(len(ALL))))
        yield (
            f"the reconstructions after step {step}",
            stack.to_array(stack.reconstruct_grid(ALL, numbers(len(ALL), 8, WIDTH))),
        )
    yield from taken("two steps at once", *stack.plain_steps(ALL, batch(len(ALL)), batch(len(ALL))))
    yield from taken("a step of some models", *stack.train_step(SOME, *batch(len(SOME))))
    stack.apply_gradient(SOME, numbers(len(SOME), ROWS, WIDTH), numbers(len(SOME), ROWS, WIDTH))
    yield "the weights after a step down a given slope", stack.state("")["flat"]
    models = random.integers(0, len(ALL), 50)
    yield (
        "the reconstructions of single events",
        stack.reconstruct_events(models, random.random((50, WIDTH), np.float32)),
    )


NAMES = {"flat": "weights", "first": "first moments", "second": "second moments", "steps": "numbers of steps"}
