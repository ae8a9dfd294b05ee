"""The event log of the demo: which alarms were raised, and how people labelled them later."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_ad.demo.scene import MACHINES, WITH
from stream_ad.evaluation.simulation.annotator import NAMES
from stream_ad.evaluation.simulation.plant import NORMAL

if TYPE_CHECKING:
    from stream_ad.demo.tally import Tally
    from stream_ad.evaluation.simulation.annotator import SimulatedLabels
    from stream_ad.evaluation.simulation.plant import Plant
    from stream_ad.records.columns import Contribution

_KEPT = 40
_QUIET_STEPS = 20
"""Readings of a machine without an alarm, after which the next alarm gets a line of its own."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the log."""

    row: int  # of the stream, when it happened
    machine: int
    style: str  # of rich
    text: str


class Feed:
    """The newest alarms of the worker with labels, and the newest labels."""

    def __init__(self, plant: Plant, tally: Tally) -> None:
        self.lines: deque[Line] = deque(maxlen=_KEPT)
        self.label_counts: dict[str, int] = dict.fromkeys(NAMES, 0)
        self._plant = plant
        self._tally = tally
        self._alarmed: dict[int, int] = {}  # machine: step of its newest alarm
        self._labelled: set[int] = set()  # indices of episodes that have had a label
        self._cleared: dict[int, int] = {}  # machine: step of its newest false alarm that was logged

    def on_alarm(self, row: int, blamed: Contribution | None, score: float) -> None:
        """Log a live reading of the worker with labels that scored 1 or above."""
        step, machine = divmod(row, MACHINES)
        before = self._alarmed.get(machine, -_QUIET_STEPS)
        self._alarmed[machine] = step
        if step - before >= _QUIET_STEPS:
            why = f": {blamed.feature} {blamed.value:.3g}, not {blamed.expected:.3g}" if blamed else ""
            self.lines.append(Line(row, machine, "red", f"▲ alarm {score:.1f}{why}"))

    def on_labels(self, labels: SimulatedLabels, now: int) -> None:
        """Log labels that were given when row ``now`` was written."""
        for machine, name, row in zip(*(c.tolist() for c in (labels.machine, labels.name, labels.row)), strict=True):
            self.label_counts[NAMES[name]] += 1
            if row < self._tally.scored[WITH]:
                self._report(machine, NAMES[name], row, now)

    def _report(self, machine: int, name: str, row: int, now: int) -> None:
        episode = int(self._tally.episode[row])
        if episode >= 0 and episode not in self._labelled:
            self._labelled.add(episode)
            kind = self._plant.episodes[episode].kind
            self.lines.append(Line(now, machine, "cyan", f"● label: {name}" + (f", it was {kind}" * (name != kind))))
        elif episode < 0 and name == NORMAL and self._tally.score[WITH, row] >= 1 and self._tally.live[WITH, row]:
            step = row // MACHINES
            if step - self._cleared.get(machine, -_QUIET_STEPS) >= _QUIET_STEPS:
                self.lines.append(Line(now, machine, "cyan", "● label: normal, a false alarm"))
            self._cleared[machine] = step
