"""The detector beside river, bare torch and single models, in one run.

    python benchmarks/detector.py [--seconds 2] [--parts] [--write]

Every row is a ratio of events per second of processor time (one thread), both sides measured on the
same events, in turns, in this process. "detector" is everything a shard does between decoding and
encoding: derived inputs, scaling, scoring, labels, learning. With ``--parts`` a second table says where its time goes:
in the compiled loops of each part, and in all of Python around them.
"""

from __future__ import annotations

import argparse
import cProfile
import itertools
import pstats
import sys
import time
from collections import Counter
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from anchors import BATCH, FEATURES, PREPARED, bare_torch, half_space_trees, loop_of_models, stream
from numba.core.registry import CPUDispatcher
from page import machine, write
from rich.console import Console
from rich.table import Table
from river import __version__ as river_version

from stream_ad.detector.config import DetectorOptions
from stream_ad.records.columns import Labels
from stream_ad.shard.shard import Shard
from stream_ad.worker.process_setup import prepare_process

if TYPE_CHECKING:
    from collections.abc import Callable

NO_LABELS = Labels(*[np.empty(0, np.int64)] * 2, [], [], [], *[np.empty(0, np.int64)] * 2)
TURNS = 5
SHORT_HORIZON = 100
MICRO_BATCH = 2048  # about worker.step_records


def rates(seconds: float, *steps: Callable[[], int]) -> list[float]:
    """Return events per second of each step, measured in turns, so that a busy machine disturbs all alike."""
    by_turn = [[rate(step, seconds / TURNS) for step in steps] for _ in range(TURNS)]
    return np.median(by_turn, axis=0).tolist()


def rate(step: Callable[[], int], seconds: float) -> float:
    """Return events per second of processor time."""
    events, begin = 0, time.process_time()
    while (spent := time.process_time() - begin) < seconds:
        events += step()
    return events / spent


