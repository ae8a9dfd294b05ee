"""Quality on made-up streams of many kinds: all labelled, 10 % labelled, none, and with 5 % of the verdicts wrong.

    python benchmarks/streams.py [--seeds 3] [--only drift,wells] [--set learning.loss.alpha=0]

They stand for what recordings elsewhere may be like. Every row is scored before anything is learned from it. Wrong
verdicts say normal for an anomaly and some anomaly for a normal row; what is judged is the truth.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stream_ad.detector.config import DetectorOptions
from stream_ad.evaluation.backtest import run_backtest
from stream_ad.evaluation.metrics import curve
from stream_ad.evaluation.plant import FEATURES, Plant, PlantConfig
from stream_ad.evaluation.recording_form import Recording
from stream_ad.evaluation.schedule import Delay, Protocol
from stream_ad.evaluation.stream import NORMAL, Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[Any]

START_NS = 1_767_225_600_000_000_000
WRONG = 0.05
HEADER = (
    "| stream | all labelled | 10 % | none | all, 5 % wrong | false alarms, all labelled |\n|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Sensor:
    """N rows of one sensor."""

    times_s: Floats  # (N,)
    values: Floats  # (N, F)
    labels: list[str]
    warmup: int  # rows that are not judged


class Faults:
    """Writes faults into a sensor's readings, and says so in its labels."""

    def __init__(self, rng: np.random.Generator, values: Floats) -> None:
        self.rng, self.values, self.sd = rng, values, values.std(axis=0)
        self.labels = [NORMAL] * len(values)

    def shift(self, rows: slice, name: str, features: tuple[int, int], sizes: tuple[float, float], ramp: float) -> None:
        """Move some features by so many standard deviations, over a share ``ramp`` of the fault."""
        length = rows.stop - rows.start
        chosen = self.rng.choice(self.values.shape[1], self.rng.integers(*features), replace=False)
        size = self.rng.choice([-1, 1], len(chosen)) * self.rng.uniform(*sizes, len(chosen)) * self.sd[chosen]
        rise = np.minimum(1, np.arange(length) / (ramp * length)) if ramp else np.ones(length)
        self.values[rows, chosen] += rise[:, None] * size
        self.labels[rows] = [name] * length

    def stick(self, rows: slice, name: str) -> None:
        """Let some features keep nearly the reading they have at the start."""
        length = rows.stop - rows.start
        chosen = self.rng.choice(self.values.shape[1], self.rng.integers(1, 4), replace=False)
        noise = 0.02 * self.sd[chosen] * self.rng.normal(size=(length, len(chosen)))
        self.values[rows, chosen] = self.values[rows.start, chosen] + noise
        self.labels[rows] = [name] * length

    def gaps(self, first: int, mean_gap: float, least_gap: int, lengths: tuple[int, int]) -> list[slice]:
        """Where faults go, one after the other."""
        found: list[slice] = []
        at = first
        while True:
            at += least_gap + int(self.rng.exponential(mean_gap))
            length = int(self.rng.integers(*lengths))
            if at + length > len(self.values) - 20:
                return found
            found.append(slice(at, at + length))
            at += length


def readings(
    rng: np.random.Generator, rows: int, features: int, *, memory: float, noise: float, day: int = 0
) -> Floats:
    """Readings that three hidden causes with memory drive, the first with a daily cycle of so many rows."""
    causes, step = np.empty((rows, 3)), rng.normal(size=(rows, 3)) * np.sqrt(1 - memory**2)
    state = rng.normal(size=3)
    for row in range(rows):
        state = memory * state + step[row]
        causes[row] = state
    if day:
        causes[:, 0] += 1.5 * np.sin(2 * np.pi * np.arange(rows) / day + rng.uniform(0, 6))
    mixed = causes @ rng.normal(size=(3, features)) / np.sqrt(3)
    bent = 0.3 * np.tanh(causes @ rng.normal(size=(3, features)))
    return mixed + bent + noise * rng.normal(size=(rows, features)) * rng.uniform(0.5, 1.5, features)


def drift(rng: np.random.Generator) -> Sensor:
    """Rare short faults on a drifting stream, with an outage of three weeks after which much has changed."""
    rows, features = 6000, 8
    values = readings(rng, rows, features, memory=0.95, noise=0.3, day=288)
    sd, half = values.std(axis=0), rows // 2
    values += np.cumsum(rng.normal(size=values.shape) * 0.012, axis=0) * sd
    values[half:] = (values[half:] + rng.normal(size=features) * sd) * rng.uniform(0.8, 1.25, features)
    faults = Faults(rng, values)
    for rows_of in faults.gaps(700, 400, 60, (1, 20)):
        faults.shift(rows_of, "odd", (1, 4), (2.5, 6), 0)
    times = np.arange(rows) * 300.0
    times[half:] += 21 * 86_400
    return Sensor(times, values, faults.labels, 600)


