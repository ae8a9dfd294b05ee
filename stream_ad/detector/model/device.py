"""Where the autoencoder computes, the way there from NumPy, and what becomes of torch once it is needed.

The processor's autoencoder is compiled and needs no torch, whose import takes longer than all the rest of a start:
torch is loaded for a GPU, and when the first labelled anomaly is learned.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

Device = Literal["cpu", "cuda"]

_torch_callbacks: list[Callable[[], None]] = []


def on_torch_loaded(act: Callable[[], None]) -> None:
    """Have this done once torch is loaded: now, or as soon as something needs it."""
    if "torch" in sys.modules:
        act()
    elif act not in _torch_callbacks:
        _torch_callbacks.append(act)


def run_torch_callbacks() -> None:
    """Do what was to wait for torch; called by each module that loads it, before it computes."""
    while _torch_callbacks:
        _torch_callbacks.pop()()


def to_device(array: NDArray[Any], device: Device) -> Any:
    """The array as float32 where it is computed with: itself on the processor, a tensor on a GPU.

    Pinned on the way to a GPU, so that the copy does not wait.
    """
    array = np.ascontiguousarray(array, np.float32)
    if device == "cpu":
        return array
    import torch  # noqa: PLC0415 -- see the module

    return torch.from_numpy(array).pin_memory().to(device, non_blocking=True)


def to_numpy(numbers: Any) -> NDArray[Any]:
    """The inverse of ``to_device``."""
    array: NDArray[Any] = numbers if isinstance(numbers, np.ndarray) else numbers.detach().cpu().numpy()
    return array


def is_out_of_memory(error: Exception) -> bool:
    """Return whether Python, a GPU or torch's allocator on the processor found too little memory.

    The allocator has no error of its own for it. An error of torch's means that torch is loaded: it need not be here.
    """
    torch = sys.modules.get("torch")
    scarce = (MemoryError,) if torch is None else (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, scarce) or "DefaultCPUAllocator" in str(error)
