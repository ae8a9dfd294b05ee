"""Whether a device computes what the processor does: a small stack of models learns and scores on both.

What is compared: losses, reconstructions, weights and moments, each by its largest difference as a share of the largest
number in it. Rounding alone comes to half a millionth of that after the few steps taken here: so much do torch's
operations on the processor differ from the compiled loops, with other orders of summing up and other roundings of each
product. Products in half the digits, as some devices make them, come to ten thousandths. The limit is twenty times the
former, which is also what different builds agree to.
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
STEPS = 5  # a GPU's operations are recorded at the third of a kind, and played from then on
MOST = 1e-5


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two stacks differ most, beside what is allowed there."""

    where: str
    share: float  # of the largest number there; NaN where one of the two is none

    @property
    def too_large(self) -> bool:
        return not self.share <= MOST

    def __str__(self) -> str:
        """As a clause of a sentence."""
        by = "it gives no numbers" if np.isnan(self.share) else f"it differs by {self.share:.1e} of the largest number"
        return f"{by} in {self.where}; up to {MOST:.0e} is rounding"


def largest_difference(make: Callable[..., Stack]) -> Difference:
    """The first difference from the processor that is too large, else the largest of all.

    Args:
        make: Gives a stack on the device, of a width and a rate (``network.stack_on``).
    """
    worst = Difference("nothing", 0.0)
    told = zip(_trace(CompiledAutoencoder(WIDTH, rate=RATE)), _trace(make(WIDTH, rate=RATE)), strict=True)
    for (where, ours), (_, theirs) in told:
        here = Difference(where, _share(ours, theirs))
        if here.too_large:
            return here
        worst = max(worst, here, key=lambda difference: difference.share)
    return worst


def _share(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    if not np.isfinite(theirs).all():
        return float("nan")
    off = np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max()
    return float(off / max(float(np.abs(ours).max()), np.finfo(np.float32).tiny))


def _trace(stack: Stack) -> Iterator[tuple[str, NDArray[Any]]]:
    """What a stack says and holds, step after step: all that the detector asks of one, twice where it is recorded."""
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
