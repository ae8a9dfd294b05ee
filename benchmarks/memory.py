"""Memory of sensors, models included: python benchmarks/memory.py [--sensors 1000,10000] [--events 2000000]

First the bytes of one sensor's state by part, at several label horizons; all of it is taken when the sensor
appears, but for the rings of labelled events, which only sensors without memory take at their first label.
Then fleets, each in a process of its own: what the process grew by for each sensor, the size of a snapshot
and the seconds it takes to write and to read one. Then sensors, and features of one sensor, that come and go, each
in a process of its own: the resident memory in the end must not be a tenth more than after the second tenth, nor a
GiB. Last the resident memory after every tenth of many events: it must not grow.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from stream_ad.detector.config import DetectorOptions
from stream_ad.detector.detector import Detector
from stream_ad.records.columns import Events, Labels, ValueBlock
from stream_ad.shard.shard import Shard

if TYPE_CHECKING:
    from collections.abc import Iterator

FEATURES = tuple(f"f{number}" for number in range(8))
NO_LABELS = Labels(*[np.empty(0, np.int64)] * 2, [], [], [], *[np.empty(0, np.int64)] * 2)
HORIZONS = (100, 500, 1024)
ROUNDS = 40  # events of each sensor: past the first learn batch, so that all is in use
TURNS = 3
CHURN = {  # sensors one after the other or names of one feature after the other, events of each, settings
    "sensors": (10_000, 10, {}),
    "sensors, detector.max_sensors 500": (10_000, 10, {"max_sensors": 500}),
    "sensors that come back once": (10_000, 10, {}),
    "sensors of 3 events": (10_000, 3, {}),
    "names of a feature": (3_000, 4, {}),
    "names of a feature, detector.max_features 64": (3_000, 4, {"max_features": 64}),
}


def resident_mb() -> float:
    """Return the resident memory of this process, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def options_with(horizon: int) -> DetectorOptions:
    """Return options with a label horizon."""
    return DetectorOptions.model_validate({"learning": {"label_horizon_events": horizon}})


def stream(sensors: int) -> Iterator[Events]:
    """Yield an event of each sensor, again and again."""
    random = np.random.default_rng(0)
    names = [f"sensor-{number}" for number in range(sensors)]
    for start in count(0, sensors):
        number = np.arange(start, start + sensors)
        values = random.normal(size=(sensors, len(FEATURES)))
        blocks = (ValueBlock(FEATURES, np.arange(sensors), values),)
        yield Events(
            number, number, number * 1_000_000, names, [f"e-{event_number}" for event_number in number.tolist()], blocks
        )


def parts(horizon: int) -> dict[str, int]:
    """Return the bytes of a sensor's state by part."""
    detector = Detector(len(FEATURES), options_with(horizon), "cpu")
    detector.append(np.array([1], np.uint64))
    sizes = {f"{name.rstrip('.')}": part.nbytes for name, part in detector.parts().items()}
    stack = detector.network.stack
    sizes["weights"] = stack.flat[:1].nbytes
    sizes["optimiser"] = stack.nbytes - sizes["weights"]
    sizes["replay"] = detector.network.replay.nbytes
    return sizes


def fleet(sensors: int, horizon: int) -> dict[str, float]:
    """Measure a fleet in this process."""
    options = options_with(horizon)
    torch.set_num_threads(1)
    warm = Shard(options)
    for events in islice(stream(2), ROUNDS):
        warm.step(events, NO_LABELS)  # compiles and imports what there is to
    before, shard, made = resident_mb(), Shard(options), stream(sensors)
    first = next(made)
    began = time.process_time()
    shard.step(first, NO_LABELS)
    cold = time.process_time() - began
    for events in islice(made, ROUNDS):
        shard.step(events, NO_LABELS)
    grown = resident_mb() - before
    times: list[tuple[float, float]] = []
    for _ in range(TURNS):
        begin = time.perf_counter()
        data = shard.snapshot()
        written = time.perf_counter()
        Shard.restore(data, options)
        times.append((written - begin, time.perf_counter() - written))
    write, read = (statistics.median(column) for column in zip(*times, strict=True))
    size = len(data) / 2**20
    return {"cold": cold, "resident": grown * 1024 / sensors, "snapshot": size, "write": write, "read": read}


def visits(kind: str, number: int, events: int) -> Iterator[Events]:
    """Yield events of sensors, or of names of a feature, one after the other: a hundred at a time."""
    random, at = np.random.default_rng(0), 0
    of_features = kind.startswith("names")
    turns = [*range(number)]
    if "come back" in kind:
        pairs = ((start, start - 2000) for start in range(0, number, 100))
        turns = [turn + position for pair in pairs for turn in pair for position in range(100) if turn >= 0]
    for start in range(0, len(turns), 100):
        chosen = turns[start : start + 100]
        count = len(chosen) * events
        rows, visitors = np.arange(at, at + count), [turn for turn in chosen for _ in range(events)]
        at += count
        if of_features:
            blocks = tuple(
                ValueBlock(
                    tuple(sorted((*FEATURES, f"name-{turn}"))),
                    np.arange(position * events, (position + 1) * events),
                    random.normal(size=(events, len(FEATURES) + 1)),
                )
                for position, turn in enumerate(chosen)
            )
        else:
            blocks = (ValueBlock(FEATURES, np.arange(count), random.normal(size=(count, len(FEATURES)))),)
        ids = ["sensor" if of_features else f"sensor-{turn}" for turn in visitors]
        yield Events(rows, rows, rows * 1_000_000_000, ids, [f"e-{row}" for row in rows.tolist()], blocks)


