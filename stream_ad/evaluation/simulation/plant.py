"""A simulated plant: motor-driven pumps with coupled readings, faults and harmless operating modes.

Every machine follows a demand with a daily cycle; load, temperature and vibration answer with inertia,
flow, pressure and current follow from the load. Faults act on the physical quantities (or on one
sensor), so that their consequences spread as they would: an overload heats the motor only after a
while. Cleaning cycles look unusual and are harmless: without a label nobody can know.

The stream depends on ``PlantConfig`` alone, never on how it is cut into chunks.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FEATURES = ("current", "flow", "load", "pressure", "temperature", "vibration")
"""Ampere, m³/h, % of rated load, bar, °C, mm/s."""
CURRENT, FLOW, LOAD, PRESSURE, TEMPERATURE, VIBRATION = range(6)
NORMAL = "normal"
CLEANING = "cleaning"
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Kind:
    """Duration, rise and target of a kind of episode."""

    minutes: tuple[float, float]  # shortest and longest duration
    rise: float  # share of the episode until it has its full size; 0: at once
    broken: tuple[int, ...]  # features it acts on; () for one sensor drawn at random
    weight: float = 1.0  # relative frequency


FAULTS: dict[str, Kind] = {
    "bearing-wear": Kind((60, 180), 0.7, (VIBRATION, TEMPERATURE)),
    "leak": Kind((30, 90), 0.2, (PRESSURE, FLOW)),
    "stuck-sensor": Kind((40, 120), 0.0, ()),
    "drifting-sensor": Kind((60, 150), 0.8, ()),
    "overload": Kind((20, 60), 0.2, (CURRENT, LOAD, TEMPERATURE)),
    "power-dip": Kind((3, 8), 0.0, (CURRENT, LOAD), weight=2.0),
}
_CLEANING = Kind((10, 16), 0.1, ())


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantConfig:
    """A plant; equal configurations give equal streams."""

    machines: int = 12
    seed: int = 0
    interval_s: float = 10.0
    """Event time between two readings of a machine."""
    start_ns: int = 1_767_225_600_000_000_000  # 2026-01-01
    healthy_s: float = 4 * 3600.0
    """Seconds without faults and cleaning at the beginning, for the warm-up."""
    fault_every_s: float = 6 * 3600.0
    """Mean time from the end of a machine's fault to its next one."""
    cleaning_every_s: float = 8 * 3600.0
    """Time between two cleaning cycles of a machine."""
    severity: float = 1.0
    """Size of faults: 1 is easy to see for most, 0.3 is mild."""


