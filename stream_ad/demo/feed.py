"""The event log of the demo: which incidents were opened and closed, and how people labelled readings later."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_ad.demo.scene import MACHINES, WITH
from stream_ad.evaluation.simulation.annotator import NAMES
from stream_ad.evaluation.simulation.plant import NORMAL

if TYPE_CHECKING:
    from datetime import datetime

    from stream_ad.demo.tally import Tally
    from stream_ad.evaluation.simulation.annotator import SimulatedLabels
    from stream_ad.evaluation.simulation.plant import Plant
    from stream_ad.records.schemas import Incident

_KEPT = 40
_QUIET_STEPS = 20
"""Readings of a machine between two labels on false alarms that each get a line."""
_CLOSED = {
    "over": "over",
    "accepted": "accepted as the new normal",
    "judged": "a label said normal",
    "sensor_gone": "its sensor is gone",
}
"""Why an incident closes, in words."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the log."""

    row: int  # of the stream, when it happened
    machine: int
    style: str  # of rich
    text: str


class Feed:
    """The newest incidents of the worker with labels, and the newest labels."""

    def __init__(self, plant: Plant, tally: Tally) -> None:
        self.lines: deque[Line] = deque(maxlen=_KEPT)
        self.label_counts: dict[str, int] = dict.fromkeys(NAMES, 0)
        self._plant = plant
        self._tally = tally
        self._machine = {sensor_id: machine for machine, sensor_id in enumerate(plant.sensor_ids)}
        self._labelled: set[int] = set()  # indices of episodes that have had a label
        self._cleared: dict[int, int] = {}  # machine: step of its newest false alarm that was logged

    def on_incident(self, incident: Incident) -> None:
        """Log that an incident of the worker with labels has opened, got worse, or closed."""
        if incident.opens:
            text, style = f"▲ {incident.kind} incident, {incident.severity}", "red"
            if incident.contributions:
                top = incident.contributions[0]
                text += f": {top.feature} {top.value:.3g}, not {top.expected:.3g}"
        elif incident.state == "open":
            text, style = f"▲ incident is {incident.severity} now, alarm {incident.peak_alarm:.1f}", "red"
        else:
            assert incident.reason is not None
            text, style = f"▼ incident closed after {incident.events} readings: {_CLOSED[incident.reason]}", "green"
        at = incident.start if incident.opens else incident.end
        self.lines.append(Line(self._row(at, incident.sensor_id), self._machine[incident.sensor_id], style, text))

    def _row(self, time: datetime, sensor_id: str) -> int:
        """Return the row of a reading of a machine."""
        config = self._plant.config
        step = round((time.timestamp() - config.start_ns / 1e9) / config.interval_s)
        return step * MACHINES + self._machine[sensor_id]

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
        elif episode < 0 and name == NORMAL and self._tally.alarm[WITH, row]:
            step = row // MACHINES
            if step - self._cleared.get(machine, -_QUIET_STEPS) >= _QUIET_STEPS:
                self.lines.append(Line(now, machine, "cyan", "● label: normal, a false alarm"))
            self._cleared[machine] = step
