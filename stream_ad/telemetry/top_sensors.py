"""The sensors with most incidents lately, for ``/top``: a sensor is never a metric label."""

from __future__ import annotations

import heapq
import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from prometheus_client import Metric

    from stream_ad.records.schemas import Incident

HALF_LIFE_S = 86_400.0
"""An incident counts half as much after this time: the list follows the last days."""
KEPT_SENSORS = 2_000
"""Bounds the memory; far more than the 20 that are shown, so that a rising sensor is not forgotten."""


@dataclass(slots=True)
class _Sensor:
    weight: float  # decayed number of its incidents at the time ``updated``
    updated: float
    latest: Incident  # as last published

    def decayed(self, now: float) -> float:
        """Return the weight at a time, in seconds of the same clock as ``updated``."""
        return self.weight * math.pow(0.5, (now - self.updated) / HALF_LIFE_S)


class TopSensors(Collector):
    """The sensors with most incidents, each counting half as much every ``HALF_LIFE_S``.

    Holds at most ``KEPT_SENSORS`` sensors; beyond that, the half with fewest incidents is forgotten.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sensors: dict[str, _Sensor] = {}
        self._lock = threading.Lock()

    def observe(self, incidents: Sequence[Incident]) -> None:
        """Count the incidents that a step opened, and keep what has become of others."""
        if not incidents:
            return
        now = self._clock()
        with self._lock:
            for incident in incidents:
                sensor = self._sensors.get(incident.sensor_id)
                if sensor is None:
                    sensor = self._sensors[incident.sensor_id] = _Sensor(0.0, now, incident)
                sensor.weight, sensor.updated = sensor.decayed(now) + incident.opens, now
                sensor.latest = incident
            if len(self._sensors) > KEPT_SENSORS:
                self._sensors = dict(self._most(KEPT_SENSORS // 2, now))

    def view(self, count: int) -> list[dict[str, Any]]:
        """Return the ``count`` sensors with most incidents, the most first, ready for JSON."""
        now = self._clock()
        with self._lock:
            return [_shown(sensor, sensor.decayed(now)) for _, sensor in self._most(count, now)]

    def collect(self) -> Iterator[Metric]:
        """Yield the number of recent incidents, of all sensors and of the one with most."""
        now = self._clock()
        with self._lock:
            weights = [sensor.decayed(now) for sensor in self._sensors.values()]
        text = "Incidents opened, each counting half as much every day"
        yield GaugeMetricFamily("stream_ad_recent_incidents", f"{text}.", value=sum(weights))
        yield GaugeMetricFamily(
            "stream_ad_recent_incidents_of_top_sensor",
            f"{text}; of the sensor with most, which /top names.",
            value=max(weights, default=0.0),
        )

    def _most(self, count: int, now: float) -> list[tuple[str, _Sensor]]:
        return heapq.nlargest(count, self._sensors.items(), key=lambda item: item[1].decayed(now))


def _shown(sensor: _Sensor, recent: float) -> dict[str, Any]:
    latest = sensor.latest
    return {
        "sensor_id": latest.sensor_id,
        "recent_incidents": round(recent, 2),
        "last_incident": latest.incident_id,
        "state": latest.state,
        "kind": latest.kind,
        "severity": latest.severity,
        "since": latest.start.isoformat(),
        "peak_alarm": latest.peak_alarm,
        "peak_score": latest.peak_score,
        "peak_event_id": latest.peak_event_id,
        "features": [part.feature for part in latest.contributions],
    }
