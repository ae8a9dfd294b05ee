"""Choice of the device that computes the models of this process; a GPU is used only after a check of its results."""

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
    """Return the device for ``detector.device``; a GPU is checked the first time that it is needed.

    Args:
        wanted: The setting: auto, cpu or cuda.

    Raises:
        DeviceError: The setting is cuda, and there is no GPU, or it failed the check.
    """
    if wanted == "cpu" or not _torch_finds_gpu(asked=wanted == "cuda"):
        if wanted == "cuda":
            raise DeviceError(
                "detector.device is cuda, but torch finds no CUDA device on this machine.",
                hint="Install a CUDA build of torch and check nvidia-smi, or set detector.device to auto or cpu.",
            )
        return "cpu"
    fault = _fault()
    if fault and wanted == "cuda":
        raise DeviceError(
            f"detector.device is cuda, but the GPU does not give the same results as the CPU: {fault}.",
            hint="Check nvidia-smi and the driver, let torch compute in full precision (no TF32), try another build of"
            " torch, or set detector.device to auto or cpu.",
        )
    return "cpu" if fault else "cuda"


def passed_over(wanted: str) -> str:
    """Return a warning that says why a GPU of this machine is not used with detector.device auto; empty without one."""
    if wanted != "auto" or not _torch_finds_gpu(asked=False) or not (fault := _fault()):
        return ""
    return f"the GPU is not used, since it does not give the same results as the CPU: {fault}"


@cache
def _torch_finds_gpu(*, asked: bool) -> bool:
    if not asked and not _driver_is_installed():
        return False
    import torch  # noqa: PLC0415 -- importing it takes longer than everything else at the start

    return bool(torch.cuda.is_available())


def _driver_is_installed() -> bool:
    """Return whether there is a driver, without which torch finds no device; takes next to no time."""
    if Path("/dev/kfd").exists():  # the driver of AMD, whose devices torch also calls CUDA
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
    """Return what is wrong with the GPU, as a clause; empty where its results are those of the CPU. Checked once."""
    from stream_ad.detector.model.device_check import largest_difference  # noqa: PLC0415 -- only where there is a GPU
    from stream_ad.detector.model.online_autoencoder import stack_on  # noqa: PLC0415

    try:
        difference = largest_difference(partial(stack_on, "cuda"))
    except RuntimeError as error:  # torch raises this for any fault of a device, lack of memory included
        first, *_ = str(error).strip().splitlines() or [""]
        return f"it raised {type(error).__name__} ({first})"
    return str(difference) if difference.too_large else ""
