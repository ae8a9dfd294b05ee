"""The detector on a GPU beside the processor, in one run: python benchmarks/gpu.py [--seconds 2]

First it holds the GPU to the processor: the same batches must lead to the same weights and scores
within the tolerances below. Then it times both, transfers included. Where torch finds no GPU it says
so and ends with exit code 3.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from anchors import stream
from detector import NO_LABELS
from rich.console import Console
from rich.table import Table

from stream_ad.detector.config import DetectorConfig, DetectorOptions
from stream_ad.detector.model.cuda_autoencoder import CudaAutoencoder
from stream_ad.detector.model.device import to_device, to_numpy
from stream_ad.detector.model.numba_autoencoder import CompiledAutoencoder
from stream_ad.detector.model.torch_autoencoder import Autoencoder
from stream_ad.detector.row_store import derived_size
from stream_ad.shard.shard import Shard
from stream_ad.worker.process_setup import prepare_process

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ad.detector.model.model_stack import Stack

SCORED, LEARNED = 16, 32  # rows of a model per pass
WEIGHTS, SCORES = 1e-4, 1e-2  # largest difference allowed: of a weight after 50 steps; of a score, as a share
NO_GPU = 3


def stack(kind: type[Stack], models: int, width: int) -> Stack:
    """Return a stack of models of a kind, on its device."""
    out = kind(width, rate=3e-3) if kind is CompiledAutoencoder else kind(width, device="cuda", rate=3e-3)
    out.append(np.arange(models, dtype=np.uint64))
    return out


def batches(models: int, width: int, number: int) -> list[tuple[np.ndarray, ...]]:
    """Return random training batches: inputs, weights and targets."""
    random = np.random.default_rng(0)
    shape = (models, LEARNED, width)
    return [
        (random.random(shape, np.float32), np.ones(shape[:2], np.float32), np.ones(shape, np.float32))
        for _ in range(number)
    ]


def largest_differences() -> list[str]:
    """Return lines on the largest differences between GPU and CPU; raise AssertionError beyond the tolerances."""
    lines = []
    for models, features in ((1, 1), (64, 8), (16, 64)):
        width, which = derived_size(features), np.arange(models)
        weights = []
        for kind in (CompiledAutoencoder, CudaAutoencoder):
            own, device = stack(kind, models, width), "cpu" if kind is CompiledAutoencoder else "cuda"
            for batch in batches(models, width, 50):
                own.train_step(which, *(to_device(part, device) for part in batch))
            weights.append(own.state("")["flat"])
        off = float(np.abs(weights[0] - weights[1]).max())
        lines.append(f"{models} models of {features} features, 50 steps: weights differ by at most {off:.1e}")
        assert off < WEIGHTS, lines[-1]
    scores = []
    for device in ("cpu", "cuda"):
        shard, made = Shard(DetectorOptions(detector=DetectorConfig(device=device))), stream(16, 1024)
        scores.append(np.concatenate([shard.step(next(made), NO_LABELS).scores.score for _ in range(40)]))
    off = float((np.abs(scores[0] - scores[1]) / np.maximum(scores[0], 0.1)).max())
    lines.append(f"a shard of 16 sensors, 40,960 events: scores differ by at most {off:.1e} of themselves")
    assert off < SCORES, lines[-1]
    return lines


def rate(step: Callable[[], int], seconds: float) -> float:
    """Return events per second by the clock."""
    for _ in range(5):
        step()
    events, begin = 0, time.perf_counter()
    while (spent := time.perf_counter() - begin) < seconds:
        events += step()
    return events / spent


def passes(kind: type[Stack], models: int, features: int) -> tuple[Callable[[], int], Callable[[], int]]:
    """Return steps that score and learn a batch of every model, from and to NumPy arrays."""
    own, which = stack(kind, models, derived_size(features)), np.arange(models)
    device = "cpu" if kind is CompiledAutoencoder else "cuda"
    (x, weight, inputs), *_ = batches(models, own.width, 1)

    def score() -> int:
        to_numpy(own.reconstruct_grid(which, to_device(x[:, :SCORED], device)))
        return models * SCORED

    def learn() -> int:
        to_numpy(own.train_step(which, *(to_device(part, device) for part in (x, weight, inputs)))[0])
        return models * LEARNED

    return score, learn


def whole(device: str, sensors: int) -> Callable[[], int]:
    """Return a step of a shard past its warm-up, in micro-batches of 16 events of each sensor."""
    options = DetectorOptions(detector=DetectorConfig(device=device, max_sensors=sensors))
    shard, made = Shard(options), stream(sensors, sensors * SCORED)
    for _ in range(-(-(options.learning.label_horizon_events + 256) // SCORED)):
        shard.step(next(made), NO_LABELS)
    events = [next(made) for _ in range(8)]
    turn = iter(range(1 << 60))

    def step() -> int:
        shard.step(events[next(turn) % len(events)], NO_LABELS)
        return sensors * SCORED

    return step


def main() -> int:
    """Compare, measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="per measurement")
    seconds = parser.parse_args().seconds
    if not torch.cuda.is_available():
        print("NOT RUN: torch finds no CUDA device here, so nothing is known of the GPU.", file=sys.stderr)
        return NO_GPU
    prepare_process()
    name = torch.cuda.get_device_name()
    for line in largest_differences():
        print(line)
    table = Table("what", "models", "features", "processor, 1 thread", f"{name}, no graphs", f"{name}", "ratio")
    for models, features in ((64, 8), (1000, 8), (10_000, 8), (64, 64), (1000, 64)):
        kinds = [passes(kind, models, features) for kind in (CompiledAutoencoder, Autoencoder, CudaAutoencoder)]
        for what, number in (("score", 0), ("learn", 1)):
            rates = [rate(kind[number], seconds) for kind in kinds]
            cells = [f"{events_s:,.0f}" for events_s in rates]
            table.add_row(what, f"{models:,}", f"{features}", *cells, f"{rates[2] / rates[0]:.1f}")
    for sensors in (64, 1000):
        rates = [rate(whole(device, sensors), seconds) for device in ("cpu", "cuda")]
        cells = f"{rates[0]:,.0f}", "", f"{rates[1]:,.0f}", f"{rates[1] / rates[0]:.1f}"
        table.add_row("whole shard: score, learn", f"{sensors:,}", "8", *cells)
    Console(width=150).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
