"""Which device the models of this process are computed on; a GPU is believed once it has shown its worth."""

from __future__ import annotations

import ctypes
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from stream_ad.errors import DeviceError

if TYPE_CHECKING:
    from stream_ad.detector.model.device import Device

_DRIVERS = ("libcuda.so.1", "nvcuda.dll")


def choose_device(wanted: str) -> Device:
    """The device for ``detector.device``; a GPU is checked the first time that it is asked for.

    Raises:
        DeviceError: A GPU is asked for by name, and there is none, or it failed the check.
    """
    if wanted == "cpu" or not _torch_finds_one(asked=wanted == "cuda"):
        if wanted == "cuda":
            raise DeviceError(
                "detector.device is cuda, but torch finds no CUDA device here.",
                hint="Install a CUDA build of torch and check nvidia-smi, or set detector.device to auto or cpu.",
            )
        return "cpu"
    fault = _fault()
    if fault and wanted == "cuda":
        raise DeviceError(
            f"detector.device is cuda, but the GPU does not compute what the processor does: {fault}.",
            hint="Check nvidia-smi and the driver, let torch compute in full precision (no TF32), try another build of"
            " torch, or set detector.device to auto or cpu.",
        )
    return "cpu" if fault else "cuda"


def passed_over(wanted: str) -> str:
    """Why a GPU that is here is not used although it might be, for a warning; nothing where all is well."""
    if wanted != "auto" or not _torch_finds_one(asked=False) or not (fault := _fault()):
        return ""
    return f"the GPU is not used, since it does not compute what the processor does: {fault}"


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


@cache
def _fault() -> str:
    """What is wrong with the GPU, as a clause; nothing where it agrees with the processor. Found out once."""
    from stream_ad.detector.model.device_check import largest_difference  # noqa: PLC0415 -- only where there is a GPU
    from stream_ad.detector.model.online_autoencoder import stack_on  # noqa: PLC0415

    try:
        difference = largest_difference(partial(stack_on, "cuda"))
    except RuntimeError as error:  # what torch raises for a device, its lack of memory among it
        first, *_ = str(error).strip().splitlines() or [""]
        return f"it raised {type(error).__name__} ({first})"
    return str(difference) if difference.too_large else ""
