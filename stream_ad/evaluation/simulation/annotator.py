"""Labels on a simulated plant: after a delay, incomplete and sometimes wrong, as people give them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from stream_ad.evaluation.simulation.plant import FAULTS, NORMAL

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.evaluation.simulation.plant import Chunk, Episode, Plant

NAMES = (NORMAL, *FAULTS)
"""Names of labels; simulated labels are indices into this."""
_CODE = {name: code for code, name in enumerate(NAMES)}
_ROUND_S = 3600.0
"""Seconds that one inspection of a healthy machine covers (form "intervals"): a round each hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatorConfig:
    """Habits of the people who label; equal configurations over equal plants give equal labels."""

    form: Literal["events", "intervals"] = "events"
    """Whether labels are on single events, or on whole episodes once they are over."""
    delay_s: float = 1800.0
    """Mean event time until a label; drawn evenly between half and one and a half of it."""
    coverage: float = 0.9
    """Share of unusual events or episodes (faults, cleaning) that ever get a label."""
    normal_coverage: float = 0.1
    """Share of plain normal operation that is confirmed."""
    wrong: float = 0.0
    """Share of labels that name something other than the truth."""
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedLabels:
    """Labels as columns, in the order in which they are given."""

    due_ns: NDArray[np.int64]  # (K,) when the label is given
    machine: NDArray[np.int64]  # (K,)
    name: NDArray[np.int64]  # (K,) index into NAMES
    row: NDArray[np.int64]  # (K,) row of the stream that it is on, -1: an interval
    start_ns: NDArray[np.int64]  # (K,) both ends included
    end_ns: NDArray[np.int64]  # (K,)

    def __len__(self) -> int:
        return len(self.due_ns)


class Annotator:
    """Knows the truth of a plant and gives a part of it as labels, later."""

    def __init__(self, config: AnnotatorConfig, plant: Plant) -> None:
        self.config = config
        self._plant = plant
        # Two streams of random numbers, so that the order of draws does not depend on how the plant is cut into chunks.
        self._random, self._inspections = np.random.default_rng([config.seed, plant.config.seed]).spawn(2)
        self._waiting = np.empty((0, 6), dtype=np.int64)  # (W, 6) columns of SimulatedLabels, not yet due
        self._unfinished: list[Episode] = []  # episodes seen that have not ended; form "intervals" only
        self._seen = 0  # number of episodes seen
        self._round_end_ns = plant.config.start_ns + int(_ROUND_S * 1e9)

    def annotate(self, chunk: Chunk) -> SimulatedLabels:
        """Take in the next readings; return the labels that are due by the end of them."""
        now_ns = int(chunk.times_ns[-1])
        fresh = self._events(chunk) if self.config.form == "events" else self._intervals(now_ns)
        waiting = np.concatenate([self._waiting, fresh])
        waiting = waiting[np.argsort(waiting[:, 0], kind="stable")]
        due = int(np.searchsorted(waiting[:, 0], now_ns, side="right"))
        self._waiting = waiting[due:]
        return SimulatedLabels(*waiting[:due].T)

    def _events(self, chunk: Chunk) -> NDArray[np.int64]:
        draws = self._random.random((len(chunk), 3))  # every event draws, so that cuts change nothing
        codes = np.array([*(_CODE[episode.label] for episode in self._plant.episodes), 0], dtype=np.int64)[
            chunk.episode
        ]
        unusual = chunk.episode >= 0
        labelled = draws[:, 0] < np.where(unusual, self.config.coverage, self.config.normal_coverage)
        times = chunk.times_ns[labelled]
        return np.stack(
            [
                times + self._delays(draws[labelled, 1]),
                chunk.machine[labelled],
                self._named(codes[labelled], draws[labelled, 2]),
                chunk.first_row + np.flatnonzero(labelled),
                times,
                times,
            ],
            axis=1,
        )

    def _intervals(self, now_ns: int) -> NDArray[np.int64]:
        self._unfinished += self._plant.episodes[self._seen :]
        self._seen = len(self._plant.episodes)
        rows = [self._inspected(now_ns)]
        ended = sorted(
            (episode for episode in self._unfinished if episode.end_ns <= now_ns),
            key=lambda episode: (episode.end_ns, episode.machine),
        )
        self._unfinished = [episode for episode in self._unfinished if episode.end_ns > now_ns]
        for episode in ended:
            draws = self._random.random(3)
            if draws[0] < self.config.coverage:
                due = episode.end_ns + int(self._delays(draws[1:2])[0])
                name = int(self._named(np.array([_CODE[episode.label]]), draws[2:])[0])
                rows.append(
                    np.array([[due, episode.machine, name, -1, episode.start_ns, episode.end_ns]], dtype=np.int64)
                )
        return np.concatenate(rows)

    def _inspected(self, now_ns: int) -> NDArray[np.int64]:
        """Return labels (K, 6) of machines that were healthy for a whole round, drawn by ``normal_coverage``."""
        rows = [np.empty((0, 6), dtype=np.int64)]
        machines = self._plant.config.machines
        while self._round_end_ns <= now_ns:
            end, start = self._round_end_ns, self._round_end_ns - int(_ROUND_S * 1e9)
            self._round_end_ns = end + int(_ROUND_S * 1e9)
            draws = self._inspections.random((machines, 3))
            busy = {
                episode.machine
                for episode in self._plant.episodes
                if episode.start_ns <= end and episode.end_ns >= start
            }
            inspected = np.array(
                [m for m in range(machines) if m not in busy and draws[m, 0] < self.config.normal_coverage], int
            )
            names = self._named(np.zeros(len(inspected), dtype=np.int64), draws[inspected, 2])
            ends = np.full((len(inspected), 3), (-1, start, end - 1), dtype=np.int64)
            rows.append(np.column_stack([end + self._delays(draws[inspected, 1]), inspected, names, ends]))
        return np.concatenate(rows)

    def _delays(self, draws: NDArray[np.float64]) -> NDArray[np.int64]:
        return ((0.5 + draws) * self.config.delay_s * 1e9).astype(np.int64)

    def _named(self, truth: NDArray[np.int64], draws: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the truth (K,), or with the share ``wrong`` another name."""
        if not self.config.wrong:
            return truth
        shift = 1 + (draws / self.config.wrong * (len(NAMES) - 1)).astype(np.int64)  # 1 to len - 1 where luck < wrong
        return np.where(draws < self.config.wrong, (truth + shift) % len(NAMES), truth)