def churn(kind: str) -> dict[str, float]:
    """Measure this process while sensors or features come and go."""
    number, events, bounds = CHURN[kind]
    torch.set_num_threads(1)
    shard = Shard(DetectorOptions.model_validate({"detector": bounds}))
    batches = list(visits(kind, number, events))
    resident, began = [], time.process_time()
    for batch_number, batch in enumerate(batches, 1):
        shard.step(batch, NO_LABELS)
        if batch_number * 10 // len(batches) > (batch_number - 1) * 10 // len(batches):
            resident.append(resident_mb())
    seconds = time.process_time() - began
    status = shard.status()
    return {
        "second": resident[1],
        "last": resident[-1],
        "held": status.state_bytes / 2**20,
        "sensors": status.sensors,
        "features": max(map(len, shard.sensors.features)),
        "detectors": len(shard.sensors.detectors),
        "seconds": seconds,
    }


def print_churn(console: Console) -> None:
    """Print the memory while sensors or features come and go."""
    columns = ("MiB after 2nd tenth", "in the end", "more", "state_bytes, MiB", "sensors", "features", "detectors", "s")
    table = Table("what comes and goes", *columns)
    for kind, (number, events, _) in CHURN.items():
        command = [sys.executable, __file__, "--churn", kind]
        figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        table.add_row(
            f"{number:,} {kind}" if "events" in kind else f"{number:,} {kind}, {events} events each",
            *(f"{figures[name]:,.0f}" for name in ("second", "last")),
            f"{figures['last'] / figures['second'] - 1:+.1%}",
            f"{figures['held']:,.1f}",
            *(f"{figures[name]:,}" for name in ("sensors", "features", "detectors")),
            f"{figures['seconds']:,.0f}",
        )
    console.print(table)


def print_parts(console: Console) -> None:
    """Print the bytes of a sensor by part and horizon."""
    by_horizon = {horizon: parts(horizon) for horizon in HORIZONS}
    table = Table(f"bytes of a sensor with {len(FEATURES)} features", *(f"horizon {horizon:,}" for horizon in HORIZONS))
    for name in by_horizon[HORIZONS[0]]:
        table.add_row(name, *(f"{by_horizon[horizon][name]:,}" for horizon in HORIZONS))
    table.add_section()
    table.add_row("in all", *(f"{sum(by_horizon[horizon].values()):,}" for horizon in HORIZONS))
    console.print(table)


def print_fleets(console: Console, sizes: list[int]) -> None:
    """Print the memory and snapshots of fleets."""
    columns = ("resident KiB a sensor", "snapshot MiB", "s to write", "s to read", "s for the first events")
    table = Table("sensors", "horizon", *columns)
    for horizon in HORIZONS[1:]:
        for sensors in sizes:
            command = [sys.executable, __file__, "--fleet", f"{sensors},{horizon}"]
            figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            cells = (figures[name] for name in ("snapshot", "write", "read", "cold"))
            table.add_row(
                f"{sensors:,}", f"{horizon:,}", f"{figures['resident']:.1f}", *(f"{figure:,.2f}" for figure in cells)
            )
    console.print(table)


def print_growth(console: Console, sensors: int, events: int) -> None:
    """Print the resident memory over many events."""
    torch.set_num_threads(1)
    shard = Shard(DetectorOptions())
    table = Table("events", "resident MiB", "against the first tenth")
    tenth, first, done = events // 10, 0.0, 0
    for batch in stream(sensors):
        shard.step(batch, NO_LABELS)
        before, done = done, done + sensors
        if done // tenth > before // tenth:
            now = resident_mb()
            first = first or now
            table.add_row(f"{done:,}", f"{now:,.0f}", f"{now / first - 1:+.1%}")
        if done >= events:
            break
    console.print(table)


def main() -> None:
    """Measure and print what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=2_000_000, help="0 leaves the last table out")
    parser.add_argument(
        "--sensors", default="1000,10000", metavar="N,…", help="of the fleets; the first takes the events"
    )
    parser.add_argument("--fleet", metavar="N,HORIZON", help="only measure such a fleet in this process, as JSON")
    parser.add_argument("--churn", metavar="KIND", help=f"only what comes and goes so, as JSON: {', '.join(CHURN)}")
    options = parser.parse_args()
    if options.fleet:
        print(json.dumps(fleet(*map(int, options.fleet.split(",")))))
        return
    if options.churn:
        print(json.dumps(churn(options.churn)))
        return
    console, sizes = Console(width=150), [int(size) for size in options.sensors.split(",")]
    print_parts(console)
    print_fleets(console, sizes)
    print_churn(console)
    if options.events:
        print_growth(console, sizes[0], options.events)


if __name__ == "__main__":
    main()
