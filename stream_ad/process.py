"""What a process that scores sets up for itself, once."""

from __future__ import annotations

import ctypes

import torch

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # mallopt's numbers for them
BLOCK_BYTES, KEPT_BYTES = 32 << 20, 128 << 20


def prepare_process() -> None:
    """One thread for torch, and freed memory kept for the next step.

    More threads would group sums anew and change their last bits. Left alone, glibc returns each
    block of over 128 KiB to the system as soon as it is freed and takes it anew, page fault by page
    fault, at the next micro-batch: it is told to keep blocks of up to 32 MiB, 128 MiB in all. Other C
    libraries are left as they are.
    """
    torch.set_num_threads(1)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(MMAP_THRESHOLD, BLOCK_BYTES)
    mallopt(TRIM_THRESHOLD, KEPT_BYTES)
