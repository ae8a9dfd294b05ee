"""Which device the models of this process are computed on."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from stream_ad.errors import DeviceError

if TYPE_CHECKING:
    from stream_ad.detector.device import Device

_DRIVERS = ("libcuda.so.1", "nvcuda.dll")


def choose_device(wanted: str) -> Device:
    """The device for ``detector.device``."""
    there = wanted != "cpu" and _torch_finds_one(asked=wanted == "cuda")
    if wanted == "cuda" and not there:
        raise DeviceError(
            "detector.device is cuda, but torch finds no CUDA device here.",
            hint="Install a CUDA build of torch and check nvidia-smi, or set detector.device to auto or cpu.",
        )
    return "cuda" if there else "cpu"


@cache
def _torch_finds_one(*, asked: bool) -> bool:
    if not asked and not _driver_is_here():
        return False
    import torch  # noqa: PLC0415 -- takes longer than all the rest of a start

    return bool(torch.cuda.is_available())


def _driver_is_here() -> bool:
    """Whether there is a driver, without which torch finds no device; costs next to nothing."""
    if Path("/dev/kfd").exists():  # AMD's, which torch calls CUDA, too
        return True
    for name in _DRIVERS:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False
