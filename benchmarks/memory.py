"""Resident memory over many events: python benchmarks/memory.py [--events 2000000] [--sensors 1000]

Prints the resident memory of this process after the first tenth of the events and at every tenth
after it: all of a sensor's memory is taken when it appears, so the growth must stay near 0.
"""

from __future__ import annotations

import argparse
import resource
from itertools import count
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from stream_ad.columns import Events, Labels, ValueBlock
from stream_ad.detector.config import DetectorOptions
from stream_ad.shard import Shard

FEATURES = tuple(f"f{number}" for number in range(8))
NO_LABELS = Labels(*[np.empty(0, np.int64)] * 2, [], [], [], *[np.empty(0, np.int64)] * 2)


def resident_mb() -> float:
    """Resident memory now, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--sensors", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    shard = Shard(DetectorOptions())
    names = [f"sensor-{number}" for number in range(options.sensors)]
    table = Table("events", "resident MiB", "against the first tenth")
    tenth, first = options.events // 10, 0.0
    for start in count(0, options.sensors):
        number = np.arange(start, start + options.sensors)
        shard.step(
            Events(
                number,
                number,
                number * 1_000_000,
                names,
                [f"e-{one}" for one in number.tolist()],
                (ValueBlock(FEATURES, np.arange(options.sensors), random.normal(size=(options.sensors, 8))),),
            ),
            NO_LABELS,
        )
        done = start + options.sensors
        if done // tenth > start // tenth:
            now = resident_mb()
            first = first or now
            table.add_row(f"{done:,}", f"{now:,.0f}", f"{now / first - 1:+.1%}")
        if done >= options.events:
            break
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
