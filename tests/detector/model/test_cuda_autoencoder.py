"""The GPU's autoencoder where there is no GPU: its graphs are played by a tape of torch's operations on the processor.

A tape is what a CUDA graph is: the same operations on the same memory, with the numbers that Python had when they were
recorded. Whether a GPU computes the same is shown by benchmarks/gpu.py, where there is one.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from stream_ad.detector.model import cuda_autoencoder
from stream_ad.detector.model.cuda_autoencoder import EAGER_CALLS, CudaAutoencoder
from stream_ad.detector.model.torch_autoencoder import Autoencoder

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDTH = 16
KEPT = ("flat", "first", "second", "steps")
events = st.sampled_from(
    [
        ("step", 8, True),
        ("step", 16, True),
        ("reconstruct_grid", 8, True),
        ("step", 8, False),
        ("reconstruct_grid", 8, False),
        ("append",),
        ("remove",),
        ("load",),
    ]
)


class Tape(TorchDispatchMode):
    """Stands for torch.cuda.CUDAGraph."""

    replays = 0  # of all tapes

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, operation: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = operation(*args, **(kwargs or {}))
        self.operations.append((operation, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        Tape.replays += 1
        for operation, args, kwargs, out in self.operations:
            again = operation(*args, **kwargs)
            if again.data_ptr() != out.data_ptr():  # neither a view nor done in place
                out.copy_(again)


class Pair:
    """A stack that records and one that does not, given the same calls."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.plain, self.recorded = (kind(WIDTH, device="cpu", rate=3e-3) for kind in (Autoencoder, CudaAutoencoder))
        self.keys = 0
        self.append()
        self.append()

    def append(self) -> None:
        for stack in (self.plain, self.recorded):
            stack.append(np.array([self.keys], np.uint64))
        self.keys += 1

    def remove(self) -> None:
        if self.plain.size > 1:
            for stack in (self.plain, self.recorded):
                stack.remove(0)

    def load(self) -> None:
        for stack in (self.plain, self.recorded):
            stack.load("", {name: array.copy() for name, array in stack.state("").items()})

    def step(self, rows: int, everyone: bool) -> None:
        self._same("train_step", rows, everyone, 3)

    def reconstruct_grid(self, rows: int, everyone: bool) -> None:
        self._same("reconstruct_grid", rows, everyone, 1)

    def _same(self, name: str, rows: int, everyone: bool, inputs: int) -> None:
        size = self.plain.size
        which = np.arange(size) if everyone else self.random.choice(size, max(1, size - 1), replace=False)
        shape = len(which), rows, WIDTH
        x, weight, of_inputs = (
            torch.from_numpy(self.random.random(sizes, np.float32)) for sizes in (shape, shape[:2], shape)
        )
        batch = (x, weight, of_inputs)[:inputs]
        results = [getattr(stack, name)(which, *batch) for stack in (self.plain, self.recorded)]
        for ours, theirs in zip(*(part if isinstance(part, tuple) else (part,) for part in results), strict=True):
            assert torch.equal(ours, theirs)

    @contextmanager
    def recording(self, tape: Tape) -> Iterator[None]:
        """Stands for torch.cuda.graph: what is recorded is not done yet."""
        before = {name: getattr(self.recorded, name).clone() for name in KEPT}
        with tape:
            yield
        for name, array in before.items():
            getattr(self.recorded, name).copy_(array)


@settings(deadline=None)
@given(st.integers(0, 9), st.lists(st.tuples(events, st.integers(1, 3)), max_size=12))
def test_what_is_recorded_does_what_is_not(seed, story) -> None:
    """Through any story of passes, steps, new models, dropped ones and loaded ones a stack that plays what it has
    recorded gives the same numbers and comes to the same weights, bit for bit, and records no more than it may.
    """
    pair = Pair(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "CUDAGraph", Tape)
        patch.setattr(torch.cuda, "graph", pair.recording)
        patch.setattr(cuda_autoencoder, "EAGER_CALLS", 1)
        patch.setattr(cuda_autoencoder, "MOST_SHAPES", 2)
        for (event, *arguments), times in story:
            for _ in range(times):
                getattr(pair, event)(*arguments)
    assert len(pair.recorded._recorded) <= 2
    ours, theirs = (stack.state("") for stack in (pair.plain, pair.recorded))
    for name in KEPT:
        assert np.array_equal(ours[name], theirs[name]), name


def test_a_shape_that_comes_again_is_played() -> None:
    """The third time a pass has the same shape it is recorded, and from then on nothing is done but play it."""
    pair, before = Pair(0), Tape.replays
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "CUDAGraph", Tape)
        patch.setattr(torch.cuda, "graph", pair.recording)
        for _ in range(6):
            pair.step(8, everyone=True)
    assert Tape.replays == before + 6 - EAGER_CALLS
    pair.step(8, everyone=True)
    assert Tape.replays == before + 7 - EAGER_CALLS
