"""Devices of the autoencoder: moving arrays to and from them, and loading torch only when it is needed.

The autoencoder of the CPU is compiled and needs no torch, whose import takes longer than the rest of a start. Torch
is loaded for a GPU, and when the first labelled anomaly is learned.
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
    """Call a function once torch is loaded: now, or as soon as a module loads it."""
    if "torch" in sys.modules:
        act()
    elif act not in _torch_callbacks:
        _torch_callbacks.append(act)


def run_torch_callbacks() -> None:
    """Call the functions that wait for torch. Each module that imports torch calls this before it computes."""
    while _torch_callbacks:
        _torch_callbacks.pop()()


def to_device(array: NDArray[Any], device: Device) -> Any:
    """Return an array of any shape, such as (A, B, d), as float32 on a device: a NumPy array on the CPU, else a tensor.

    It is pinned on the way to a GPU, so that the copy is asynchronous.
    """
    array = np.ascontiguousarray(array, np.float32)
    if device == "cpu":
        return array
    import torch  # noqa: PLC0415 -- see the module

    return torch.from_numpy(array).pin_memory().to(device, non_blocking=True)


def to_numpy(numbers: Any) -> NDArray[Any]:
    """Return numbers of any shape, such as (A, B, d), that ``to_device`` moved as a NumPy array."""
    array: NDArray[Any] = numbers if isinstance(numbers, np.ndarray) else numbers.detach().cpu().numpy()
    return array


def is_out_of_memory(error: Exception) -> bool:
    """Return whether Python, a GPU or torch's allocator on the CPU found too little memory.

    Torch's CPU allocator raises a plain RuntimeError. An error of torch shows that torch is loaded, so that it need
    not be imported.
    """
    torch = sys.modules.get("torch")
    scarce = (MemoryError,) if torch is None else (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, scarce) or "DefaultCPUAllocator" in str(error)
