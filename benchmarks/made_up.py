"""Made-up streams of many kinds, in place of recordings from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.evaluation.backtest.stream import NORMAL
from stream_ad.evaluation.recordings.recording import Recording
from stream_ad.evaluation.simulation.plant import FEATURES, Plant, PlantConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[Any]

START_NS = 1_767_225_600_000_000_000


@dataclass(frozen=True)
class Sensor:
    """N rows of one sensor."""

    times_s: Floats  # (N,)
    values: Floats  # (N, F)
    labels: list[str]
    warmup: int  # rows that are not evaluated


class Faults:
    """Writes faults into a sensor's readings and into its labels."""

    def __init__(self, rng: np.random.Generator, values: Floats) -> None:
        self.rng, self.values, self.sd = rng, values, values.std(axis=0)
        self.labels = [NORMAL] * len(values)

    def shift(self, rows: slice, name: str, features: tuple[int, int], sizes: tuple[float, float], ramp: float) -> None:
        """Move some features by a number of standard deviations, over a share ``ramp`` of the fault."""
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
        """Return the rows of faults, one fault after the other."""
        stretches: list[slice] = []
        at = first
        while True:
            at += least_gap + int(self.rng.exponential(mean_gap))
            length = int(self.rng.integers(*lengths))
            if at + length > len(self.values) - 20:
                return stretches
            stretches.append(slice(at, at + length))
            at += length


def readings(
    rng: np.random.Generator, rows: int, features: int, *, memory: float, noise: float, day: int = 0
) -> Floats:
    """Return readings (N, F) driven by three hidden causes with memory, the first with a cycle of ``day`` rows."""
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
    """Make rare short faults on a drifting stream, with an outage of three weeks after which much has changed."""
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
    """Make faults that last as long as a label takes, and longer."""
    faults = Faults(rng, readings(rng, 7000, 10, memory=0.9, noise=0.3, day=288))
    for rows in faults.gaps(900, 1500, 300, (500, 1500)):
        if rng.random() < 1 / 3:
            faults.stick(rows, "stuck")
        else:
            faults.shift(rows, "shifted", (2, 5), (1.5, 3.5), rng.choice([0, 0.5]))
    return Sensor(np.arange(7000) * 60.0, faults.values, faults.labels, 700)


def wells(rng: np.random.Generator) -> Sensor:
    """Make a reading a second; wells lack some sensors, others drop out for a while; slow faults of three classes."""
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
    """Make short experiments on a rig whose sensors skip seconds."""
    rows = 1400
    values = readings(rng, rows, 8, memory=0.7, noise=0.6)
    values += np.cumsum(rng.normal(size=values.shape) * 0.01, axis=0) * values.std(axis=0)
    faults = Faults(rng, values)
    for rows_of in faults.gaps(550, 60, 100, (120, 250)):
        faults.shift(rows_of, "valve", (1, 4), (1.5, 4), 0.3)
    return Sensor(np.cumsum(rng.choice([1, 1, 1, 1, 2, 3], rows)).astype(float), values, faults.labels, 400)


def wide_table(rng: np.random.Generator) -> Sensor:
    """Make a small table with many features, some skewed, some binary."""
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
    """Make a table with four classes of anomalies; one breaks nothing but the couplings of the features."""
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
    """Number of sensors, and delay of labels in events."""

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
    """How long the simulator's four machines run, and from when on they are evaluated."""

    hours: int
    warmup_hours: float


PLANTS = {
    "plant": PlantTime(20, 10 / 3),
    "plant-days": PlantTime(5 * 24, 24),  # every hour of the day, and a few cleaning cycles, have been seen once
}
PLANT_DELAY, PER_HOUR = 500, 360


def delay_of(name: str) -> int:
    """Return the events of a sensor between an event and its label."""
    return KINDS[name].delay if name in KINDS else PLANT_DELAY


def recording(name: str, seed: int) -> Recording:
    """Return a stream, drawn by the seed."""
    if name in PLANTS:
        plant, how_long = Plant(PlantConfig(machines=4, seed=seed)), PLANTS[name]
        chunk = plant.chunk(how_long.hours * PER_HOUR)
        labels_of = [*(episode.label for episode in plant.episodes), NORMAL]
        return Recording(
            name,
            chunk.times_ns,
            [plant.sensor_ids[i] for i in chunk.machine.tolist()],
            [labels_of[i] for i in chunk.episode.tolist()],
            np.arange(len(chunk)) >= how_long.warmup_hours * PER_HOUR * len(plant.sensor_ids),
            FEATURES,
            chunk.values,
        )
    kind = KINDS[name]
    made = [kind.make(np.random.default_rng([seed, number])) for number in range(kind.sensors)]
    order = np.argsort(np.concatenate([sensor.times_s for sensor in made]), kind="stable")
    names = [f"{name}-{number}" for number, sensor in enumerate(made) for _ in sensor.labels]
    labels = [label for sensor in made for label in sensor.labels]
    values = np.concatenate([sensor.values for sensor in made])[order]
    return Recording(
        name,
        START_NS + (np.concatenate([sensor.times_s for sensor in made])[order] * 1e9).astype(np.int64),
        [names[i] for i in order.tolist()],
        [labels[i] for i in order.tolist()],
        np.concatenate([np.arange(len(sensor.labels)) >= sensor.warmup for sensor in made])[order],
        tuple(f"f{number:03d}" for number in range(values.shape[1])),
        values,
    )
