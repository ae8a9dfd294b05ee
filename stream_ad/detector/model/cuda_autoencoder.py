"""The stack of autoencoders on a GPU: operations of all models are recorded once as CUDA graphs and replayed.

At these sizes launching a kernel costs more than running it. A CUDA graph launches a whole forward pass, or a forward
pass with its training step, at once. A graph holds addresses: it is recorded again after the stack has grown.
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

EAGER_CALLS = 2  # calls before a shape is recorded: libraries allocate their workspaces in them
MOST_SHAPES = 64  # graphs kept at a time: each holds the memory of its activations


@dataclass(slots=True)
class _Recorded:
    """A recorded graph with the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    output: tuple[Tensor, ...]


class CudaAutoencoder(Autoencoder):
    """``Autoencoder`` with recorded graphs: the same results up to rounding, recorded or not.

    The former is checked by benchmarks/gpu.py, the latter by test_cuda_autoencoder.py.
    """

    def __init__(self, width: int, *, device: Device, rate: float) -> None:
        super().__init__(width, device=device, rate=rate)
        self._seen: dict[tuple[object, ...], int] = {}
        self._recorded: dict[tuple[object, ...], _Recorded] = {}
        self._recorded_for: tuple[int, ...] = ()

    def reconstruct_grid(self, which: NDArray[np.int64], x: Tensor) -> Tensor:
        """Return (A, R, d) as ``Stack.reconstruct_grid``; valid until the next call with the same shapes."""
        if not self._all(which):
            return super().reconstruct_grid(which, x)
        (out,) = self._replay("reconstruct", lambda x: (super(CudaAutoencoder, self).reconstruct_grid(which, x),), x)
        return out

    def train_step(self, which: NDArray[np.int64], x: Tensor, weight: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return (A,) and (A, B, d) as ``Stack.train_step``; valid until the next call with the same shapes."""
        if not self._all(which):
            return super().train_step(which, x, weight, inputs)
        plain = super().train_step
        loss, reconstructed = self._replay("step", lambda *batch: plain(which, *batch), x, weight, inputs)
        return loss, reconstructed

    def _replay(self, name: str, function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run a function of tensors: eagerly at first, then recorded, then as a replay of the recording."""
        addresses = tuple(array.data_ptr() for array in (self.flat, self.first, self.second, self.steps))
        if addresses != self._recorded_for:
            self._seen.clear()
            self._recorded.clear()
            self._recorded_for = addresses
        key = (name, *(tensor.shape for tensor in inputs))
        recorded = self._recorded.get(key)
        if recorded is None:
            self._seen[key] = self._seen.get(key, 0) + 1
            if self._seen[key] <= EAGER_CALLS or len(self._recorded) >= MOST_SHAPES:
                return function(*inputs)
            buffers = tuple(torch.empty_like(tensor) for tensor in inputs)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):  # records, runs nothing
                output = function(*buffers)
            self._recorded[key] = recorded = _Recorded(graph, buffers, output)
        for buffer, tensor in zip(recorded.inputs, inputs, strict=True):
            buffer.copy_(tensor, non_blocking=True)
        recorded.graph.replay()
        return recorded.output
