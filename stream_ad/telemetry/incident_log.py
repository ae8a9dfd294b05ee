"""A log line for each incident that opens, gets worse or closes, and no more of them than a person can read."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import structlog

from stream_ad.util.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_ad.records.schemas import Incident

LINES = 60
SECONDS = 60.0

_log = structlog.get_logger("stream_ad.worker.incidents")


class IncidentLog:
    """Logs changes of incidents, at most 60 in any minute, and a minute later how many were left out.

    Args:
        clock: Monotonic seconds.
        on_drop: Called with the number of lines that were left out.
    """

    def __init__(self, clock: Callable[[], float], on_drop: Callable[[int], None] = lambda _: None) -> None:
        self._clock = clock
        self._on_drop = on_drop
        self._logged: deque[float] = deque(maxlen=LINES)  # when the last lines were
        self._left_out = 0
        self._left_out_since = 0.0

    def add(self, incidents: Sequence[Incident]) -> None:
        """Log what has happened to incidents, as far as the minute allows."""
        for incident in incidents:
            now = self._clock()
            if len(self._logged) == LINES and now - self._logged[0] < SECONDS:
                if not self._left_out:
                    self._left_out_since = now
                self._left_out += 1
            else:
                self._logged.append(now)
                _log_incident(incident)

    def tell_left_out(self, *, force: bool = False) -> None:
        """Log how many lines were left out, a minute after the first of them.

        Args:
            force: Do not wait for the minute.
        """
        if self._left_out and (force or self._clock() - self._left_out_since >= SECONDS):
            _log.info("changes of incidents left out", number=self._left_out, see="stream-ad incidents")
            self._on_drop(self._left_out)
            self._left_out = 0


def _log_incident(incident: Incident) -> None:
    fields: dict[str, object] = {
        "sensor": printable(incident.sensor_id),
        "kind": incident.kind,
        "severity": incident.severity,
        "since": incident.start.isoformat().replace("+00:00", "Z"),
    }
    if incident.opens and incident.contributions:
        top = incident.contributions[0]
        fields |= {
            "feature": printable(top.feature),
            "value": float(f"{top.value:.4g}"),
            "expected": float(f"{top.expected:.4g}"),
        }
    if not incident.opens:
        fields |= {"events": incident.events, "peak_alarm": round(incident.peak_alarm, 2)}
    if incident.state == "closed":
        fields |= {"reason": incident.reason, "lasted_s": round((incident.end - incident.start).total_seconds(), 3)}
    what = "closed" if incident.state == "closed" else "opened" if incident.opens else "got worse"
    _log.info(f"incident {what}", **fields, incident=printable(incident.incident_id))