def long_faults(rng: np.random.Generator) -> Sensor:
    """Faults that last as long as a verdict takes, and longer."""
    faults = Faults(rng, readings(rng, 7000, 10, memory=0.9, noise=0.3, day=288))
    for rows in faults.gaps(900, 1500, 300, (500, 1500)):
        if rng.random() < 1 / 3:
            faults.stick(rows, "stuck")
        else:
            faults.shift(rows, "shifted", (2, 5), (1.5, 3.5), rng.choice([0, 0.5]))
    return Sensor(np.arange(7000) * 60.0, faults.values, faults.labels, 700)


def wells(rng: np.random.Generator) -> Sensor:
    """A reading a second; each well lacks some sensors, others drop out for a while; slow faults of three classes."""
    rows, features = 5000, 8
    faults = Faults(rng, readings(rng, rows, features, memory=0.995, noise=0.05))
    for rows_of in faults.gaps(600, 900, 300, (300, 1600)):
        faults.shift(rows_of, f"class {rng.integers(3)}", (2, 5), (2, 5), 0.6)
    values = faults.values
    values[:, rng.integers(features)] = 3.7
    values[:, rng.choice(features, rng.integers(1, 5), replace=False)] = np.nan
    for _ in range(6):
        start = int(rng.integers(0, rows - 200))
        values[start : start + int(rng.integers(10, 200)), rng.integers(features)] = np.nan
    return Sensor(np.arange(rows) * 1.0, values, faults.labels, 700)


def rigs(rng: np.random.Generator) -> Sensor:
    """Short experiments on a rig whose sensors skip seconds."""
    rows = 1400
    values = readings(rng, rows, 8, memory=0.7, noise=0.6)
    values += np.cumsum(rng.normal(size=values.shape) * 0.01, axis=0) * values.std(axis=0)
    faults = Faults(rng, values)
    for rows_of in faults.gaps(550, 60, 100, (120, 250)):
        faults.shift(rows_of, "valve", (1, 4), (1.5, 4), 0.3)
    return Sensor(np.cumsum(rng.choice([1, 1, 1, 1, 2, 3], rows)).astype(float), values, faults.labels, 400)


def wide_table(rng: np.random.Generator) -> Sensor:
    """A small table with many features, some skewed, some binary."""
    rows, features = 1200, 120
    values = rng.normal(size=(3, features))[rng.integers(3, size=rows)] * 1.2
    values += rng.normal(size=(rows, 8)) @ rng.normal(size=(8, features)) * 0.5
    values += rng.normal(size=(rows, features)) * rng.uniform(0.5, 1.5, features)
    bad = np.flatnonzero(rng.random(rows) < 0.08)
    values[np.ix_(bad, rng.choice(features, 12, replace=False))] += rng.normal(1.2, 1, (len(bad), 12))
    values[:, :20], values[:, 20:40] = np.exp(values[:, :20] / 2), values[:, 20:40] > 1
    labels = np.where(np.isin(np.arange(rows), bad), "bad", NORMAL).tolist()
    return Sensor(np.arange(rows) * 1.0, values, labels, 200)


def classes(rng: np.random.Generator) -> Sensor:
    """A table with four classes of anomalies; one breaks nothing but the couplings of the features."""
    rows, features = 5000, 12
    values = rng.normal(size=(rows, 5)) @ rng.normal(size=(5, features)) + 0.5 * rng.normal(size=(rows, features))
    faults = Faults(rng, values)
    for row in np.flatnonzero(rng.random(rows) < 0.05).tolist():
        kind = int(rng.integers(4))
        if kind == 3:
            values[row] = rng.normal(size=5) @ rng.normal(size=(5, features)) + 0.5 * rng.normal(size=features)
            faults.labels[row] = "loose"
        else:
            chosen = slice(3 * kind, 3 * kind + 3)
            values[row, chosen] += rng.uniform(1, 2, 3) * faults.sd[chosen] * (-1) ** np.arange(3)
            faults.labels[row] = f"class {kind}"
    return Sensor(np.arange(rows) * 1.0, values, faults.labels, 500)


@dataclass(frozen=True)
class Kind:
    """How many sensors, and when verdicts come."""

    make: Callable[[np.random.Generator], Sensor]
    sensors: int
    delay: int


KINDS = {
    "drift": Kind(drift, 4, 500),
    "long-faults": Kind(long_faults, 4, 500),
    "wells": Kind(wells, 6, 500),
    "rigs": Kind(rigs, 8, 70),
    "wide-table": Kind(wide_table, 1, 60),
    "classes": Kind(classes, 1, 250),
}


@dataclass(frozen=True)
class PlantTime:
    """How long the simulator's four machines run, and from when on they are judged."""

    hours: int
    warmup_hours: float


