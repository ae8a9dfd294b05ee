"""The detector beside river, bare torch and single models, in one run.

    python benchmarks/detector.py [--seconds 5] [--parts] [--write]

Every row is a ratio of events per second of processor time (one thread), both sides measured on the
same events, in turns, in this process. «detector» is everything a shard does between decoding and
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
from numba.core.registry import CPUDispatcher
from page import machine, write
from rich.console import Console
from rich.table import Table
from river import __version__ as river_version
from river import anomaly, compose, preprocessing

from stream_ad.columns import Events, Labels, ValueBlock
from stream_ad.detector.config import DetectorOptions
from stream_ad.process import prepare_process
from stream_ad.shard import Shard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FEATURES = 8
NAMES = tuple(f"f{number}" for number in range(FEATURES))
NO_LABELS = Labels(*[np.empty(0, np.int64)] * 2, [], [], [], *[np.empty(0, np.int64)] * 2)
BATCH = 32
TURNS = 5
SHORT_HORIZON = 100
PREPARED = 64  # micro-batches made beforehand, gone through in turn
MICRO_BATCH = 2048  # about worker.step_records


def stream(sensors: int, per_step: int) -> Iterator[Events]:
    """Endless micro-batches: a level that wanders around its mean, and noise; sensors in turn."""
    random = np.random.default_rng(0)
    level = random.normal(size=(sensors, FEATURES))
    names = [f"sensor-{number}" for number in range(sensors)]
    for start in itertools.count(0, per_step):
        number = np.arange(start, start + per_step)
        which = number % sensors
        level += random.normal(size=level.shape) * 0.05 - level * 0.01
        values = level[which] + random.normal(size=(per_step, FEATURES))
        yield Events(
            number,
            number,
            number * 1_000_000,
            [names[sensor] for sensor in which.tolist()],
            [f"e-{one}" for one in number.tolist()],
            (ValueBlock(NAMES, np.arange(per_step), values),),
        )


def rates(seconds: float, *steps: Callable[[], int]) -> list[float]:
    """Events per second of each, in turns: what disturbs the machine for a while disturbs all alike."""
    found = [[rate(step, seconds / TURNS) for step in steps] for _ in range(TURNS)]
    return np.median(found, axis=0).tolist()


def rate(step: Callable[[], int], seconds: float) -> float:
    """Events per second of processor time."""
    events, begin = 0, time.process_time()
    while (spent := time.process_time() - begin) < seconds:
        events += step()
    return events / spent


def ours(sensors: int, per_step: int, horizon: int = 1024) -> Callable[[], int]:
    """A shard past its warm-up."""
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
    """Events per second with 10,000 sensors and with 1,000; a short horizon, so that both are soon past it."""
    return rates(seconds, *(ours(sensors, sensors, SHORT_HORIZON) for sensors in (10_000, 1000)))


def half_space_trees(sensors: int, per_step: int, *, each: bool) -> Callable[[], int]:
    """River's MinMaxScaler | HalfSpaceTrees: one for each sensor, as the detector has it, or one for all."""
    models = [
        compose.Pipeline(preprocessing.MinMaxScaler(), anomaly.HalfSpaceTrees(seed=42))
        for _ in range(sensors if each else 1)
    ]
    made = itertools.islice(stream(sensors, per_step), PREPARED)
    events = itertools.cycle(
        [
            [
                (models[int(number) % len(models)], dict(zip(NAMES, row, strict=True)))
                for number, row in zip(one.offsets, one.blocks[0].values.tolist(), strict=True)
            ]
            for one in made
        ]
    )

    def step() -> int:
        for model, x in next(events):
            model.score_one(x)
            model.learn_one(x)
        return per_step

    for _ in range(2 if len(models) == 1 else PREPARED):  # past the first window of every model
        step()
    return step


def network() -> torch.nn.Sequential:
    """A single autoencoder of the detector's default shape for 8 features."""
    return torch.nn.Sequential(
        torch.nn.Linear(24, 24),
        torch.nn.LeakyReLU(0.1),
        torch.nn.Linear(24, 8),
        torch.nn.LeakyReLU(0.1),
        torch.nn.Linear(8, 24),
        torch.nn.LeakyReLU(0.1),
        torch.nn.Linear(24, 24),
        torch.nn.Sigmoid(),
    )


