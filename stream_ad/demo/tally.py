"""Truth, scores and alarms of the demo, row by row, and the figures that follow from them.

Both workers are evaluated on the same readings: those that both have scored, live, and not while a machine
recovers from an episode. Incidents are counted as they are promised (``incident_figures``); harmless cleaning is
normal, so an incident that covers nothing else is false.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stream_ad.demo.scene import MACHINES, PROMISED_PER_READING, QUIET_READINGS, RECOVERY_STEPS, SIDES
from stream_ad.evaluation.backtest.incident_figures import IncidentFigures, count, faults_of
from stream_ad.evaluation.backtest.metrics import curve, detection
from stream_ad.evaluation.simulation.plant import CLEANING, FAULTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stream_ad.evaluation.simulation.plant import Chunk, Episode

CODES = {kind: code for code, kind in enumerate(FAULTS, start=1)}
"""Code of each fault among the figures by class; 0 is normal."""


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """Figures of a worker on the episodes of a class."""

    episodes: int
    detected: int  # episodes with an alarm while they lasted
    delay_steps: float  # median readings of the machine until the first alarm; NaN if none was detected


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of a worker."""

    evaluated: int  # readings
    average_precision: float  # of the scores
    incidents: int
    false: int  # incidents that cover no reading of a fault
    promised: float  # false incidents that the budget allows
    share_in_alarm: float  # of the readings
    classes: dict[str, ClassFigures]  # faults, and cleaning

    @property
    def detected(self) -> int:
        """Faults with an alarm while they lasted."""
        return sum(self.classes[kind].detected for kind in FAULTS)

    @property
    def faults(self) -> int:
        """Faults in all."""
        return sum(self.classes[kind].episodes for kind in FAULTS)


class Tally:
    """Columns over the rows of the stream, for at most ``capacity`` rows.

    Args:
        capacity: Most rows.
        episodes: Episodes of the plant, a list that grows.
    """

    def __init__(self, capacity: int, episodes: Sequence[Episode]) -> None:
        self.rows = 0  # rows whose truth is known
        self.scored = [0, 0]  # rows, by side; scores come in the order of rows
        self._episodes = episodes
        self.episode = np.full(capacity, -1, np.int64)  # (N,) index into episodes
        self.recovering = np.zeros(capacity, np.bool_)  # (N,)
        self.score = np.full((len(SIDES), capacity), np.nan)  # (2, N)
        self.alarm = np.zeros((len(SIDES), capacity), np.bool_)  # (2, N)
        self.live = np.zeros((len(SIDES), capacity), np.bool_)  # (2, N)
        self._quiet = np.full(MACHINES, RECOVERY_STEPS)  # steps since each machine's last episode

    def add_truth(self, chunk: Chunk) -> None:
        """Add the truth about the next rows."""
        rows = slice(self.rows, self.rows + len(chunk))
        self.episode[rows] = chunk.episode
        inside = chunk.episode.reshape(-1, MACHINES) >= 0
        for step, busy in enumerate(inside):
            self._quiet = np.where(busy, 0, self._quiet + 1)
            row = rows.start + step * MACHINES
            self.recovering[row : row + MACHINES] = ~busy & (self._quiet < RECOVERY_STEPS)
        self.rows = rows.stop

    def add_scores(self, side: int, scores: Sequence[float], alarms: Sequence[bool], live: Sequence[bool]) -> None:
        """Add the next scores of a worker, whether they alarm, and whether they are live, in the order of the rows."""
        rows = slice(self.scored[side], self.scored[side] + len(scores))
        self.score[side, rows], self.alarm[side, rows], self.live[side, rows] = scores, alarms, live
        self.scored[side] = rows.stop

    @property
    def both(self) -> int:
        """Number of rows that both workers have scored."""
        return min(self.scored)

    def kinds(self) -> NDArray[np.str_]:
        """Return the kind of episode of each row that both have scored, (N,); empty outside of episodes."""
        names = np.array([*(episode.kind for episode in self._episodes), ""])
        return names[self.episode[: self.both]]

    def figures(self, *, since: int = 0) -> tuple[Figures, Figures]:
        """Return the figures with labels and without.

        Args:
            since: First row to evaluate.
        """
        kinds = self.kinds()
        counts = self.live[:, : self.both].all(axis=0) & ~self.recovering[: self.both]
        counts[:since] = False
        with_, without = (self._figures(side, counts, kinds) for side in range(len(SIDES)))
        return with_, without

    def _figures(self, side: int, counts: NDArray[np.bool_], kinds: NDArray[np.str_]) -> Figures:
        sensor = np.arange(len(kinds)) % MACHINES
        code = np.zeros(len(kinds), np.int64)
        for kind, number in CODES.items():
            code[kinds == kind] = number
        code[~counts] = -1
        score, alarm = self.score[side, : self.both], self.alarm[side, : self.both]
        figures = count(sensor, code, alarm, budget=PROMISED_PER_READING, quiet_events=QUIET_READINGS)
        cleaning = np.where(counts, kinds == CLEANING, -1)
        return Figures(
            evaluated=int(counts.sum()),
            average_precision=curve(score[counts], code[counts] > 0).average_precision(),
            incidents=figures.incidents,
            false=figures.false,
            promised=figures.promised,
            share_in_alarm=figures.share_in_alarm,
            classes={
                **{kind: _class(figures, code) for kind, code in CODES.items()},
                CLEANING: _episodes(detection(faults_of(sensor, cleaning), alarm)),
            },
        )


def _class(figures: IncidentFigures, code: int) -> ClassFigures:
    of_class = figures.by_class.get(code)
    if of_class is None:
        return ClassFigures(0, 0, float("nan"))
    return ClassFigures(of_class.faults, of_class.detected, of_class.delay_events_median)


def _episodes(counted: dict[str, float]) -> ClassFigures:
    return ClassFigures(int(counted["total"]), int(counted["detected"]), counted["delay_events_median"])