def ours(sensors: int, per_step: int, horizon: int = 1024) -> Callable[[], int]:
    """Return a step of a shard past its warm-up."""
    options = DetectorOptions.model_validate({"learning": {"label_horizon_events": horizon}})
    shard, made = Shard(options), stream(sensors, per_step)
    # Past the horizon: every sensor is live and learns what matured. The rings were taken in full at the start.
    settled = (options.learning.label_horizon_events + 512) * sensors
    for _ in range(-(-settled // per_step)):
        shard.step(next(made), NO_LABELS)
    events = itertools.cycle(list(itertools.islice(made, PREPARED)))  # making them is not what is measured

    def step() -> int:
        shard.step(next(events), NO_LABELS)
        return per_step

    return step


def many_models(seconds: float) -> list[float]:
    """Return events per second with 10,000 sensors and with 1,000; a short horizon, so that both are soon past it."""
    return rates(seconds, *(ours(sensors, sensors, SHORT_HORIZON) for sensors in (10_000, 1000)))


def loop_of_detectors(sensors: int, horizon: int = 1024) -> Callable[[], int]:
    """Return a step of a detector for each sensor, all past their warm-up: one event each."""
    options = DetectorOptions.model_validate({"learning": {"label_horizon_events": horizon}})
    shards = [Shard(options) for _ in range(sensors)]
    # Staggered, so that every step holds the same share of learning.
    settled = [next(stream(1, horizon + 512 + later)) for later in range(BATCH)]
    events = itertools.cycle(list(itertools.islice(stream(1, 1), PREPARED)))
    for number, shard in enumerate(shards):
        shard.step(settled[number % BATCH], NO_LABELS)

    def step() -> int:
        event = next(events)
        for shard in shards:
            shard.step(event, NO_LABELS)
        return sensors

    return step


def compiled() -> dict[tuple[str, int, str], str]:
    """Return the module of each compiled loop, by the key that a profile has for it."""
    modules = {}
    for name, module in sys.modules.items():
        for member in vars(module).values() if name.startswith("stream_ad.") else ():
            if isinstance(member, CPUDispatcher):
                code = member.py_func.__code__
                modules[code.co_filename, code.co_firstlineno, code.co_name] = Path(code.co_filename).stem
    return modules


def parts(sensors: int, per_step: int, seconds: float) -> Counter[str]:
    """Return microseconds per event in the loops of each module, and in everything around them."""
    step, profile = ours(sensors, per_step), cProfile.Profile(time.thread_time)
    whole, profiled, learn_every = [], 0, -(-4 * BATCH * sensors // per_step)  # steps: whole rounds of learning
    for _ in range(TURNS):  # in turns, since the machine is not always equally fast
        whole.append(1e6 / rate(step, seconds / TURNS))
        profiled += profile.runcall(lambda: sum(step() for _ in range(learn_every)))
    spent, loops = Counter[str](), compiled()
    for loop, (_, _, own, *_) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        if loop in loops:
            spent[loops[loop]] += own * 1e6 / profiled
    spent["Python, NumPy and torch around them"] = float(np.mean(whole)) - spent.total()
    return spent


def where_it_goes(seconds: float) -> Table:
    """Return a table of the time per event by module."""
    cases = (64, MICRO_BATCH), (256, MICRO_BATCH), (1000, 1000)
    each = [parts(sensors, per_step, seconds) for sensors, per_step in cases]
    table = Table("µs of an event in the loops of", *(f"{sensors} sensors" for sensors, _ in cases))
    for name in sorted(each[0], key=lambda name: -each[0][name]):
        table.add_row(name, *(f"{spent[name]:.2f}" for spent in each))
    table.add_section()
    table.add_row("in all", *(f"{spent.total():.2f}" for spent in each))
    return table


def main() -> None:
    """Measure, print, and write the page if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="processor time per measurement")
    parser.add_argument("--parts", action="store_true", help="say where the detector's time goes, too")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/explanation/benchmarks.md")
    chosen = parser.parse_args()
    seconds = chosen.seconds
    title = f"{machine('torch', 'numba')}; one thread"
    prepare_process()  # as a worker does; for both sides
    table = Table("what", "sensors", "events/s", "anchor", "anchor events/s", "ratio", title=title)
    what = f"score and learn, {FEATURES} features, micro-batches of {MICRO_BATCH}"
    trees, bare_name = f"river {river_version} MinMaxScaler | HalfSpaceTrees", f"torch {torch.__version__}"
    for sensors in (1, 16, 64, 256):
        anchors = {
            f"{trees}, one for all": half_space_trees(sensors, MICRO_BATCH, each=False),
            f"{trees}, one each": half_space_trees(sensors, MICRO_BATCH, each=True),
            f"{bare_name}, bare stacked steps": bare_torch(sensors, MICRO_BATCH),
        }
        own, *others = rates(seconds, ours(sensors, MICRO_BATCH), *anchors.values())
        for name, other in zip(anchors, others, strict=True):
            table.add_row(what, f"{sensors}", f"{own:,.0f}", name, f"{other:,.0f}", f"{own / other:.2f}")
        table.add_section()
    what = "one event of each sensor per step"
    loops = {
        "a loop over single torch models": loop_of_models(1000),
        "a loop over single detectors": loop_of_detectors(1000),
    }
    own, *others = rates(seconds, ours(1000, 1000), *loops.values())
    for name, loop in zip(loops, others, strict=True):
        table.add_row(what, "1000", f"{own:,.0f}", name, f"{loop:,.0f}", f"{own / loop:.1f}")
    many, few = many_models(seconds)
    name, what = "the detector with 1,000 sensors", f"{what}, horizon {SHORT_HORIZON}"
    table.add_row(what, "10000", f"{many:,.0f}", name, f"{few:,.0f}", f"{many / few:.2f}")
    out = StringIO()
    console = Console(file=out, width=150)
    console.print(table)
    if chosen.parts:
        console.print(where_it_goes(seconds))
    print(out.getvalue())
    if chosen.write:
        write(out.getvalue(), "detector")


if __name__ == "__main__":
    main()
