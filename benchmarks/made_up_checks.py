"""Made-up streams that each put one question to the alarm: noise, stuck readings, lasting change, intervals, fleets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from made_up_parts import Faults, Sensor, lagged, merged, readings

from stream_ad.evaluation.backtest.stream import NORMAL

if TYPE_CHECKING:
    from made_up_parts import Floats

    from stream_ad.evaluation.recordings.recording import Recording

MINUTE_S = 60.0
WARMUP = 1500

NOISES = ("independent", "heavy-tailed", "memory .9", "memory .99")
NOISE_ROWS, NOISE_FEATURES = 60_000, 4


def noise(kind: str, seed: int) -> Recording:
    """Return noise without a fault: independent normal, t with 3 degrees of freedom, or one that remembers."""
    rng = np.random.default_rng([seed, NOISES.index(kind)])
    shape = (NOISE_ROWS + WARMUP, NOISE_FEATURES)
    if kind == "heavy-tailed":
        values = rng.standard_t(3, size=shape)
    else:
        memory = {"independent": 0.0, "memory .9": 0.9, "memory .99": 0.99}[kind]
        values = rng.normal(size=shape)
        values[1:] *= np.sqrt(1 - memory**2) / (1 - memory)  # so that the spread is 1 whatever the memory
        values = lagged(values, 1 - memory)
    sensor = Sensor(np.arange(len(values)) * MINUTE_S, values, [NORMAL] * len(values), WARMUP, kind.replace(" ", "-"))
    return merged("noise", [sensor])


STUCK = {"noisy": (0.5, 0.5, 0.0), "smooth": (0.98, 0.02, 0.0), "coarse": (0.9, 0.3, 0.25), "slow": (0.998, 0.0, 0.05)}
"""Memory, noise and resolution (in standard deviations) of readings of each nature; a slow one repeats for a while."""


def stuck(seed: int) -> Recording:
    """Return moving readings of several natures, each of which at times repeats one reading exactly for some hours."""
    sensors = []
    for number, (nature, (memory, roughness, resolution)) in enumerate(STUCK.items()):
        rng = np.random.default_rng([seed, number])
        values = readings(rng, 20_000, 6, memory=memory, noise=roughness)
        steps = resolution * values.std(axis=0)
        faults = Faults(rng, np.round(values / steps) * steps if resolution else values)
        for rows in faults.gaps(3000, 1500, 500, (200, 600)):
            faults.freeze(rows, nature)
        sensors.append(Sensor(np.arange(20_000) * MINUTE_S, faults.values, faults.labels, WARMUP, nature))
    return merged("stuck", sensors)


CHANGE_ROW, CHANGE_ROWS = 10_000, 30_000
CHANGES = ("level of two", "level of all", "gain", "couplings", "new noise")


def change(seed: int) -> Recording:
    """Return sensors whose normal changes for good at row ``CHANGE_ROW``, each in another way; all rows are normal."""
    sensors = []
    for number, name in enumerate(CHANGES):
        rng = np.random.default_rng([seed, number])
        features = 6
        values = readings(rng, CHANGE_ROWS, features, memory=0.9, noise=0.3)
        sd, after = values.std(axis=0), values[CHANGE_ROW:]
        if name == "level of two":
            after[:, :2] += 4 * sd[:2]
        elif name == "level of all":
            after += 3 * sd * rng.choice([-1, 1], features)
        elif name == "gain":
            after *= rng.uniform(1.5, 2.5, features)
        elif name == "couplings":
            after[:, :3] = readings(rng, len(after), 3, memory=0.9, noise=0.3)
        else:
            after += sd * rng.normal(size=after.shape)
        times_s = np.arange(CHANGE_ROWS) * MINUTE_S
        sensors.append(Sensor(times_s, values, [NORMAL] * CHANGE_ROWS, WARMUP, name.replace(" ", "-")))
    return merged("change", sensors)


INTERVALS_S = {"1 s": 1.0, "10 s": 10.0, "1 min": 60.0, "5 min": 300.0, "1 h": 3600.0}
AGES, LASTS = (2500, 10_000, 40_000), (1, 10)  # events before a huge error, and events that it lasts
INTERVAL_ROWS = 45_000


def at_interval(interval_s: float, seed: int) -> Recording:
    """Return the same readings at any interval: sensors without a fault, and sensors with one huge error each.

    The error is ten times as large as anything that its reading has shown; its label says after how many events it
    comes and how many it lasts.
    """
    errors = [(age, lasts) for age in AGES for lasts in LASTS]
    sensors = []
    for number, error in enumerate([None, None, *errors]):
        rng = np.random.default_rng([seed, number])
        values = readings(rng, INTERVAL_ROWS, 6, memory=0.9, noise=0.3)
        labels = [NORMAL] * INTERVAL_ROWS
        if error is not None:
            age, lasts = error
            before = values[:age, 0]
            values[age : age + lasts, 0] = before.mean() + 10 * np.abs(before - before.mean()).max()
            labels[age : age + lasts] = [error_label(age, lasts)] * lasts
        sensors.append(Sensor(np.arange(INTERVAL_ROWS) * interval_s, values, labels, WARMUP))
    return merged("interval", sensors)


def error_label(age: int, lasts: int) -> str:
    """Return the label of the huge error that comes after ``age`` events and lasts so many."""
    return f"error after {age}, of {lasts}"


FLEETS = ("pumps", "engines")
FLEET_WARMUP = 50


def fleet(kind: str, seed: int) -> Recording:
    """Return many machines with few rows: 37 pumps with 150 rows, or 100 engines with 200; not all of them break."""
    plan = np.random.default_rng([seed, FLEETS.index(kind), 0])
    mixing = plan.normal(size=(2, 8))
    machines = 37 if kind == "pumps" else 100
    return merged(kind, [_machine(kind, [seed, FLEETS.index(kind), 1 + number], mixing) for number in range(machines)])


def _machine(kind: str, seed: list[int], mixing: Floats) -> Sensor:
    """Return a machine built like the others of its fleet, with offsets of its own."""
    rng = np.random.default_rng(seed)
    rows = 150 if kind == "pumps" else 200
    load = lagged(5 * rng.normal(size=(rows, 2)), 0.2)
    own, offset = mixing * rng.uniform(0.9, 1.1, mixing.shape), 2 * rng.normal(size=8)
    faults = Faults(rng, load @ own + 0.4 * rng.normal(size=(rows, 8)) + offset)
    if kind == "engines":
        if rng.random() < 0.5:  # the others are taken out of service before they wear out
            faults.shift(slice(rows - 30, rows), "wear", (2, 6), (1.5, 4), 0.8)
    elif rng.random() < 0.5:
        start = int(rng.integers(80, 120))
        faults.mix([slice(start, start + int(rng.integers(10, 30)))])
    hour_s = 3600.0
    return Sensor(np.arange(rows) * hour_s, faults.values, faults.labels, FLEET_WARMUP)
