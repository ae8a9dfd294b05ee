"""A plant of presses that stands still for ten minutes every six hours: a state that recurs and that nobody labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from made_up_parts import START_NS, Sensor, lagged, merged

from stream_ad.evaluation.backtest.stream import NORMAL

if TYPE_CHECKING:
    from made_up_parts import Floats
    from numpy.typing import NDArray

    from stream_ad.evaluation.recordings.recording import Recording

PRESSES, DAYS, INTERVAL_S = 20, 7, 10
PER_DAY = 86_400 // INTERVAL_S
STOP_EVERY_S, STOP_S = 6 * 3600, 600
DELAY = 180  # events of a press between an event and its label: half an hour
FORCE, CURRENT, PRESSURE, OIL, VIBRATION, STROKES = range(6)
FAULTS = ("leak", "bearing", "hot-oil", "stuck-gauge", "slip")
OF_EACH = 6
HOURS = (0.2, 0.5, 1.5, 4, 12, 40)  # how long the faults of a kind last: some for days


@dataclass(frozen=True)
class Presses:
    """The truth, and what people say of it."""

    truth: Recording
    """A row in a stop is normal, unless the press has a fault at the time."""
    labelled: Recording
    """The same without a label for any row in a stop."""
    stops: list[tuple[int, int]]
    """Each planned stop, from its first nanosecond to that of the first row after it."""


def presses(seed: int, *, with_stops: bool = True) -> Presses:
    """Return a week of all presses; without stops the faults are the same."""
    times_s = np.arange(DAYS * PER_DAY) * float(INTERVAL_S)
    into_stop = times_s % STOP_EVERY_S - (STOP_EVERY_S - STOP_S)  # a stop ends each six hours
    stopped = (into_stop >= 0) & with_stops
    plan = np.random.default_rng([seed, PRESSES])
    kinds = [(name, hours) for name in FAULTS for hours in HOURS[:OF_EACH]]
    turns = [kinds[i] for i in plan.permutation(len(kinds)).tolist()]
    sensors = []
    for number in range(PRESSES):
        rng = np.random.default_rng([seed, number])
        values, labels = _readings(rng, stopped), [NORMAL] * len(times_s)
        own_faults = turns[number::PRESSES]  # one or two faults
        for turn, (name, hours) in enumerate(own_faults):
            part = (DAYS - 1) * PER_DAY // len(own_faults)  # of the week without its first day, for each fault
            length = int(hours * 3600 / INTERVAL_S)
            start = PER_DAY + turn * part + int(rng.integers(part - length))
            rows = slice(start, start + length)
            _break(rng, values, name, rows)
            labels[rows] = [name] * length
        sensors.append(Sensor(times_s, values.round(3), labels, PER_DAY, f"press-{number + 1:02d}"))
    truth = merged("presses", sensors)
    in_stop = stopped[np.searchsorted(times_s, (truth.times_ns - START_NS) / 1e9)]
    labels_given = [None if still else label for label, still in zip(truth.labels, in_stop.tolist(), strict=True)]
    return Presses(truth, replace(truth, labels=labels_given), _windows(times_s, stopped))


def _windows(times_s: Floats, stopped: NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.diff(stopped.astype(np.int64), prepend=0, append=0)
    begins, ends = times_s[np.flatnonzero(edges > 0)], times_s[np.flatnonzero(edges < 0) - 1] + INTERVAL_S
    return [
        (START_NS + int(begin * 1e9), START_NS + int(end * 1e9))
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)
    ]


def _readings(rng: np.random.Generator, stopped: NDArray[np.bool_]) -> Floats:
    """Return what a healthy press reads (N, 6)."""
    rows = len(stopped)
    day = 2 * np.pi * np.arange(rows) / PER_DAY + rng.uniform(0, 6)
    running = lagged(np.where(stopped, 0.0, 1.0), 0.5)
    shocks = 10 * rng.normal(size=rows)
    shocks[0] = 0
    load = running * (1 + 0.05 * np.sin(day) + 0.02 * lagged(shocks, 0.02))  # of what the tool demands
    noise = rng.normal(size=(rows, 6)) * [4, 0.6, 1.2, 0.1, 0.05, 0.15]
    nominal = rng.uniform(0.9, 1.1, 6) * [400, 60, 180, 48, 2.0, 24]
    warmth = lagged(load, 0.01)
    values = np.empty((rows, 6))
    values[:, FORCE] = nominal[FORCE] * load
    values[:, CURRENT] = nominal[CURRENT] * (0.1 + 0.9 * load)
    values[:, PRESSURE] = nominal[PRESSURE] * (0.6 * running + 0.4 * load)
    values[:, OIL] = 20 + 2 * np.sin(day - 1) + (nominal[OIL] - 20) * warmth
    values[:, VIBRATION] = nominal[VIBRATION] * load * np.exp(0.1 * rng.normal(size=rows))
    values[:, STROKES] = nominal[STROKES] * running
    return values + noise * np.where(running > 0.05, 1, 0.1)[:, None]


def _break(rng: np.random.Generator, values: Floats, name: str, rows: slice) -> None:
    """Write a fault into the readings; what rises does so over the first third of it."""
    part, size = values[rows], rng.uniform(0.7, 1.3)
    rise = np.minimum(1, 3 * np.arange(len(part)) / len(part))
    if name == "leak":  # pressure goes and the pump works harder
        part[:, PRESSURE] *= 1 - 0.08 * size * rise
        part[:, CURRENT] *= 1 + 0.05 * size * rise
    elif name == "bearing":
        part[:, VIBRATION] *= 1 + 0.8 * size * rise
        part[:, OIL] += 2.0 * size * rise
    elif name == "hot-oil":
        part[:, OIL] += 6.0 * size * rise
    elif name == "stuck-gauge":
        gauge = int(rng.choice([FORCE, CURRENT, PRESSURE, VIBRATION]))
        part[:, gauge] = part[0, gauge]
    else:  # the clutch slips: strokes get lost and force no longer follows current
        slips = rng.random(len(part)) < 0.3
        part[slips, FORCE] *= 1 - 0.25 * size
        part[slips, STROKES] *= 1 - 0.1 * size
