"""Incidents of a backtest for the report: those published, those that were false, and the faults that none found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.evaluation.backtest.budgets import latest

if TYPE_CHECKING:
    from datetime import datetime

    from numpy.typing import NDArray

    from stream_ad.evaluation.backtest.results import Figures
    from stream_ad.evaluation.backtest.runner import Backtest
    from stream_ad.records.schemas import Incident

LISTED = 200  # rows in the list of false incidents, and in that of faults that were not found
FEATURES = 3  # named of each false incident


def published_by_sensor(run: Backtest) -> dict[int, list[Incident]]:
    """Return the last message of each incident of the rows done, by sensor and in the order in which they opened."""
    out: dict[int, list[Incident]] = {}
    for incident_id, incident in latest(run.detector.incidents).items():
        if (row := run.detector.opened_at[incident_id]) < run.done:
            out.setdefault(int(run.stream.sensor[row]), []).append(incident)
    return out


def span(incident: Incident) -> dict[str, Any]:
    """Return a published incident as the page draws it."""
    return {
        "from": _ms(incident.start),
        "to": _ms(incident.end),
        "kind": incident.kind,
        "severity": incident.severity,
        "reason": incident.reason,
        "events": incident.events,
        "alarm": incident.peak_alarm,
    }


def false_incidents(figures: Figures, of_sensor: list[NDArray[np.int64]]) -> dict[str, Any]:
    """Return the false incidents at the configured budget, the highest alarm first.

    Args:
        figures: Figures of the backtest.
        of_sensor: Rows of each sensor, (R,) each.
    """
    run, replayed = figures.run, figures.run.detector
    published = {replayed.opened_at[key]: incident for key, incident in latest(replayed.incidents).items()}
    incidents, is_false = figures.counted_incidents(replayed)
    false = incidents.chosen(is_false)
    listed = []
    for first, last in zip(false.first.tolist(), false.last.tolist(), strict=True):
        rows = of_sensor[int(run.stream.sensor[first])]
        rows = rows[np.searchsorted(rows, first) : np.searchsorted(rows, last) + 1]
        peak = int(rows[replayed.alarms[rows, 0].argmax()])
        incident = published.get(first)
        listed.append(
            {
                **where(run, first),
                "rows": len(rows),
                "alarm": float(replayed.alarms[peak, 0]),
                "kind": incident.kind if incident else None,
                "severity": incident.severity if incident else None,
                "named": [named.feature for named in replayed.contributions.get(peak, ())[:FEATURES]],
            }
        )
    listed.sort(key=lambda entry: -float(entry["alarm"]))
    return {"total": len(false), "listed": listed[:LISTED]}


def missed(figures: Figures) -> dict[str, Any]:
    """Return the faults during which nothing alarmed, the nearest to an alarm first."""
    run = figures.run
    highest = [(float(run.detector.alarms[fault.rows, 0].max()), fault) for fault in figures.faults]
    silent = sorted(((peak, fault) for peak, fault in highest if peak < 1), key=lambda pair: -pair[0])
    return {
        "total": len(silent),
        "listed": [
            {**where(run, int(fault.rows[0])), "rows": len(fault.rows), "alarm": peak,
             "label": run.stream.classes[fault.code]}
            for peak, fault in silent[:LISTED]
        ],
    }  # fmt: skip


def where(run: Backtest, row: int) -> dict[str, Any]:
    """Return sensor, event id and time of a row."""
    origin = run.stream.locate(row)
    return {
        "sensor": run.stream.sensors[int(run.stream.sensor[row])],
        "event": origin.event_id,
        "time": int(run.stream.times_ns[row]) // 10**6,
    }


def _ms(time: datetime) -> int:
    return int(time.timestamp() * 1000)
