"""Made-up machines that alarms are hard for: other normals by the hour, heavy tails, steps, long rests, fast readings.

Each returns one sensor with faults of mixed kinds: readings that shift, drift, spike, or repeat exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from made_up_parts import Faults, Sensor, lagged, readings

if TYPE_CHECKING:
    from made_up_parts import Floats

MINUTE_S = 60.0
WARMUP = 1500
BETWEEN, LENGTHS = (900, 200), (30, 400)  # rows between faults: mean beyond the least, and least; rows of a fault


def regimes(rng: np.random.Generator) -> Sensor:
    """Make a machine that turns out four products, each with its own levels and gains; new ones come up as it goes."""
    rows, features, products = 24_000, 8, 4
    values = readings(rng, rows, features, memory=0.9, noise=0.4)
    sd = values.std(axis=0)
    level = 2.5 * sd * rng.normal(size=(products, features))
    gain = rng.uniform(0.6, 1.6, size=(products, features))
    orders, introduced = [], 1
    for length in rng.integers(1000, 4000, size=rows // 1000).tolist():
        orders.append(np.full(length, rng.integers(introduced)))
        introduced = min(products, introduced + int(rng.random() < 0.4))
    product = np.concatenate(orders)[:rows]
    faults = Faults(rng, gain[product] * values + level[product], sd)
    faults.mix(faults.gaps(WARMUP, *BETWEEN, LENGTHS))
    return Sensor(np.arange(rows) * MINUTE_S, faults.values, faults.labels, WARMUP)


def weekly(rng: np.random.Generator) -> Sensor:
    """Make twelve weeks at five minutes with a cycle of a day; weekends have another level and less swing."""
    day, features, weeks = 288, 6, 12
    rows = 7 * day * weeks
    values = readings(rng, rows, features, memory=0.9, noise=0.3, day=day)
    sd = values.std(axis=0)
    weekend = (np.arange(rows) // day % 7 >= 5).astype(float)
    share = np.convolve(weekend, np.ones(24) / 24, mode="same")[:, None]  # two hours from one to the other
    faults = Faults(rng, values * (1 - 0.6 * share) + share * 2 * sd * rng.normal(size=features), sd)
    faults.mix(faults.gaps(WARMUP, *BETWEEN, LENGTHS))
    return Sensor(np.arange(rows) * 300.0, faults.values, faults.labels, 7 * day)


def heavy(rng: np.random.Generator) -> Sensor:
    """Make noise with heavy tails (t, 2.5 degrees of freedom) whose size itself wanders by a factor of two or so."""
    rows, features = 20_000, 6
    shocks = 7 * rng.normal(size=rows)
    shocks[0] = 0  # where the wandering begins
    noise = rng.standard_t(2.5, size=(rows, features)) * np.exp(lagged(shocks, 0.01))[:, None]
    values = readings(rng, rows, features, memory=0.9, noise=0.05) + 0.4 * noise
    from_middle = np.abs(values - np.median(values, axis=0))
    faults = Faults(
        rng, values, np.quantile(from_middle, 0.68, axis=0)
    )  # a standard deviation would be that of the tail
    faults.mix(faults.gaps(WARMUP, *BETWEEN, LENGTHS))
    return Sensor(np.arange(rows) * MINUTE_S, faults.values, faults.labels, WARMUP)


def counters(rng: np.random.Generator) -> Sensor:
    """Make two levels in coarse steps, a set point, a count, a reading that lags behind the set point, a smooth one."""
    rows, held = 20_000, 250
    smooth = readings(rng, rows, 4, memory=0.97, noise=0.2)
    coarse = np.round(smooth[:, :2] * 2) / 2
    set_point = 1.5 * np.repeat(rng.integers(4, size=rows // held), held)
    pieces = rng.poisson(3 * np.exp(0.7 * smooth[:, 2]))
    lagging = lagged(set_point, 0.05) + 0.1 * rng.normal(size=rows)
    faults = Faults(rng, np.column_stack([coarse, set_point, pieces, lagging, smooth[:, 3]]))
    faults.mix(faults.gaps(WARMUP, *BETWEEN, LENGTHS))
    return Sensor(np.arange(rows) * MINUTE_S, faults.values, faults.labels, WARMUP)


def constant(rng: np.random.Generator) -> Sensor:
    """Make four valves that rest for hours, a level in steps that two of them fill and drain, a noisy reading of it."""
    rows = 20_000
    valves = np.column_stack([_resting(rng, rows, rng.uniform(150, 1200), by_hand) for by_hand in (0, 0, 0, 1)])
    level = np.round(20 * lagged(valves[:, 0] - valves[:, 1], 0.01)) / 20
    faults = Faults(rng, np.column_stack([valves, level, 0.5 * level + 0.3 * rng.normal(size=rows)]))
    faults.mix(faults.gaps(WARMUP, *BETWEEN, LENGTHS), ("shift", "drift", "spike"))
    return Sensor(np.arange(rows) * MINUTE_S, faults.values, faults.labels, WARMUP)


def onoff(rng: np.random.Generator) -> Sensor:
    """Make a machine that stands still at times; half of its readings then repeat exactly, the others hardly move."""
    rows, features = 20_000, 6
    running = np.ones(rows)
    at = 600
    while at < rows:
        length = int(rng.integers(200, 700))
        running[at : at + length] = 0
        at += length + int(rng.integers(400, 1500))
    values = readings(rng, rows, features, memory=0.95, noise=0.3)
    speed = lagged(running, np.where(running > 0, 0.1, 0.05))[:, None]  # it starts faster than it comes to rest
    rest = -3 * np.abs(rng.normal(size=features))
    mixed = rest + speed * (values - rest)
    exact = rng.random(features) < 0.5
    faults = Faults(rng, np.where((speed < 0.02) & exact, rest, mixed), values.std(axis=0))
    stretches = faults.gaps(WARMUP, *BETWEEN, LENGTHS)
    faults.mix([stretch for stretch in stretches if running[stretch].all()], ("shift", "drift", "stuck"))
    return Sensor(np.arange(rows) * MINUTE_S, faults.values, faults.labels, WARMUP)


def fast(rng: np.random.Generator) -> Sensor:
    """Make a reading a second that hardly moves from one to the next, but follows slow manoeuvres."""
    rows, features, warmup, held = 40_000, 6, 2500, 1500
    values = readings(rng, rows, features, memory=0.998, noise=0.02)
    sd = values.std(axis=0)
    aims = np.repeat(rng.normal(size=(rows // held + 1, features)) * sd, held, axis=0)[:rows]
    faults = Faults(rng, values + lagged(aims, 0.01), sd)
    faults.mix(faults.gaps(warmup, 1800, 200, (60, 900)))
    return Sensor(np.arange(rows) * 1.0, faults.values, faults.labels, warmup)


def _resting(rng: np.random.Generator, rows: int, mean_rest: float, by_hand: float) -> Floats:
    """Return a state (N,) that rests for so many rows in the mean: 0, 1 or 5, and as much off as a hand may set it."""
    states: list[Floats] = []
    length = 0
    while length < rows:
        rest = 10 + int(rng.exponential(mean_rest))
        states.append(np.full(rest, rng.choice([0.0, 1.0, 1.0, 5.0]) + by_hand * rng.normal()))
        length += rest
    return np.concatenate(states)[:rows]
