"""The stacked autoencoder on a GPU: what all models do together is recorded once and replayed.

At these sizes starting a kernel costs more than running it. A CUDA graph starts the forward pass, or
the forward pass with its step, as one. It holds addresses: a stack that has grown is recorded anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stream_ad.detector.model.torch_autoencoder import Autoencoder

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from stream_ad.detector.model.device import Device

EAGER_CALLS = 2  # before a shape is recorded: libraries take their workspaces in them
MOST_SHAPES = 64  # recorded at a time: each keeps the memory of its activations


@dataclass(slots=True)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    output: tuple[Tensor, ...]


class CudaAutoencoder(Autoencoder):
    """See Autoencoder: the same to rounding (benchmarks/gpu.py), whatever was recorded (test_cuda_autoencoder.py)."""

    def __init__(self, width: int, *, device: Device, rate: float) -> None:
        super().__init__(width, device=device, rate=rate)
        self._seen: dict[tuple[object, ...], int] = {}
        self._recorded: dict[tuple[object, ...], _Recorded] = {}
        self._recorded_for: tuple[int, ...] = ()

    def reconstruct_grid(self, which: NDArray[np.int64], x: Tensor) -> Tensor:
        """As Autoencoder.rebuild; good until the next call of the same shape."""
        if not self._all(which):
            return super().reconstruct_grid(which, x)
        (out,) = self._replay("rebuild", lambda x: (super(CudaAutoencoder, self).reconstruct_grid(which, x),), x)
        return out

    def train_step(self, which: NDArray[np.int64], x: Tensor, weight: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """As Autoencoder.plain_step; good until the next call of the same shape."""
        if not self._all(which):
            return super().train_step(which, x, weight, inputs)
        plain = super().train_step
        loss, reconstructed = self._replay("step", lambda *batch: plain(which, *batch), x, weight, inputs)
        return loss, reconstructed

    def _replay(self, name: str, function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> tuple[Tensor, ...]:
        memory = tuple(held.data_ptr() for held in (self.flat, self.first, self.second, self.steps))
        if memory != self._recorded_for:
            self._seen.clear()
            self._recorded.clear()
            self._recorded_for = memory
        key = (name, *(one.shape for one in inputs))
        recorded = self._recorded.get(key)
        if recorded is None:
            self._seen[key] = self._seen.get(key, 0) + 1
            if self._seen[key] <= EAGER_CALLS or len(self._recorded) >= MOST_SHAPES:
                return function(*inputs)
            held = tuple(torch.empty_like(one) for one in inputs)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):  # records, runs nothing
                output = function(*held)
            self._recorded[key] = recorded = _Recorded(graph, held, output)
        for place, given in zip(recorded.inputs, inputs, strict=True):
            place.copy_(given, non_blocking=True)
        recorded.graph.replay()
        return recorded.output
