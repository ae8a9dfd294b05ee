"""Incidents: runs of anomalies of one sensor, opened by the first and closed by a quiet time."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.records.schemas import MAX_NAME, Incident

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from stream_ad.records.columns import Events, Scores

_DIGEST_CHARACTERS = 32


@dataclass(slots=True)
class _Open:
    first_event: str
    start_ns: int
    end_ns: int
    events: int
    peak: float
    peak_event: str
    features: tuple[str, ...]
    quiet: int


class Incidents:
    """Open incidents by sensor. Anomalies in warm-up open none."""

    def __init__(self, quiet_events: int) -> None:
        self.quiet_events = quiet_events
        self.open: dict[str, _Open] = {}

    def step(
        self, events: Events, scores: Scores, numbers: tuple[NDArray[np.int64], Mapping[str, int]]
    ) -> list[Incident]:
        """Incidents that these events opened or closed, in the order of the events.

        Args:
            events: The next ones, N.
            scores: Theirs.
            numbers: (N,) what tells the events of one sensor from others', and that of each sensor.
        """
        out: list[Incident] = []
        rows = self._concerned(scores, *numbers)
        columns = rows.tolist(), scores.score[rows].tolist(), scores.live[rows].tolist()
        for i, score, live in zip(*columns, strict=True):
            sensor = events.sensor_ids[i]
            known = self.open.get(sensor)
            if score >= 1 and live:
                features = tuple(one.feature for one in scores.contributions.get(i, ()))
                time, event = int(events.times_ns[i]), events.event_ids[i]
                if known is None:
                    self.open[sensor] = known = _Open(event, time, time, 1, score, event, features, 0)
                    out.append(_wire(sensor, known, closed=False))
                    continue
                known.events += 1
                known.end_ns, known.quiet = max(known.end_ns, time), 0
                if score > known.peak:
                    known.peak, known.peak_event, known.features = score, event, features
            elif known is not None:
                known.quiet += 1
                if known.quiet >= self.quiet_events:
                    del self.open[sensor]
                    out.append(_wire(sensor, known, closed=True))
        return out

    def close_all_but(self, sensors: Collection[str]) -> list[Incident]:
        """Close the incidents of sensors that are no longer known."""
        gone = sorted(self.open.keys() - set(sensors))
        return [_wire(sensor, self.open.pop(sensor), closed=True) for sensor in gone]

    def _concerned(self, scores: Scores, numbers: NDArray[np.int64], known_as: Mapping[str, int]) -> NDArray[np.int64]:
        """SensorTable that can open, extend or close an incident: all others are skipped at array speed."""
        alarmed = np.zeros(len(known_as), np.bool_)
        alarmed[numbers[(scores.score >= 1) & scores.live]] = True
        alarmed[[known_as[sensor] for sensor in self.open if sensor in known_as]] = True
        return np.flatnonzero(alarmed[numbers])

    def state(self) -> dict[str, Any]:
        return {sensor: asdict(known) for sensor, known in self.open.items()}

    def load(self, state: dict[str, Any]) -> None:
        self.open = {
            sensor: _Open(**{**known, "features": tuple(known["features"])}) for sensor, known in state.items()
        }


def _wire(sensor: str, known: _Open, *, closed: bool) -> Incident:
    return Incident(
        incident_id=_id(sensor, known.first_event),
        sensor_id=sensor,
        state="closed" if closed else "open",
        start=_time(known.start_ns),
        end=_time(known.end_ns),
        events=known.events,
        peak_score=known.peak,
        peak_event_id=known.peak_event,
        features=known.features,
    )


def _id(sensor: str, first_event: str) -> str:
    """Sensor and first event; where that is too long, its beginning and a digest of the whole."""
    whole = f"{sensor}/{first_event}"
    if len(whole) <= MAX_NAME:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:_DIGEST_CHARACTERS]
    return f"{whole[: MAX_NAME - len(digest) - 1]}~{digest}"


def _time(ns: int) -> datetime:
    seconds, rest = divmod(ns, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
