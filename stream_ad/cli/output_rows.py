"""Scores and incidents as rows of text, safe to print on a terminal."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from stream_ad.util.text import duration, printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from stream_ad.cli.output_messages import IncidentMessage, ScoreMessage

SCORE_HEADER = ("TIME (UTC)", "SENSOR", "SCORE", "ALARM", "ANOMALY", "INCIDENT")
INCIDENT_HEADER = (
    "START (UTC)", "SENSOR", "STATE", "SEVERITY", "KIND", "LASTED", "EVENTS", "PEAK ALARM", "FEATURES", "SUSPECTED",
)  # fmt: skip
SHOWN_FEATURES = 2


def score_row(score: ScoreMessage) -> tuple[str, ...]:
    """Return the cells below SCORE_HEADER."""
    return (
        _time(score.timestamp),
        printable(score.sensor_id),
        f"{score.score:.4f}",
        _figure(score.alarm),
        "warm-up" if score.phase == "warm-up" else "yes" if score.is_anomaly else "no",
        printable(score.incident_id or "-"),
    )


def incident_row(incident: IncidentMessage) -> tuple[str, ...]:
    """Return the cells below INCIDENT_HEADER."""
    reason = f" ({incident.reason})" if incident.reason else ""
    return (
        _time(incident.start),
        printable(incident.sensor_id),
        printable(f"{incident.state}{reason}"),
        printable(incident.severity or "-"),
        printable(incident.kind or "-"),
        duration((incident.end - incident.start).total_seconds()),
        f"{incident.events:,}",
        _figure(incident.peak_alarm),
        _features(incident) or "-",
        ", ".join(f"{printable(suspected.name)} {suspected.probability:.0%}" for suspected in incident.classes[:1])
        or "-",
    )


def _features(incident: IncidentMessage) -> str:
    """Return the features that contributed most, with value and expected value where the message has them."""
    texts = [
        f"{printable(part.feature)} {part.value:.4g} (expected {part.expected:.4g})" for part in incident.contributions
    ] or list(map(printable, incident.features))
    more = f", +{len(texts) - SHOWN_FEATURES}" if len(texts) > SHOWN_FEATURES else ""
    return ", ".join(texts[:SHOWN_FEATURES]) + more


class Columns:
    """Lines with aligned columns, which grow as longer cells come."""

    def __init__(self, header: Sequence[str]) -> None:
        self._header = header
        self._widths = [len(cell) for cell in header]
        self._begun = False

    def lines(self, rows: Sequence[Sequence[str]]) -> list[str]:
        """Return the next lines, below the header where they are the first."""
        for row in rows:
            self._widths = [max(width, len(cell)) for width, cell in zip(self._widths, row, strict=True)]
        shown = rows if self._begun else (self._header, *rows)
        self._begun = True
        return ["  ".join(map(str.ljust, row, self._widths)).rstrip() for row in shown]


def _time(moment: datetime) -> str:
    try:
        return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    except OverflowError:  # at the very beginning or end of the calendar
        return moment.isoformat()


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
