"""Quality of scores: ROC-AUC, average precision, curves, segments. In NumPy alone; ties count half.

Areas and curves are of the order of scores alone; ``by_row`` and ``detection`` count what the alarm makes of rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Counts at every distinct score, from the highest down: the rows that a threshold there would flag."""

    scores: NDArray[np.float64]  # (T,) falling
    hits: NDArray[np.int64]  # (T,) anomalies at or above
    alarms: NDArray[np.int64]  # (T,) normal rows at or above
    anomalies: int
    normals: int

    @property
    def has_both(self) -> bool:
        """Whether there are both anomalies and normal rows."""
        return self.anomalies > 0 and self.normals > 0

    def roc_auc(self) -> float:
        """Return the chance that an anomaly scores above a normal row, ties counting half; NaN with one class only."""
        if not self.has_both:
            return float("nan")
        hits = np.concatenate([[0], self.hits]) / self.anomalies
        alarms = np.concatenate([[0], self.alarms]) / self.normals
        return float(np.sum(np.diff(alarms) * (hits[1:] + hits[:-1]) / 2))

    def average_precision(self) -> float:
        """Return the mean precision over the anomalies, each at its own threshold, without interpolation.

        NaN with one class only.
        """
        if not self.has_both:
            return float("nan")
        new_hits = np.diff(self.hits, prepend=0)
        return float(np.sum(new_hits * self.precision()) / self.anomalies)

    def precision(self) -> NDArray[np.float64]:
        """Return the (T,) share of anomalies among the flagged rows."""
        return self.hits / (self.hits + self.alarms)

    def thinned(self, points: int) -> Curve:
        """Return at most about ``points`` points for drawing, evenly along both axes and with both ends."""
        if len(self.scores) <= points:
            return self
        last = len(self.scores) - 1
        along = [np.searchsorted(n, np.linspace(0, n[-1], points // 2)) for n in (self.hits, self.alarms)]
        index = np.unique(np.clip(np.concatenate([[0, last], *along]), 0, last).astype(np.int64))
        return Curve(self.scores[index], self.hits[index], self.alarms[index], self.anomalies, self.normals)


def curve(scores: NDArray[np.float64], anomalous: NDArray[np.bool_]) -> Curve:
    """Count hits and alarms at every distinct score.

    Args:
        scores: (N,) scores, higher is more anomalous; no NaN.
        anomalous: (N,) the truth.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.flatnonzero(np.diff(ranked, append=-np.inf))  # of each run of equal scores
    hits = np.cumsum(anomalous[order].astype(np.int64))[last]
    return Curve(ranked[last], hits, last + 1 - hits, int(anomalous.sum()), int((~anomalous).sum()))


def by_row(alarming: NDArray[np.bool_], anomalous: NDArray[np.bool_]) -> dict[str, float]:
    """Return precision, recall, F1 and false-alarm rate; NaN where the divisor is 0.

    Args:
        alarming: (N,) rows that alarm.
        anomalous: (N,) the truth.
    """
    hits, alarms = int((alarming & anomalous).sum()), int((alarming & ~anomalous).sum())
    anomalies, normals = int(anomalous.sum()), int((~anomalous).sum())
    return {
        "precision": _ratio(hits, hits + alarms),
        "recall": _ratio(hits, anomalies),
        "f1": _ratio(2 * hits, hits + alarms + anomalies) if anomalies else float("nan"),
        "false_alarm_rate": _ratio(alarms, normals),
    }


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive rows of one sensor that have the same label."""

    sensor: int
    code: int
    rows: NDArray[np.int64]  # (R,) rising; indices into the rows of the stream


def segments(sensor: NDArray[np.int64], code: NDArray[np.int64]) -> list[Segment]:
    """Cut a stream into segments, in the order of their last rows.

    Args:
        sensor: (N,) index of each row's sensor.
        code: (N,) index of each row's label; a row below 0 belongs to no segment and ends the one before it.
    """
    by_sensor = np.argsort(sensor, kind="stable")
    sensors, codes = sensor[by_sensor], code[by_sensor]
    begins = np.flatnonzero(np.diff(sensors, prepend=-1).astype(bool) | np.diff(codes, prepend=-1).astype(bool))
    ends = np.append(begins, len(sensors))[1:]
    stretches = [
        Segment(int(sensors[begin]), int(codes[begin]), by_sensor[begin:end])
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)
        if codes[begin] >= 0
    ]
    return sorted(stretches, key=lambda segment: int(segment.rows[-1]))


def detection(faults: list[Segment], alarming: NDArray[np.bool_]) -> dict[str, float]:
    """Count the faults that were found while they lasted, with the median delay in rows of the sensor.

    Args:
        faults: Segments of anomalies.
        alarming: (N,) rows that alarm.
    """
    delays = [int(alarming[fault.rows].argmax()) for fault in faults if alarming[fault.rows].any()]
    return {
        "detected": len(delays),
        "total": len(faults),
        "delay_events_median": float(np.median(delays)) if delays else float("nan"),
    }
