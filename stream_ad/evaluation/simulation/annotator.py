"""What people say about a simulated plant, and when: verdicts after a delay, incomplete and sometimes wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from stream_ad.evaluation.simulation.plant import FAULTS, NORMAL

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.evaluation.simulation.plant import Chunk, Episode, Plant

NAMES = (NORMAL, *FAULTS)
"""Verdicts are given as indices into this."""
_CODE = {name: code for code, name in enumerate(NAMES)}
_ROUND_S = 3600.0
"""Length of the stretch that one inspection of a healthy machine speaks for (form «intervals»)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatorConfig:
    """Equal configurations over equal plants give equal verdicts."""

    form: Literal["events", "intervals"] = "events"
    """On single events, or on whole episodes once they are over."""
    delay_s: float = 1800.0
    """Mean event time until a verdict; drawn evenly between half and one and a half of it."""
    coverage: float = 0.9
    """Share of what is unusual (faults, cleaning) that ever gets a verdict: of events or of episodes."""
    normal_coverage: float = 0.1
    """Share of plain normal operation that somebody confirms."""
    wrong: float = 0.0
    """Share of verdicts that name something else than the truth."""
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedLabels:
    """Verdicts as columns, in the order they are given."""

    due_ns: NDArray[np.int64]  # (K,) when it is given
    machine: NDArray[np.int64]  # (K,)
    name: NDArray[np.int64]  # (K,) index into NAMES
    row: NDArray[np.int64]  # (K,) row of the stream it speaks of, -1: an interval
    start_ns: NDArray[np.int64]  # (K,) both ends included
    end_ns: NDArray[np.int64]  # (K,)

    def __len__(self) -> int:
        return len(self.due_ns)


class Annotator:
    """Knows the truth of a plant and says some of it later."""

    def __init__(self, config: AnnotatorConfig, plant: Plant) -> None:
        self.config = config
        self._plant = plant
        # Apart, so that the order in which a chunk's kinds are drawn does not depend on the cut.
        self._random, self._inspections = np.random.default_rng([config.seed, plant.config.seed]).spawn(2)
        self._waiting = np.empty((0, 6), dtype=np.int64)  # columns of Verdicts
        self._over: list[Episode] = []  # seen, not ended; intervals only
        self._seen = 0  # episodes
        self._round_end_ns = plant.config.start_ns + int(_ROUND_S * 1e9)

    def judge(self, chunk: Chunk) -> SimulatedLabels:
        """Look at the next readings; returns the verdicts whose time has come by the end of them."""
        now_ns = int(chunk.times_ns[-1])
        fresh = self._events(chunk) if self.config.form == "events" else self._intervals(now_ns)
        waiting = np.concatenate([self._waiting, fresh])
        waiting = waiting[np.argsort(waiting[:, 0], kind="stable")]
        due = int(np.searchsorted(waiting[:, 0], now_ns, side="right"))
        self._waiting = waiting[due:]
        return SimulatedLabels(*waiting[:due].T)

    def _events(self, chunk: Chunk) -> NDArray[np.int64]:
        luck = self._random.random((len(chunk), 3))  # every event draws, so that cuts change nothing
        codes = np.array([*(_CODE[one.label] for one in self._plant.episodes), 0], dtype=np.int64)[chunk.episode]
        unusual = chunk.episode >= 0
        told = luck[:, 0] < np.where(unusual, self.config.coverage, self.config.normal_coverage)
        times = chunk.times_ns[told]
        return np.stack(
            [
                times + self._delays(luck[told, 1]),
                chunk.machine[told],
                self._said(codes[told], luck[told, 2]),
                chunk.first_row + np.flatnonzero(told),
                times,
                times,
            ],
            axis=1,
        )

    def _intervals(self, now_ns: int) -> NDArray[np.int64]:
        self._over += self._plant.episodes[self._seen :]
        self._seen = len(self._plant.episodes)
        rows = [self._rounds(now_ns)]
        ended = sorted((one for one in self._over if one.end_ns <= now_ns), key=lambda one: (one.end_ns, one.machine))
        self._over = [one for one in self._over if one.end_ns > now_ns]
        for one in ended:
            luck = self._random.random(3)
            if luck[0] < self.config.coverage:
                due = one.end_ns + int(self._delays(luck[1:2])[0])
                said = int(self._said(np.array([_CODE[one.label]]), luck[2:])[0])
                rows.append(np.array([[due, one.machine, said, -1, one.start_ns, one.end_ns]], dtype=np.int64))
        return np.concatenate(rows)

    def _rounds(self, now_ns: int) -> NDArray[np.int64]:
        """Inspections of machines that were healthy for the whole round."""
        rows = [np.empty((0, 6), dtype=np.int64)]
        machines = self._plant.config.machines
        while self._round_end_ns <= now_ns:
            end, start = self._round_end_ns, self._round_end_ns - int(_ROUND_S * 1e9)
            self._round_end_ns = end + int(_ROUND_S * 1e9)
            luck = self._inspections.random((machines, 3))
            busy = {one.machine for one in self._plant.episodes if one.start_ns <= end and one.end_ns >= start}
            told = np.array(
                [m for m in range(machines) if m not in busy and luck[m, 0] < self.config.normal_coverage], int
            )
            said = self._said(np.zeros(len(told), dtype=np.int64), luck[told, 2])
            ends = np.full((len(told), 3), (-1, start, end - 1), dtype=np.int64)
            rows.append(np.column_stack([end + self._delays(luck[told, 1]), told, said, ends]))
        return np.concatenate(rows)

    def _delays(self, luck: NDArray[np.float64]) -> NDArray[np.int64]:
        return ((0.5 + luck) * self.config.delay_s * 1e9).astype(np.int64)

    def _said(self, truth: NDArray[np.int64], luck: NDArray[np.float64]) -> NDArray[np.int64]:
        """The truth, or with the share ``wrong`` one of the other names."""
        if not self.config.wrong:
            return truth
        shift = 1 + (luck / self.config.wrong * (len(NAMES) - 1)).astype(np.int64)  # 1 to len - 1 where luck < wrong
        return np.where(luck < self.config.wrong, (truth + shift) % len(NAMES), truth)