def bare_torch(sensors: int, per_step: int) -> Callable[[], int]:
    """The same number of scoring passes and Adam steps of the same stacked shape, and nothing else."""
    sizes = [24, 24, 8, 24, 24]
    weights = [
        torch.nn.Parameter(torch.randn(sensors, a, b) / a**0.5 if kind else torch.zeros(sensors, 1, b))
        for a, b in itertools.pairwise(sizes)
        for kind in (True, False)
    ]
    adam = torch.optim.Adam(weights, lr=3e-3)

    def forward(x: torch.Tensor) -> torch.Tensor:
        for layer in range(4):
            x = torch.baddbmm(weights[2 * layer + 1], x, weights[2 * layer])
            x = torch.nn.functional.leaky_relu(x, 0.1) if layer < 3 else torch.sigmoid(x)
        return x

    rows = min(BATCH, per_step // sensors)
    x, learn = torch.rand(sensors, rows, 24), torch.rand(sensors, BATCH, 24)
    due = itertools.count(rows, rows)

    def step() -> int:
        done = 0
        while done < per_step:
            with torch.no_grad():
                forward(x)
            done += rows * sensors
            if next(due) % BATCH == 0:
                for _ in range(2):
                    adam.zero_grad()
                    ((forward(learn) - learn) ** 2).mean((1, 2)).sum().backward()
                    adam.step()
        return done

    return step


def loop_of_models(sensors: int) -> Callable[[], int]:
    """One torch module and optimiser per sensor, one event each per step, two Adam steps per 32 events."""
    models = [network() for _ in range(sensors)]
    adams = [torch.optim.Adam(model.parameters(), lr=3e-3) for model in models]
    x, learn = torch.rand(sensors, 1, 24), torch.rand(BATCH, 24)
    turn = itertools.count()

    def step() -> int:
        # Sensors are staggered, so that every step holds the same share of learning.
        now = next(turn)
        for number, (model, adam) in enumerate(zip(models, adams, strict=True)):
            with torch.no_grad():
                model(x[number])
            if (number + now) % BATCH == 0:
                for _ in range(2):
                    adam.zero_grad()
                    ((model(learn) - learn) ** 2).mean().backward()
                    adam.step()
        return sensors

    step()
    return step


def compiled() -> dict[tuple[str, int, str], str]:
    """How a profile names each compiled loop, and the module it stands in."""
    found = {}
    for name, module in sys.modules.items():
        for one in vars(module).values() if name.startswith("stream_ad.") else ():
            if isinstance(one, CPUDispatcher):
                code = one.py_func.__code__
                found[code.co_filename, code.co_firstlineno, code.co_name] = Path(code.co_filename).stem
    return found


def parts(sensors: int, per_step: int, seconds: float) -> Counter[str]:
    """Microseconds of an event in the loops of each module, and in everything around them."""
    step, profile = ours(sensors, per_step), cProfile.Profile(time.thread_time)
    whole, profiled, learn_every = [], 0, -(-4 * BATCH * sensors // per_step)  # steps: whole rounds of learning
    for _ in range(TURNS):  # in turns, since the machine is not always equally fast
        whole.append(1e6 / rate(step, seconds / TURNS))
        profiled += profile.runcall(lambda: sum(step() for _ in range(learn_every)))
    spent, loops = Counter[str](), compiled()
    for place, (_, _, own, *_) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        if place in loops:
            spent[loops[place]] += own * 1e6 / profiled
    spent["Python, NumPy and torch around them"] = float(np.mean(whole)) - spent.total()
    return spent


def where_it_goes(seconds: float) -> Table:
    """The time of an event by what it is spent on."""
    cases = (64, MICRO_BATCH), (256, MICRO_BATCH), (1000, 1000)
    each = [parts(sensors, per_step, seconds) for sensors, per_step in cases]
    table = Table("µs of an event in the loops of", *(f"{sensors} sensors" for sensors, _ in cases))
    for name in sorted(each[0], key=lambda name: -each[0][name]):
        table.add_row(name, *(f"{spent[name]:.2f}" for spent in each))
    table.add_section()
    table.add_row("in all", *(f"{spent.total():.2f}" for spent in each))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="processor time per measurement")
    parser.add_argument("--parts", action="store_true", help="say where the detector's time goes, too")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
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
    own, loop = rates(seconds, ours(1000, 1000), loop_of_models(1000))
    name, what = "a loop over single torch models", "one event of each sensor per step"
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
