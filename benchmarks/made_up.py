"""Made-up streams of many kinds, in place of recordings from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from made_up_kinds import constant, counters, fast, heavy, onoff, regimes, weekly
from made_up_parts import Faults, Sensor, merged, readings

from stream_ad.evaluation.backtest.stream import NORMAL
from stream_ad.evaluation.recordings.recording import Recording
from stream_ad.evaluation.simulation.plant import FEATURES, Plant, PlantConfig

if TYPE_CHECKING:
    from collections.abc import Callable


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
    "regimes": Kind(regimes, 2, 500),
    "weekly": Kind(weekly, 2, 500),
    "heavy": Kind(heavy, 2, 500),
    "counters": Kind(counters, 2, 500),
    "constant": Kind(constant, 2, 500),
    "onoff": Kind(onoff, 2, 500),
    "fast": Kind(fast, 1, 500),
    "wide-table": Kind(wide_table, 1, 60),
    "classes": Kind(classes, 1, 250),
}
TABLES = ("wide-table", "classes")  # their rows have no memory


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
    return merged(name, made)
