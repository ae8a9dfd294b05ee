"""What a process that scores sets up for itself, once."""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from stream_ad.detector.config import DetectorConfig, DetectorOptions, LearningConfig, LossConfig
from stream_ad.detector.feedback.label_trust import believed
from stream_ad.detector.model.device import on_torch_loaded
from stream_ad.records.columns import Events, Labels, ValueBlock
from stream_ad.shard.shard import Shard
from stream_ad.telemetry.compile_progress import compiling_told

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ad.telemetry.compile_progress import Teller

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # mallopt's numbers for them
BLOCK_BYTES, KEPT_BYTES = 32 << 20, 128 << 20
FAULTS = (200, 201, 300, 301)  # events of the start, labelled so
NEW_OBJECTS = 50_000  # several steps' records, nearly all of which go as soon as they are not needed any more


def prepare_process(record: Teller | None = None) -> None:
    """One thread for torch and BLAS, freed memory kept for the next step, the detector's loops compiled, and few
    searches for garbage.

    More threads would group sums anew and change their last bits, and wait for each other where a machine is busy.
    The loops are compiled now and not under the first events.

    Args:
        tell: Told of compiling, which takes a while where no earlier process has left its work on disk.
    """
    on_torch_loaded(_tame_torch)
    _keep_freed_blocks()
    compile_loops(record)
    threadpool_limits(1, user_api="blas")  # of the libraries that are loaded by now
    _collect_seldom()


def compile_loops(record: Teller | None = None) -> None:
    """What of ``prepare_process`` changes nothing for others in the process: the detector's loops, compiled."""
    with compiling_told(record) if record is not None else nullcontext():
        _use_every_loop()


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


def _tame_torch() -> None:
    """Also where it is loaded while the worker works: what it has made by then is there to stay."""
    sys.modules["torch"].set_num_threads(1)
    if gc.get_freeze_count():
        gc.collect()
        gc.freeze()


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
    """Score and learn past the horizon, with labels of both kinds; once is enough for a process.

    One sensor has memory and one has none, whose few anomalies are no reason yet to fit a head: that and the guided
    loss are torch's business, which can wait for a worker that has such labels.
    """
    options = DetectorOptions(
        detector=DetectorConfig(device="cpu"),
        learning=LearningConfig(label_horizon_events=64, warmup_events=64, loss=LossConfig(alpha=0)),
    )
    number = np.arange(512)
    ids, sensors = [f"event-{n}" for n in number], [("walk", "noise")[n % 2] for n in number]
    names: list[str | None] = ["fault" if n in FAULTS else "normal" for n in number.tolist()]
    values = np.random.default_rng(0).normal(size=(len(number), 2))
    values[::2] = values[::2].cumsum(axis=0)
    block = ValueBlock(("a", "b"), number, values)
    events = Events(number, number, number * 1_000_000_000, sensors, ids, (block,))
    labels = Labels(number, number + 128, sensors, names, list(ids), number, number)
    with _no_search_for_garbage():
        Shard(options).step(events, labels)
        believed(np.zeros(1), np.zeros(1))


@contextmanager
def _no_search_for_garbage() -> Iterator[None]:
    """A compiler makes many objects, and looking through them time and again takes a tenth of its time."""
    searched = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searched:
            gc.enable()
