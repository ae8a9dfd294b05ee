"""Set-up of a process that scores: threads, memory, compiled kernels, garbage collection."""

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
from stream_ad.telemetry.compile_progress import report_compiling

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ad.telemetry.compile_progress import ProgressReport

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of mallopt
BLOCK_BYTES, KEPT_BYTES = 32 << 20, 128 << 20  # the largest threshold that glibc accepts; several blocks of that size
FAULTS = (200, 201, 300, 301)  # numbers of the events that are labelled as a fault while kernels are compiled
NEW_OBJECTS = 50_000  # between two garbage collections: the records of several steps, nearly all of them freed anyway


def prepare_process(report: ProgressReport | None = None) -> None:
    """Set up this process for scoring; settings hold for the whole process.

    1. Limit torch and BLAS to one thread: more would group sums differently, which changes their last bits, and would
       wait for each other on a busy machine.
    2. Let the C library keep freed memory for the next step.
    3. Compile the kernels of the detector, so that the first events do not wait for it.
    4. Collect garbage rarely.

    Args:
        report: Is told about the compilation, which takes a while where no earlier process has cached its result.
    """
    on_torch_loaded(_tame_torch)
    _keep_freed_blocks()
    compile_loops(report)
    threadpool_limits(1, user_api="blas")  # applies to the libraries that are loaded by now
    _collect_seldom()


def compile_loops(report: ProgressReport | None = None) -> None:
    """Compile the kernels of the detector: the part of ``prepare_process`` that has no effect on other code.

    Args:
        report: See ``prepare_process``.
    """
    with report_compiling(report) if report is not None else nullcontext():
        _use_every_loop()


def _keep_freed_blocks() -> None:
    """Let glibc keep freed blocks of up to 32 MiB, 128 MiB in all; other C libraries are left alone.

    By default glibc returns every block of over 128 KiB to the system as soon as it is freed, and gets it back, page
    fault by page fault, in the next step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(MMAP_THRESHOLD, BLOCK_BYTES)
    mallopt(TRIM_THRESHOLD, KEPT_BYTES)


def _tame_torch() -> None:
    """Limit torch to one thread and, if it is loaded while the worker works, exempt its objects from collection."""
    sys.modules["torch"].set_num_threads(1)
    if gc.get_freeze_count():
        gc.collect()
        gc.freeze()


@cache
def _collect_seldom() -> None:
    """Exempt all present objects from garbage collection, and collect rarely.

    By default Python searches for garbage several times in a step, and now and then among all objects of torch and
    other libraries, which delays the stream by a fifth of a second. These objects are permanent. Those of an earlier
    worker in the same process are not, hence the collection first and only a single freeze.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, *gc.get_threshold()[1:])


@cache
def _use_every_loop() -> None:
    """Score and learn past the horizon, with normal and anomaly labels, so that every kernel is compiled once.

    One of the two sensors is autocorrelated and the other is not. Their anomalies are too few to fit a label head: that
    and the guided loss need torch, which only workers with such labels import.
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
    with _no_garbage_collection():
        Shard(options).step(events, labels)
        believed(np.zeros(1), np.zeros(1))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Suspend garbage collection: a compiler creates many objects, and searching them takes a tenth of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
