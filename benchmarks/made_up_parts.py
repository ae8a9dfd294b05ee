"""What made-up streams are made of: readings with memory, faults written into them, and sensors merged by time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.evaluation.backtest.stream import NORMAL
from stream_ad.evaluation.recordings.recording import Recording

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[Any]

START_NS = 1_767_225_600_000_000_000
MIXED = ("shift", "drift", "spike", "stuck")


@dataclass(frozen=True)
class Sensor:
    """N rows of one sensor."""

    times_s: Floats  # (N,)
    values: Floats  # (N, F)
    labels: list[str]
    warmup: int  # rows that are not evaluated
    name: str = ""  # that of the stream and a number if empty


class Faults:
    """Writes faults into a sensor's readings and into its labels.

    Args:
        rng: Draws kinds, features and sizes.
        values: (N, F) readings, changed in place.
        sd: (F,) unit of the sizes; the standard deviation if not given.
    """

    def __init__(self, rng: np.random.Generator, values: Floats, sd: Floats | None = None) -> None:
        self.rng, self.values, self.sd = rng, values, values.std(axis=0) if sd is None else sd
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

    def freeze(self, rows: slice, name: str) -> None:
        """Let a feature repeat exactly the reading it has at the start."""
        feature = int(self.rng.integers(self.values.shape[1]))
        self.values[rows, feature] = self.values[rows.start, feature]
        self.labels[rows] = [name] * (rows.stop - rows.start)

    def mix(self, stretches: Sequence[slice], kinds: Sequence[str] = MIXED) -> None:
        """Write a fault of a drawn kind into each stretch: a spike takes its first few rows, the others all of it."""
        for rows in stretches:
            kind = str(self.rng.choice(kinds))
            if kind == "stuck":
                self.freeze(rows, kind)
            elif kind == "drift":
                self.shift(rows, kind, (1, 2), (2, 5), 0.8)
            elif kind == "shift":
                self.shift(rows, kind, (1, 4), (2, 4), 0)
            else:
                self.shift(slice(rows.start, rows.start + int(self.rng.integers(1, 10))), kind, (1, 3), (4, 8), 0)

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


def lagged(target: Floats, rate: Floats | float) -> Floats:
    """Return what follows a target (N, ...) by a share ``rate`` of the distance a row, from its first value on."""
    rates = np.broadcast_to(rate, target.shape[:1])
    followed, state = np.empty_like(target, dtype=np.float64), target[0].astype(np.float64)
    for row, aim in enumerate(target):
        state = state + rates[row] * (aim - state)
        followed[row] = state
    return followed


def merged(name: str, sensors: Sequence[Sensor]) -> Recording:
    """Return the rows of several sensors in the order of their times, as a recording."""
    order = np.argsort(np.concatenate([sensor.times_s for sensor in sensors]), kind="stable")
    names = [sensor.name or f"{name}-{number}" for number, sensor in enumerate(sensors) for _ in sensor.labels]
    labels = [label for sensor in sensors for label in sensor.labels]
    values = np.concatenate([sensor.values for sensor in sensors])[order]
    return Recording(
        name,
        START_NS + (np.concatenate([sensor.times_s for sensor in sensors])[order] * 1e9).astype(np.int64),
        [names[i] for i in order.tolist()],
        [labels[i] for i in order.tolist()],
        np.concatenate([np.arange(len(sensor.labels)) >= sensor.warmup for sensor in sensors])[order],
        tuple(f"f{number:03d}" for number in range(values.shape[1])),
        values,
    )
