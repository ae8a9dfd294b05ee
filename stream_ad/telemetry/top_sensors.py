"""The sensors that have alarmed most lately, for ``/top``: a sensor is never a metric label."""

from __future__ import annotations

import heapq
import math
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ad.records.columns import Events, Scores

HALF_LIFE_S = 300.0
"""An anomaly counts half as much after this time: the list follows what happens now."""
KEPT_SENSORS = 2_000
"""Bounds the memory; far more than the 20 that are shown, so that a rising sensor is not forgotten."""


@dataclass(slots=True)
class _Alarms:
    weight: float  # decayed number of anomalies at the time ``updated``
    updated: float
    peak_score: float
    peak_event_id: str
    last_time_ns: int
    features: tuple[str, ...]

    def decayed(self, now: float) -> float:
        """Return the weight at a time, in seconds of the same clock as ``updated``."""
        return self.weight * math.pow(0.5, (now - self.updated) / HALF_LIFE_S)


class TopSensors:
    """The sensors with most anomalies, each counting half as much every ``HALF_LIFE_S``.

    Holds at most ``KEPT_SENSORS`` sensors; beyond that, the half that alarmed least is forgotten.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sensors: dict[str, _Alarms] = {}
        self._lock = threading.Lock()

    def observe(self, events: Events, scores: Scores) -> None:
        """Count the anomalies of a step."""
        rows = np.flatnonzero((scores.alarm >= 1) & scores.live).tolist()
        if not rows:
            return
        now = self._clock()
        with self._lock:
            for row in rows:
                self._add(events, scores, row, now)
            if len(self._sensors) > KEPT_SENSORS:
                best = heapq.nlargest(KEPT_SENSORS // 2, self._sensors.items(), key=lambda item: item[1].decayed(now))
                self._sensors = dict(best)

    def _add(self, events: Events, scores: Scores, row: int, now: float) -> None:
        sensor, score = events.sensor_ids[row], float(scores.score[row])
        features = tuple(part.feature for part in scores.contributions.get(row, ()))
        alarms = self._sensors.get(sensor)
        if alarms is None:
            alarms = self._sensors[sensor] = _Alarms(0.0, now, 0.0, "", 0, ())
        alarms.weight, alarms.updated = alarms.decayed(now) + 1.0, now
        alarms.last_time_ns = max(alarms.last_time_ns, int(events.times_ns[row]))
        if score > alarms.peak_score:
            alarms.peak_score, alarms.peak_event_id, alarms.features = score, events.event_ids[row], features

    def view(self, count: int) -> list[dict[str, Any]]:
        """Return the ``count`` sensors with most anomalies, the most first, ready for JSON."""
        now = self._clock()
        with self._lock:
            best = heapq.nlargest(count, self._sensors.items(), key=lambda item: item[1].decayed(now))
            return [
                {
                    "sensor_id": sensor,
                    "recent_anomalies": round(alarms.decayed(now), 2),
                    "peak_score": alarms.peak_score,
                    "peak_event_id": alarms.peak_event_id,
                    "features": list(alarms.features),
                    "last_anomaly": datetime.fromtimestamp(alarms.last_time_ns / 1e9, UTC).isoformat(),
                }
                for sensor, alarms in best
            ]
