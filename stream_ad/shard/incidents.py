"""Incidents: runs of anomalies of one sensor, opened by the first and closed after enough events without one."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stream_ad.records.schemas import MAX_NAME, ContributionOut, Incident

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from stream_ad.records.columns import Contribution, Events, Scores

_DIGEST_CHARACTERS = 32  # 128 bits: ids do not collide


@dataclass(slots=True)
class _OpenIncident:
    """An incident that is open; fields are kept in snapshots under these names."""

    first_event: str
    start_ns: int
    end_ns: int
    events: int
    peak: float
    peak_event: str
    features: tuple[str, ...]  # of the peak
    quiet: int  # events since the last anomaly


class Incidents:
    """The open incidents of a shard, by sensor. Anomalies during warm-up open none.

    Args:
        quiet_events: Events of a sensor without an anomaly that close its incident.
    """

    def __init__(self, quiet_events: int) -> None:
        self.quiet_events = quiet_events
        self.open: dict[str, _OpenIncident] = {}

    def step(
        self, events: Events, scores: Scores, numbers: tuple[NDArray[np.int64], Mapping[str, int]]
    ) -> list[Incident]:
        """Process the next events, and return the incidents that they opened or closed, in the order of the events.

        Args:
            events: The next N events.
            scores: Their scores.
            numbers: (N,) a number for the sensor of each event, and the number by sensor.
        """
        out: list[Incident] = []
        relevant = self._relevant(scores, *numbers)
        columns = relevant.tolist(), scores.score[relevant].tolist(), scores.live[relevant].tolist()
        for i, score, live in zip(*columns, strict=True):
            sensor_id = events.sensor_ids[i]
            incident = self.open.get(sensor_id)
            if score >= 1 and live:
                features = tuple(contribution.feature for contribution in scores.contributions.get(i, ()))
                time, event = int(events.times_ns[i]), events.event_ids[i]
                if incident is None:
                    incident = _OpenIncident(event, time, time, 1, score, event, features, 0)
                    self.open[sensor_id] = incident
                    out.append(_wire(sensor_id, incident, scores.contributions.get(i, ()), closed=False))
                    continue
                incident.events += 1
                incident.end_ns, incident.quiet = max(incident.end_ns, time), 0
                if score > incident.peak:
                    incident.peak, incident.peak_event, incident.features = score, event, features
            elif incident is not None:
                incident.quiet += 1
                if incident.quiet >= self.quiet_events:
                    del self.open[sensor_id]
                    out.append(_wire(sensor_id, incident, closed=True))
        return out

    def close_all_but(self, sensors: Collection[str]) -> list[Incident]:
        """Close the incidents of all sensors but these, and return them by sensor id."""
        gone = sorted(self.open.keys() - set(sensors))
        return [_wire(sensor, self.open.pop(sensor), closed=True, reason="sensor_gone") for sensor in gone]

    def _relevant(self, scores: Scores, numbers: NDArray[np.int64], number_of: Mapping[str, int]) -> NDArray[np.int64]:
        """Return (M,) indices of the events that can open, extend or close an incident; the others are skipped.

        Args:
            scores: Of N events.
            numbers: (N,) number of each event's sensor.
            number_of: Number by sensor.
        """
        alarmed = np.zeros(len(number_of), np.bool_)
        alarmed[numbers[(scores.score >= 1) & scores.live]] = True
        alarmed[[number_of[sensor_id] for sensor_id in self.open if sensor_id in number_of]] = True
        return np.flatnonzero(alarmed[numbers])

    def state(self) -> dict[str, Any]:
        """Return plain values for the header of a snapshot."""
        return {sensor_id: asdict(incident) for sensor_id, incident in self.open.items()}

    def load(self, state: dict[str, Any]) -> None:
        """Restore what ``state`` returned."""
        self.open = {
            sensor_id: _OpenIncident(**{**fields, "features": tuple(fields["features"])})
            for sensor_id, fields in state.items()
        }


def _wire(
    sensor_id: str,
    incident: _OpenIncident,
    contributions: tuple[Contribution, ...] = (),
    *,
    closed: bool,
    reason: Literal["over", "sensor_gone"] = "over",
) -> Incident:
    return Incident(
        incident_id=_id(sensor_id, incident.first_event),
        sensor_id=sensor_id,
        state="closed" if closed else "open",
        kind="spike",
        severity="minor",
        reason=reason if closed else None,
        start=_time(incident.start_ns),
        end=_time(incident.end_ns),
        events=incident.events,
        peak_alarm=incident.peak,
        peak_score=incident.peak,
        peak_event_id=incident.peak_event,
        contributions=tuple(ContributionOut(**asdict(contribution)) for contribution in contributions),
        features=incident.features,
    )


def _id(sensor_id: str, first_event: str) -> str:
    """Return an id made of sensor and first event; where that is too long, its beginning and a digest of all of it."""
    whole = f"{sensor_id}/{first_event}"
    if len(whole) <= MAX_NAME:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:_DIGEST_CHARACTERS]
    return f"{whole[: MAX_NAME - len(digest) - 1]}~{digest}"


def _time(ns: int) -> datetime:
    seconds, rest = divmod(ns, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
