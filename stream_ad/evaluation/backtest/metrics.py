"""How well scores tell anomalies from the rest: areas, curves, segments. NumPy alone; ties count as they must.

Scores need only an order here; what happens at the threshold is counted in ``at_threshold``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Counts at every distinct score, from the highest down: what a threshold there would flag."""

    scores: NDArray[np.float64]  # (T,) falling
    hits: NDArray[np.int64]  # (T,) anomalies at or above
    alarms: NDArray[np.int64]  # (T,) normal rows at or above
    anomalies: int
    normals: int

    @property
    def has_both(self) -> bool:
        """Whether there is something to tell apart."""
        return self.anomalies > 0 and self.normals > 0

    def roc_auc(self) -> float:
        """Chance that an anomaly scores above a normal row, ties counting half; NaN with one class only."""
        if not self.has_both:
            return float("nan")
        hits = np.concatenate([[0], self.hits]) / self.anomalies
        alarms = np.concatenate([[0], self.alarms]) / self.normals
        return float(np.sum(np.diff(alarms) * (hits[1:] + hits[:-1]) / 2))

    def average_precision(self) -> float:
        """Mean precision over the anomalies, each at its own threshold (no interpolation); NaN with one class only."""
        if not self.has_both:
            return float("nan")
        found = np.diff(self.hits, prepend=0)
        return float(np.sum(found * self.precision()) / self.anomalies)

    def precision(self) -> NDArray[np.float64]:
        """(T,) share of anomalies among what is flagged."""
        return self.hits / (self.hits + self.alarms)

    def thinned(self, points: int) -> Curve:
        """At most about so many points, evenly along both axes and with both ends; for drawing."""
        if len(self.scores) <= points:
            return self
        last = len(self.scores) - 1
        along = [np.searchsorted(n, np.linspace(0, n[-1], points // 2)) for n in (self.hits, self.alarms)]
        index = np.unique(np.clip(np.concatenate([[0, last], *along]), 0, last).astype(np.int64))
        return Curve(self.scores[index], self.hits[index], self.alarms[index], self.anomalies, self.normals)


def curve(scores: NDArray[np.float64], anomalous: NDArray[np.bool_]) -> Curve:
    """Counts at every distinct score.

    Args:
        scores: (N,) higher is more anomalous; no NaN.
        anomalous: (N,) the truth.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.flatnonzero(np.diff(ranked, append=-np.inf))  # of each run of equal scores
    hits = np.cumsum(anomalous[order].astype(np.int64))[last]
    return Curve(ranked[last], hits, last + 1 - hits, int(anomalous.sum()), int((~anomalous).sum()))


def at_threshold(flagged: NDArray[np.bool_], anomalous: NDArray[np.bool_]) -> dict[str, float]:
    """Precision, recall, F1 and false-alarm rate of N flagged rows; NaN where there is nothing to divide by."""
    hits, alarms = int((flagged & anomalous).sum()), int((flagged & ~anomalous).sum())
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
    """Neighbouring rows of one sensor that have the same label. Indices count the rows of the stream."""

    sensor: int
    code: int
    rows: NDArray[np.int64]  # (R,) rising


def segments(sensor: NDArray[np.int64], code: NDArray[np.int64]) -> list[Segment]:
    """Cut a stream into segments, in the order of their last rows.

    Args:
        sensor: (N,) numbers of the sensors.
        code: (N,) numbers of the labels; rows below 0 belong to no segment and end one.
    """
    by_sensor = np.argsort(sensor, kind="stable")
    here, said = sensor[by_sensor], code[by_sensor]
    begins = np.flatnonzero(np.diff(here, prepend=-1).astype(bool) | np.diff(said, prepend=-1).astype(bool))
    ends = np.append(begins, len(here))[1:]
    found = [
        Segment(int(here[begin]), int(said[begin]), by_sensor[begin:end])
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)
        if said[begin] >= 0
    ]
    return sorted(found, key=lambda one: int(one.rows[-1]))


def detection(faults: list[Segment], flagged: NDArray[np.bool_]) -> dict[str, float]:
    """How many faults were noticed while they lasted, and the median of how many rows of theirs passed before."""
    delays = [int(flagged[one.rows].argmax()) for one in faults if flagged[one.rows].any()]
    return {
        "detected": len(delays),
        "total": len(faults),
        "delay_events_median": float(np.median(delays)) if delays else float("nan"),
    }
