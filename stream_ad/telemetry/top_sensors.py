"""Which sensors alarm most, lately: for ``/top``, because a sensor is never a metric label."""

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
KEPT_SENSORS = 2_000


@dataclass(slots=True)
class _Alarms:
    weight: float  # decayed number of anomalies, as of ``updated``
    updated: float
    peak_score: float
    peak_event_id: str
    last_time_ns: int
    features: tuple[str, ...]

    def now(self, clock: float) -> float:
        return self.weight * math.pow(0.5, (clock - self.updated) / HALF_LIFE_S)


class TopSensors:
    """The sensors with most anomalies, each anomaly counting half as much every five minutes.

    Holds at most ``KEPT_SENSORS`` sensors; beyond it, the half that alarmed least is forgotten.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sensors: dict[str, _Alarms] = {}
        self._lock = threading.Lock()

    def observe(self, events: Events, scores: Scores) -> None:
        """Count the anomalies of a step."""
        rows = np.flatnonzero(scores.score >= 1.0).tolist()
        if not rows:
            return
        now = self._clock()
        with self._lock:
            for row in rows:
                self._add(events, scores, row, now)
            if len(self._sensors) > KEPT_SENSORS:
                best = heapq.nlargest(KEPT_SENSORS // 2, self._sensors.items(), key=lambda item: item[1].now(now))
                self._sensors = dict(best)

    def _add(self, events: Events, scores: Scores, row: int, now: float) -> None:
        sensor, score = events.sensor_ids[row], float(scores.score[row])
        features = tuple(part.feature for part in scores.contributions.get(row, ()))
        known = self._sensors.get(sensor)
        if known is None:
            known = self._sensors[sensor] = _Alarms(0.0, now, 0.0, "", 0, ())
        known.weight, known.updated = known.now(now) + 1.0, now
        known.last_time_ns = max(known.last_time_ns, int(events.times_ns[row]))
        if score > known.peak_score:
            known.peak_score, known.peak_event_id, known.features = score, events.event_ids[row], features

    def view(self, count: int) -> list[dict[str, Any]]:
        """The first ``count`` sensors, most anomalies first, ready for JSON."""
        now = self._clock()
        with self._lock:
            best = heapq.nlargest(count, self._sensors.items(), key=lambda item: item[1].now(now))
            return [
                {
                    "sensor_id": sensor,
                    "recent_anomalies": round(alarms.now(now), 2),
                    "peak_score": alarms.peak_score,
                    "peak_event_id": alarms.peak_event_id,
                    "features": list(alarms.features),
                    "last_anomaly": datetime.fromtimestamp(alarms.last_time_ns / 1e9, UTC).isoformat(),
                }
                for sensor, alarms in best
            ]
