"""Incidents as they are promised and counted: how many were false, and which faults they found. In NumPy alone.

An incident is a run of alarming rows of one sensor, joined over gaps of fewer than ``quiet_events`` rows. It covers the
rows of its sensor from its first alarming row to its last. It is false if none of them is an anomaly that counts, and
does not count itself if it covers no row that counts: rows of the warm-up and rows that nobody judged are left out.
A fault is a segment of anomalous rows of one class, and found if one of its rows alarms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stream_ad.evaluation.backtest.metrics import detection, segments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.evaluation.backtest.metrics import Segment


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """I incidents, in the order in which they open."""

    first: NDArray[np.int64]  # (I,) rising; the first alarming row of each
    last: NDArray[np.int64]  # (I,) the last alarming row of each

    def __len__(self) -> int:
        return len(self.first)

    def chosen(self, which: NDArray[np.bool_]) -> Spans:
        """Return some of the incidents; ``which`` is (I,)."""
        return Spans(self.first[which], self.last[which])


@dataclass(frozen=True, slots=True)
class FaultFigures:
    """Faults, those that were found, and how soon."""

    faults: int
    detected: int
    delay_events_median: float
    """From the first row of a fault to its first alarming row, in rows of the sensor; NaN where none was found."""


@dataclass(frozen=True, slots=True)
class IncidentFigures:
    """What the incidents at one budget come to."""

    incidents: int
    false: int
    promised: float
    """False incidents that the budget allows."""
    rows: int
    """Rows that count."""
    rows_in_alarm: int
    """Rows that count and are covered by an incident."""
    faults: FaultFigures
    by_class: dict[int, FaultFigures]
    """By code of the class; classes without a fault are left out."""

    @property
    def share_in_alarm(self) -> float:
        """Return the share of the rows that an incident covers; NaN without rows."""
        return self.rows_in_alarm / self.rows if self.rows else float("nan")


def spans(sensor: NDArray[np.int64], alarming: NDArray[np.bool_], quiet_events: int) -> Spans:
    """Join the alarming rows of each sensor into incidents.

    Args:
        sensor: (N,) index of each row's sensor.
        alarming: (N,) rows at which the sensor alarms.
        quiet_events: Rows of the sensor without an alarm that end an incident; at least 1.
    """
    by_sensor = np.argsort(sensor, kind="stable")
    place = np.flatnonzero(alarming[by_sensor])  # (A,) places of alarming rows, sensor after sensor
    rows = by_sensor[place]
    opens = np.ones(len(rows), np.bool_)
    opens[1:] = np.diff(sensor[rows]).astype(np.bool_) | (np.diff(place) > quiet_events)
    first, last = rows[opens], rows[np.append(opens[1:], True)[: len(rows)]]
    in_order = np.argsort(first)
    return Spans(first[in_order], last[in_order])


def faults_of(sensor: NDArray[np.int64], code: NDArray[np.int64]) -> list[Segment]:
    """Return the faults among the rows that count.

    Args:
        sensor: (N,) index of each row's sensor.
        code: (N,) index of each row's label, 0 for normal; below 0 where the row does not count.
    """
    return [segment for segment in segments(sensor, code) if segment.code > 0]


def count(
    sensor: NDArray[np.int64],
    code: NDArray[np.int64],
    alarming: NDArray[np.bool_],
    *,
    budget: float,
    quiet_events: int,
    faults: list[Segment] | None = None,
) -> IncidentFigures:
    """Count the incidents at one budget, and the faults that they found.

    Args:
        sensor: (N,) index of each row's sensor.
        code: (N,) index of each row's label, 0 for normal; below 0 where the row does not count.
        alarming: (N,) rows at which the sensor alarms.
        budget: Tolerated false incidents for each normal event of a sensor.
        quiet_events: Rows of the sensor without an alarm that end an incident; at least 1.
        faults: What ``faults_of`` returns, for callers that count at several budgets.
    """
    if faults is None:
        faults = faults_of(sensor, code)
    judged, anomalous = covered(sensor, code, spans(sensor, alarming, quiet_events))
    classes = sorted({fault.code for fault in faults})
    return IncidentFigures(
        incidents=int((judged > 0).sum()),
        false=int(((judged > 0) & (anomalous == 0)).sum()),
        promised=budget * int((code == 0).sum()),
        rows=int((code >= 0).sum()),
        rows_in_alarm=int(judged.sum()),
        faults=_fault_figures(faults, alarming),
        by_class={
            name: _fault_figures([fault for fault in faults if fault.code == name], alarming) for name in classes
        },
    )


def covered(
    sensor: NDArray[np.int64], code: NDArray[np.int64], incidents: Spans
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how many rows that count, and how many anomalous ones, each incident covers, (I,) both.

    Args:
        sensor: (N,) index of each row's sensor.
        code: (N,) index of each row's label, 0 for normal; below 0 where the row does not count.
        incidents: What ``spans`` returned for these rows.
    """
    by_sensor = np.argsort(sensor, kind="stable")
    place = np.empty(len(sensor), np.int64)  # of each row, sensor after sensor
    place[by_sensor] = np.arange(len(sensor))
    begin, end = place[incidents.first], place[incidents.last] + 1
    return _within(code[by_sensor] >= 0, begin, end), _within(code[by_sensor] > 0, begin, end)


def _within(flags: NDArray[np.bool_], begin: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many flags (N,) are set in each stretch from ``begin`` (I,) to ``end`` (I,), not included."""
    before = np.concatenate([[0], np.cumsum(flags, dtype=np.int64)])
    return before[end] - before[begin]


def _fault_figures(faults: list[Segment], alarming: NDArray[np.bool_]) -> FaultFigures:
    figures = detection(faults, alarming)
    return FaultFigures(int(figures["total"]), int(figures["detected"]), figures["delay_events_median"])
