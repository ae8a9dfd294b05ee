"""Incidents: alarms of one sensor, opened by the first and closed after enough events without one.

An incident counts as false, or as an anomaly, by the first label that covers one of its events. Labels come late, so
the latest incidents of a sensor are kept until they have one.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stream_ad.records.schemas import MAX_NAME, ContributionOut, Incident, SuspectedClass

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from stream_ad.detector.alarm_config import IncidentSettings
    from stream_ad.records.columns import Contribution, Events, Scores

_DIGEST_CHARACTERS = 32  # 128 bits: ids do not collide
KINDS: tuple[Literal["spike", "sustained", "stuck"], ...] = ("spike", "spike", "sustained", "stuck")
"""Kind of an alarm by its code; 0 is no alarm."""
SEVERITIES: tuple[Literal["minor", "major", "critical"], ...] = ("minor", "major", "critical")
REASONS: tuple[Literal["over", "accepted", "judged"], ...] = ("over", "accepted", "judged")
"""Why an incident closes, by the code of the detector."""
UNLABELLED_KEPT = 16
"""Closed incidents of a sensor that can still get a label; the oldest makes room."""


@dataclass(slots=True)
class _OpenIncident:
    """An incident that is open; fields are kept in snapshots under these names."""

    first_event: str
    start_ns: int
    end_ns: int
    events: int
    kind: int  # code of KINDS
    severity: int  # index into SEVERITIES
    peak_alarm: float
    peak: float  # score of that event
    peak_event: str
    contributions: tuple[tuple[str, float, float, float], ...]  # of that event: feature, value, expected, share
    classes: tuple[tuple[str, float], ...]  # suspected at that event: name, probability
    quiet: int  # events since the last alarm
    labelled: bool = False  # whether a label has covered it


@dataclass(frozen=True, slots=True)
class LabelledStretch:
    """A stretch of event time of a sensor that a label covers."""

    record: int  # number of the label among the shard's records
    sensor_id: str
    start_ns: int
    end_ns: int  # included
    normal: bool  # else an anomaly


class Incidents:
    """The open incidents of a shard, by sensor. Alarms during warm-up open none.

    Args:
        settings: When incidents close, and how severe they are.
    """

    def __init__(self, settings: IncidentSettings) -> None:
        self.settings = settings
        self.open: dict[str, _OpenIncident] = {}
        self.unlabelled: dict[str, list[tuple[int, int]]] = {}  # by sensor: first and last ns of closed incidents
        self.counts: Counter[str] = Counter()
        """Of the step under way; ``incidents_normal`` and ``incidents_anomaly`` are added."""

    def step(
        self,
        events: Events,
        scores: Scores,
        numbers: tuple[NDArray[np.int64], Mapping[str, int]],
        labels: tuple[NDArray[np.int64], Sequence[LabelledStretch]] | None = None,
    ) -> list[Incident]:
        """Process the next events: return the incidents that they opened, made worse or closed, in their order.

        Args:
            events: The next N events.
            scores: Their scores; ``incident_ids`` is filled in.
            numbers: (N,) a number for the sensor of each event, and the number by sensor.
            labels: (N,) number of each event among the shard's records, and what the labels among them cover.
        """
        out: list[Incident] = []
        relevant = self._relevant(scores, *numbers)
        alarming = (scores.alarm >= 1) & scores.live
        records, stretches = labels or (np.zeros(len(events.sensor_ids), np.int64), ())
        waiting = sorted(stretches, key=lambda stretch: stretch.record, reverse=True)
        columns = (
            *(relevant.tolist(), records[relevant].tolist()),
            *(alarming[relevant].tolist(), scores.endings[relevant].tolist()),
        )
        for i, record, alarms, ending in zip(*columns, strict=True):
            while waiting and waiting[-1].record < record:
                self._label(waiting.pop())
            sensor_id = events.sensor_ids[i]
            incident = self.open.get(sensor_id)
            if ending and incident is not None:
                out.append(self._close(sensor_id, REASONS[ending]))
                incident = None
            if alarms:
                self._extend(i, events, scores, incident, out)
            elif incident is not None:
                incident.quiet += 1
                if incident.quiet >= self.settings.quiet_events:
                    out.append(self._close(sensor_id, "over"))
            if (incident := self.open.get(sensor_id)) is not None:
                scores.incident_ids[i] = _id(sensor_id, incident.first_event)
        while waiting:
            self._label(waiting.pop())
        return out

    def _label(self, label: LabelledStretch) -> None:
        """Count the incidents that a label covers an event of, and that no label had covered before."""
        sensor_id, start, end, number = label.sensor_id, label.start_ns, label.end_ns, 0
        incident = self.open.get(sensor_id)
        if incident is not None and not incident.labelled and start <= incident.end_ns and incident.start_ns <= end:
            incident.labelled, number = True, 1
        if closed := self.unlabelled.pop(sensor_id, None):
            kept = [(first, last) for first, last in closed if start > last or first > end]
            number += len(closed) - len(kept)
            if kept:
                self.unlabelled[sensor_id] = kept
        self.counts["incidents_normal" if label.normal else "incidents_anomaly"] += number

    def _close(self, sensor_id: str, reason: Literal["over", "accepted", "judged"]) -> Incident:
        incident = self.open.pop(sensor_id)
        if not incident.labelled:
            closed = self.unlabelled.setdefault(sensor_id, [])
            closed.append((incident.start_ns, incident.end_ns))
            del closed[:-UNLABELLED_KEPT]
        return _wire(sensor_id, incident, reason=reason)

    def _extend(
        self, i: int, events: Events, scores: Scores, incident: _OpenIncident | None, out: list[Incident]
    ) -> None:
        """Open an incident at event ``i``, or add the event to it; append what is to be published to ``out``."""
        sensor_id, event, time = events.sensor_ids[i], events.event_ids[i], int(events.times_ns[i])
        alarm, score, kind = float(scores.alarm[i]), float(scores.score[i]), int(scores.kinds[i])
        opens = incident is None
        if incident is None:
            incident = _OpenIncident(event, time, time, 0, kind, 0, 0.0, score, event, (), (), 0)
            self.open[sensor_id] = incident
        incident.events += 1
        incident.end_ns, incident.quiet = max(incident.end_ns, time), 0
        if alarm > incident.peak_alarm:
            incident.peak_alarm, incident.peak, incident.peak_event, incident.kind = alarm, score, event, kind
            incident.contributions = tuple(map(_plain, scores.contributions.get(i, ())))
            incident.classes = scores.classes.get(i, ())
        severity = self._severity(incident)
        if opens or severity > incident.severity:
            incident.severity = severity
            out.append(_wire(sensor_id, incident))

    def _severity(self, incident: _OpenIncident) -> int:
        bounds, alarm, events = self.settings.severity, incident.peak_alarm, incident.events
        if alarm >= bounds.critical_alarm or events >= bounds.critical_events:
            return 2
        return int(alarm >= bounds.major_alarm or events >= bounds.major_events)

    def close_all_but(self, sensors: Collection[str]) -> list[Incident]:
        """Close the incidents of all sensors but these, return them by sensor id, and forget the earlier ones."""
        self.unlabelled = {sensor: closed for sensor, closed in self.unlabelled.items() if sensor in sensors}
        gone = sorted(self.open.keys() - set(sensors))
        return [_wire(sensor, self.open.pop(sensor), reason="sensor_gone") for sensor in gone]

    def by_severity(self) -> dict[str, int]:
        """Return how many incidents are open, by severity."""
        severities = [incident.severity for incident in self.open.values()]
        return {name: severities.count(code) for code, name in enumerate(SEVERITIES)}

    def _relevant(self, scores: Scores, numbers: NDArray[np.int64], number_of: Mapping[str, int]) -> NDArray[np.int64]:
        """Return (M,) indices of the events that can open, extend or close an incident; the others are skipped.

        Args:
            scores: Of N events.
            numbers: (N,) number of each event's sensor.
            number_of: Number by sensor.
        """
        alarmed = np.zeros(len(number_of), np.bool_)
        alarmed[numbers[(scores.alarm >= 1) & scores.live]] = True
        alarmed[[number_of[sensor_id] for sensor_id in self.open if sensor_id in number_of]] = True
        return np.flatnonzero(alarmed[numbers])

    def state(self) -> dict[str, Any]:
        """Return plain values for the header of a snapshot."""
        return {sensor_id: asdict(incident) for sensor_id, incident in self.open.items()}

    def load(self, state: dict[str, Any]) -> None:
        """Restore what ``state`` returned."""
        self.open = {
            sensor_id: _OpenIncident(
                **{
                    **fields,
                    "contributions": tuple(map(tuple, fields["contributions"])),
                    "classes": tuple(map(tuple, fields["classes"])),
                }
            )
            for sensor_id, fields in state.items()
        }

    def load_unlabelled(self, unlabelled: Mapping[str, Sequence[tuple[int, int]]]) -> None:
        """Restore the closed incidents that have no label, by sensor."""
        self.unlabelled = {
            sensor_id: [(first, last) for first, last in closed] for sensor_id, closed in unlabelled.items()
        }


def _plain(contribution: Contribution) -> tuple[str, float, float, float]:
    return contribution.feature, contribution.value, contribution.expected, contribution.share


def _wire(
    sensor_id: str,
    incident: _OpenIncident,
    *,
    reason: Literal["over", "accepted", "judged", "sensor_gone"] | None = None,
) -> Incident:
    """Return the message of an incident; it is open unless there is a reason for its end."""
    return Incident(
        incident_id=_id(sensor_id, incident.first_event),
        sensor_id=sensor_id,
        state="open" if reason is None else "closed",
        kind=KINDS[incident.kind],
        severity=SEVERITIES[incident.severity],
        reason=reason,
        start=_time(incident.start_ns),
        end=_time(incident.end_ns),
        events=incident.events,
        peak_alarm=incident.peak_alarm,
        peak_score=incident.peak,
        peak_event_id=incident.peak_event,
        contributions=tuple(
            ContributionOut(feature=feature, value=value, expected=expected, share=share)
            for feature, value, expected, share in incident.contributions
        ),
        classes=tuple(SuspectedClass(name=name, probability=share) for name, share in incident.classes),
        features=tuple(feature for feature, *_ in incident.contributions),
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
