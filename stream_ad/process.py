"""What a process that scores sets up for itself, once."""

from __future__ import annotations

import ctypes
import gc
from functools import cache

import numpy as np
import torch
from numba.core.event import install_timer
from threadpoolctl import threadpool_limits

from stream_ad.columns import Events, Labels, ValueBlock
from stream_ad.detector.config import DetectorConfig, DetectorOptions, LearningConfig
from stream_ad.shard import Shard

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # mallopt's numbers for them
BLOCK_BYTES, KEPT_BYTES = 32 << 20, 128 << 20
NEW_OBJECTS = 50_000  # several steps' records, nearly all of which go as soon as they are not needed any more


def prepare_process() -> str:
    """One thread for torch and BLAS, freed memory kept for the next step, the detector's loops compiled, and few
    searches for garbage.

    More threads would group sums anew and change their last bits, and wait for each other where a machine is busy.
    The loops are compiled now and not under the first events.

    Returns:
        What to tell the operator, if anything: compiling takes a while where no earlier process has
        left its work on disk.
    """
    torch.set_num_threads(1)
    _keep_freed_blocks()
    said = compile_loops()
    threadpool_limits(1, user_api="blas")  # of the libraries that are loaded by now
    _collect_seldom()
    return said


def compile_loops() -> str:
    """What of ``prepare_process`` changes nothing for others in the process: the detector's loops, compiled.

    Returns:
        As there.
    """
    compiling: list[float] = []
    with install_timer("numba:compile", compiling.append):  # says nothing of loops found on disk
        _use_every_loop()
    if not compiling:
        return ""
    return f"Compiled the detector's loops in {sum(compiling):.0f} s; they are kept on disk for the next start."


def _keep_freed_blocks() -> None:
    """Left alone, glibc returns each block of over 128 KiB to the system as soon as it is freed and takes
    it anew, page fault by page fault, at the next micro-batch: it is told to keep blocks of up to
    32 MiB, 128 MiB in all. Other C libraries are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(MMAP_THRESHOLD, BLOCK_BYTES)
    mallopt(TRIM_THRESHOLD, KEPT_BYTES)


@cache
def _collect_seldom() -> None:
    """Left alone, Python looks for garbage in cycles several times in a step, and now and then through all that torch
    and its kin have made, which holds the stream up for a fifth of a second. What is there by now is there to stay;
    what the first of several workers in a process leaves behind is not.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, *gc.get_threshold()[1:])


@cache
def _use_every_loop() -> None:
    """Score and learn one sensor past its horizon, with verdicts of both kinds; once is enough for a process."""
    options = DetectorOptions(
        detector=DetectorConfig(device="cpu"), learning=LearningConfig(label_horizon_events=64, warmup_events=64)
    )
    number = np.arange(256)
    ids, sensors = [f"event-{one}" for one in number.tolist()], ["sensor"] * len(number)
    names: list[str | None] = ["fault" if one % 8 == 0 else "normal" for one in number.tolist()]
    values = np.random.default_rng(0).normal(size=(len(number), 2))
    block = ValueBlock(("a", "b"), number, values)
    Shard(options).step(
        Events(number, number, number * 1_000_000_000, sensors, ids, (block,)),
        Labels(number, number + 64, sensors, names, list(ids), number, number),
    )
