"""Truth and scores of the demo, row by row, and the figures that follow from them.

Both workers are evaluated on the same readings: those that both have scored, live, and not while a machine
recovers from an episode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stream_ad.demo.scene import MACHINES, RECOVERY_STEPS, SIDES
from stream_ad.evaluation.backtest.metrics import curve
from stream_ad.evaluation.simulation.plant import CLEANING, FAULTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stream_ad.evaluation.simulation.plant import Chunk, Episode


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """Figures of a worker on the episodes of a class."""

    episodes: int
    detected: int  # episodes with an alarm while they lasted
    delay_steps: float  # median readings of the machine until the first alarm; NaN if none was detected
    alarmed: float  # share of its readings that raised an alarm


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of a worker."""

    evaluated: int  # readings
    average_precision: float
    recall: float  # share of faulty readings that raised an alarm
    false_per_1000: float  # alarms among a thousand readings without a fault, cleaning included
    classes: dict[str, ClassFigures]

    @property
    def detected(self) -> int:
        """Faults with an alarm while they lasted."""
        return sum(self.classes[kind].detected for kind in FAULTS)

    @property
    def episodes(self) -> int:
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

    def add_scores(self, side: int, scores: Sequence[float], live: Sequence[bool]) -> None:
        """Add the next scores of a worker, in the order of the rows."""
        rows = slice(self.scored[side], self.scored[side] + len(scores))
        self.score[side, rows] = scores
        self.live[side, rows] = live
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
        rows = np.flatnonzero(self.live[:, : self.both].all(axis=0) & ~self.recovering[: self.both])
        rows = rows[rows >= since]
        with_, without = (self._figures(self.score[side], rows, kinds) for side in range(len(SIDES)))
        return with_, without

    def _figures(self, score: NDArray[np.float64], rows: NDArray[np.int64], kinds: NDArray[np.str_]) -> Figures:
        faulty = np.isin(kinds[rows], list(FAULTS))
        alarm = score[rows] >= 1
        return Figures(
            evaluated=len(rows),
            average_precision=curve(score[rows], faulty).average_precision(),
            recall=_mean(alarm[faulty]),
            false_per_1000=1000 * _mean(alarm[~faulty]),
            classes={kind: self._class(alarm, rows, kinds[rows] == kind) for kind in (*FAULTS, CLEANING)},
        )

    def _class(self, alarm: NDArray[np.bool_], rows: NDArray[np.int64], members: NDArray[np.bool_]) -> ClassFigures:
        episode = self.episode[rows[members]]
        delays = []
        for index in np.unique(episode):
            raised = np.flatnonzero(alarm[members][episode == index])
            delays += [int(raised[0])] if len(raised) else []
        return ClassFigures(
            episodes=len(np.unique(episode)),
            detected=len(delays),
            delay_steps=float(np.median(delays)) if delays else float("nan"),
            alarmed=_mean(alarm[members]),
        )


def _mean(flags: NDArray[np.bool_]) -> float:
    return float(flags.mean()) if len(flags) else float("nan")