@dataclass(frozen=True, slots=True)
class Episode:
    """The truth about one stretch of one machine: a fault, or a harmless operating mode."""

    machine: int
    kind: str
    start_ns: int
    end_ns: int
    """Time of the last reading that may be in it."""
    broken: tuple[int, ...]
    """Indices into FEATURES that the episode acts on; for a sensor fault, that sensor."""
    size: float

    @property
    def label(self) -> str:
        """The label that a person who knows the truth would give."""
        return NORMAL if self.kind == CLEANING else self.kind


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Readings in arrival order: all machines of a moment, then the next moment. N = steps x machines."""

    first_row: int  # of the stream, from 0
    times_ns: NDArray[np.int64]  # (N,)
    machine: NDArray[np.int64]  # (N,) index into Plant.sensor_ids
    values: Floats  # (N, F) in the units of FEATURES
    episode: NDArray[np.int64]  # (N,) index into Plant.episodes, -1 outside; faults before cleaning

    def __len__(self) -> int:
        return len(self.machine)


class Plant:
    """Runs the machines step by step; ``episodes`` is the truth so far."""

    def __init__(self, config: PlantConfig) -> None:
        machines = config.machines
        self.config = config
        self.sensor_ids = [f"pump-{number:02d}" for number in range(1, machines + 1)]
        self.episodes: list[Episode] = []
        self.steps = 0
        seeds = np.random.SeedSequence(config.seed).spawn(2 + machines)
        make = np.random.default_rng(seeds[0])
        self._noise = np.random.default_rng(seeds[1])
        self._base = make.uniform(0.45, 0.65, machines)  # (M,) mean load, 1 = rated
        self._swing = make.uniform(0.04, 0.1, machines)  # of the daily cycle
        self._phase = make.normal(0, 0.06, machines)  # days
        nominal = np.array([42.0, 85.0, 100.0, 6.0, 38.0, 2.2])  # temperature: rise over ambient
        self.nominal = nominal * make.lognormal(0, 0.15, (machines, len(FEATURES)))  # (M, F) at rated load
        self.nominal[:, LOAD] = 100.0
        self._ambient = make.uniform(19, 25, machines)  # °C
        self._lags = {  # seconds
            "wander": np.full(machines, 5400.0),
            "load": make.uniform(90, 240, machines),
            "heat": make.uniform(480, 960, machines),
            "shake": np.full(machines, 120.0),
        }
        self._states: dict[str, Floats] = {}
        self._stuck: dict[int, tuple[int, float]] = {}  # machine: episode, the reading it got stuck at
        schedules: list[Iterator[Episode]] = []
        for machine in range(machines):
            faults_seed, cleaning_seed = seeds[2 + machine].spawn(2)
            schedules.append(self._faults(machine, np.random.default_rng(faults_seed)))
            schedules.append(self._cleaning(machine, np.random.default_rng(cleaning_seed)))
        self._upcoming = heapq.merge(*schedules, key=lambda episode: episode.start_ns)
        self._next = next(self._upcoming)
        self._open: list[int] = []  # episodes that have not ended

    def chunk(self, steps: int) -> Chunk:
        """Return the next ``steps`` readings of every machine."""
        machines = self.config.machines
        step_ns = int(self.config.interval_s * 1e9)
        numbers = np.arange(self.steps, self.steps + steps, dtype=np.int64)
        times_ns = self.config.start_ns + numbers * step_ns  # (T,)
        first_row = self.steps * machines
        self.steps += steps
        active = self._active(int(times_ns[-1]))
        episode_of = np.full((steps, machines), -1, dtype=np.int64)
        sizes = {kind: np.zeros((steps, machines)) for kind in (*FAULTS, CLEANING)}
        for index in sorted(active, key=lambda i: self.episodes[i].kind != CLEANING):  # faults overwrite cleaning
            episode = self.episodes[index]
            inside = (times_ns >= episode.start_ns) & (times_ns <= episode.end_ns)
            episode_of[inside, episode.machine] = index
            sizes[episode.kind][inside, episode.machine] = _size(episode, times_ns[inside])
        values = self._readings(times_ns, sizes)
        self._break_sensors(values, times_ns, active, sizes)
        return Chunk(
            first_row=first_row,
            times_ns=np.repeat(times_ns, machines),
            machine=np.tile(np.arange(machines), steps),
            values=values.reshape(steps * machines, len(FEATURES)).round(4),  # what an instrument resolves
            episode=episode_of.reshape(-1),
        )

    def broken(self, chunk: Chunk) -> NDArray[np.bool_]:
        """Return which features a fault acts on, (N, F); harmless episodes break nothing."""
        table = np.zeros((len(self.episodes) + 1, len(FEATURES)), dtype=np.bool_)  # the last row: no episode
        for index, episode in enumerate(self.episodes):
            table[index, list(episode.broken)] = True
        return table[chunk.episode]

    # -- physics ------------------------------------------------------------------------------

    def _readings(self, times_ns: NDArray[np.int64], sizes: dict[str, Floats]) -> Floats:
        """Return what healthy sensors read, (T, M, F), for times (T,) and sizes (T, M) of each kind of episode."""
        steps, machines = len(times_ns), self.config.machines
        noise = self._noise.standard_normal((steps, machines, 2 + len(FEATURES)))
        day = (times_ns % int(DAY_S * 1e9))[:, None] / (DAY_S * 1e9) + self._phase  # (T, M) share of the day
        cycle = np.sin(2 * np.pi * (day - 0.3)) + 0.35 * np.sin(4 * np.pi * day)
        wander = self._lag("wander", noise[:, :, 0] * 0.03 * np.sqrt(2 * 5400.0 / self.config.interval_s))
        demand = np.clip(self._base + self._swing * cycle + wander, 0.2, 0.95)
        cleaning, overload, dip = sizes[CLEANING], sizes["overload"], sizes["power-dip"]
        demand = demand * (1 - cleaning) + 0.55 * cleaning
        work = self._lag("load", demand) * (1 - 0.35 * dip)  # (T, M) on the fluid; a dip takes the speed at once
        load = work + 0.3 * overload  # thick medium, blocked guard: more load for the same work
        leak, wear = sizes["leak"], sizes["bearing-wear"]
        current = (0.25 + 0.75 * load) * (1 + 0.25 * overload) * (1 - 0.3 * dip) * (1 + 0.04 * leak)
        flow = work * (1 - 0.35 * leak) * (1 + 0.45 * cleaning)
        pressure = (0.45 + 0.55 * work**2) * (1 - 0.35 * leak) * (1 - 0.4 * cleaning)
        ambient = self._ambient + 3 * np.sin(2 * np.pi * (day - 0.4))
        heat = self.nominal[:, TEMPERATURE] * (current**2 + 0.6 * wear**2)
        temperature = self._lag("heat", ambient + heat - 8 * cleaning)
        shake = self._lag("shake", noise[:, :, 1] * 0.05 * np.sqrt(2 * 120.0 / self.config.interval_s))
        vibration = (0.5 + 0.5 * work**2) * np.exp(shake) * (1 + 1.6 * wear) * (1 + 0.25 * cleaning)
        exact = np.stack(
            [current, flow, load, pressure, temperature / self.nominal[:, TEMPERATURE], vibration], axis=-1
        )
        error = np.array([0.012, 0.015, 0.01, 0.01, 0.006, 0.03]) * noise[:, :, 2:]
        return (exact + error) * self.nominal

    def _lag(self, name: str, target: Floats) -> Floats:
        """Follow the target (T, M) with first-order inertia, by the time constants of that name."""
        rate = 1 - np.exp(-self.config.interval_s / self._lags[name])  # (M,)
        state = self._states.get(name)
        if state is None:
            state = np.zeros_like(target[0]) if name in ("wander", "shake") else target[0]
        out = np.empty_like(target)
        for step, aim in enumerate(target):
            state = state + rate * (aim - state)
            out[step] = state
        self._states[name] = state
        return out

    def _break_sensors(
        self, values: Floats, times_ns: NDArray[np.int64], active: list[int], sizes: dict[str, Floats]
    ) -> None:
        for index in active:
            episode = self.episodes[index]
            inside = np.flatnonzero((times_ns >= episode.start_ns) & (times_ns <= episode.end_ns))
            if not inside.size or episode.kind not in ("stuck-sensor", "drifting-sensor"):
                continue
            feature = episode.broken[0]
            readings = values[:, episode.machine, feature]
            if episode.kind == "drifting-sensor":
                readings[inside] += (
                    sizes[episode.kind][inside, episode.machine] * 0.3 * self.nominal[episode.machine, feature]
                )
                continue
            if self._stuck.get(episode.machine, (-1, 0.0))[0] != index:
                self._stuck[episode.machine] = (index, float(readings[inside[0]]))
            readings[inside] = self._stuck[episode.machine][1]

    # -- what happens when --------------------------------------------------------------------

    def _active(self, until_ns: int) -> list[int]:
        """Return the episodes that begin by ``until_ns`` and had not ended before this chunk."""
        while self._next.start_ns <= until_ns:
            self._open.append(len(self.episodes))
            self.episodes.append(self._next)
            self._next = next(self._upcoming)
        active = self._open
        self._open = [index for index in active if self.episodes[index].end_ns > until_ns]
        return active

    def _faults(self, machine: int, rng: np.random.Generator) -> Iterator[Episode]:
        weights = np.array([kind.weight for kind in FAULTS.values()])
        at = self.config.healthy_s
        while True:
            at += 600.0 + rng.exponential(self.config.fault_every_s)
            name = list(FAULTS)[rng.choice(len(FAULTS), p=weights / weights.sum())]
            size = self.config.severity * rng.uniform(0.7, 1.3)
            broken = FAULTS[name].broken or (int(rng.integers(len(FEATURES))),)
            fault = Episode(machine, name, *self._span(FAULTS[name], at, rng), broken, size)
            yield fault
            at = (fault.end_ns - self.config.start_ns) / 1e9

    def _cleaning(self, machine: int, rng: np.random.Generator) -> Iterator[Episode]:
        every = self.config.cleaning_every_s
        first = self.config.healthy_s + rng.uniform(0, every)
        for number in count():
            span = self._span(_CLEANING, first + number * every, rng)
            yield Episode(machine, CLEANING, *span, (), rng.uniform(0.9, 1.1))

    def _span(self, kind: Kind, at_s: float, rng: np.random.Generator) -> tuple[int, int]:
        start = self.config.start_ns + int(at_s * 1e9)
        return start, start + int(rng.uniform(*kind.minutes) * 60e9)


def _size(episode: Episode, times_ns: NDArray[np.int64]) -> Floats:
    """Return how far the episode has developed at times (N,), 0 to its size."""
    rise = (FAULTS.get(episode.kind) or _CLEANING).rise
    share = (times_ns - episode.start_ns) / max(1, episode.end_ns - episode.start_ns)
    return episode.size * (np.minimum(1.0, share / rise) if rise else np.ones(len(times_ns)))