PLANTS = {
    "plant": PlantTime(20, 10 / 3),
    "plant-days": PlantTime(5 * 24, 24),  # every hour of the day, and a few cleaning cycles, have been seen once
}
PLANT_DELAY, PER_HOUR = 500, 360


def delay_of(name: str) -> int:
    """Events of a sensor until the verdict on one comes."""
    return KINDS[name].delay if name in KINDS else PLANT_DELAY


def recording(name: str, seed: int) -> Recording:
    """One draw of a stream."""
    if name in PLANTS:
        plant, how_long = Plant(PlantConfig(machines=4, seed=seed)), PLANTS[name]
        chunk = plant.chunk(how_long.hours * PER_HOUR)
        said = [*(one.label for one in plant.episodes), NORMAL]
        return Recording(
            name,
            chunk.times_ns,
            [plant.sensor_ids[i] for i in chunk.machine.tolist()],
            [said[i] for i in chunk.episode.tolist()],
            np.arange(len(chunk)) >= how_long.warmup_hours * PER_HOUR * len(plant.sensor_ids),
            FEATURES,
            chunk.values,
        )
    kind = KINDS[name]
    made = [kind.make(np.random.default_rng([seed, number])) for number in range(kind.sensors)]
    order = np.argsort(np.concatenate([one.times_s for one in made]), kind="stable")
    names = [f"{name}-{number}" for number, one in enumerate(made) for _ in one.labels]
    labels = [label for one in made for label in one.labels]
    values = np.concatenate([one.values for one in made])[order]
    return Recording(
        name,
        START_NS + (np.concatenate([one.times_s for one in made])[order] * 1e9).astype(np.int64),
        [names[i] for i in order.tolist()],
        [labels[i] for i in order.tolist()],
        np.concatenate([np.arange(len(one.labels)) >= one.warmup for one in made])[order],
        tuple(f"f{number:03d}" for number in range(values.shape[1])),
        values,
    )


def misjudged(true: Recording, seed: int) -> Recording:
    """The same with wrong verdicts on a share of the rows."""
    rng = np.random.default_rng([seed, 1])
    kinds = sorted({label for label in true.labels if label} - {NORMAL})
    wrong = rng.random(len(true)) < WRONG
    said = [
        (str(rng.choice(kinds)) if label == NORMAL else NORMAL) if flip else label
        for label, flip in zip(true.labels, wrong.tolist(), strict=True)
    ]
    return replace(true, labels=said)


def measure(name: str, seed: int, coverage: float, options: DetectorOptions, wrong: bool) -> list[float]:
    """ROC-AUC, average precision (means over sensors) and false-alarm rate of one run."""
    true = recording(name, seed)
    stream = Stream([misjudged(true, seed) if wrong else true], warmup=None, default_warmup=0)
    truth = Stream([true], warmup=None, default_warmup=0)
    protocol = Protocol(delay=Delay(delay_of(name)), coverage=coverage, seed=seed)
    run = run_backtest(stream, options, protocol, without_labels=False)
    score, areas = run.detector.score, []
    for sensor in range(len(truth.sensors)):
        mine = truth.judged & (truth.sensor == sensor)
        found = curve(score[mine], truth.anomalous[mine])
        if found.has_both:
            areas.append((found.roc_auc(), found.average_precision()))
    calm = truth.judged & ~truth.anomalous
    return [*np.mean(areas, axis=0).tolist(), float((score[calm] >= 1).mean())]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default=",".join([*KINDS, *PLANTS]), metavar="NAMES")
    parser.add_argument("--set", action="append", default=[], metavar="SETTING=VALUE", help="of detector settings")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(HEADER, flush=True)
    for name in chosen.only.split(","):
        cells, alarms = [name], []
        for coverage, wrong in ((1.0, False), (0.1, False), (0.0, False), (1.0, True)):
            each = [measure(name, seed, coverage, options_of(chosen.set, seed), wrong) for seed in range(chosen.seeds)]
            auc, precision, alarm = np.mean(each, axis=0).tolist()
            cells.append(f"{auc:.3f} / {precision:.3f}")
            alarms.append(alarm)
        print(f"| {' | '.join(cells)} | {100 * alarms[0]:.3g} % |", flush=True)
    return 0


def options_of(settings: Sequence[str], seed: int) -> DetectorOptions:
    """``learning.rate=0.001`` and the like, as options."""
    tree: dict[str, Any] = {"detector": {"seed": seed}}
    for one in settings:
        path, value = one.split("=", 1)
        *sections, name = path.split(".")
        at = tree
        for section in sections:
            at = at.setdefault(section, {})
        at[name] = value
    return DetectorOptions.model_validate(tree)


if __name__ == "__main__":
    sys.exit(main())
