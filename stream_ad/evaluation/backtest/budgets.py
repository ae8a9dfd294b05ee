"""Budgets of false incidents that a backtest decides side by side, and what each of them came to.

The further budgets are rates an event, the same for every sensor. The configured one is what the settings say: for
event time, each sensor's usual interval turns it into a rate. Nothing that is learned depends on a budget, so that a
run with another one configured has the very alarms of its column here.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector.alarms.quantities import MOST_EVENTS
from stream_ad.detector.alarms.rules import AlarmRules
from stream_ad.detector.alarms.sensor_rules import SensorRules
from stream_ad.detector.features.outage import LEAST_NS
from stream_ad.evaluation.backtest.incident_figures import count
from stream_ad.shard.incidents import KINDS, REASONS, SEVERITIES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.detector.alarm_config import AlarmsConfig
    from stream_ad.evaluation.backtest.incident_figures import FaultFigures
    from stream_ad.evaluation.backtest.results import Figures
    from stream_ad.evaluation.backtest.runner import Backtest, RunResult
    from stream_ad.records.schemas import Incident

RATES = (1e-5, 1e-4, 3e-4, 1e-3)
"""False incidents an event that the command decides beside the configured budget."""
STILL_OPEN = "open"
"""Stands for the reason of incidents that had not closed by the last row."""
_DAY_NS = 86_400e9


def in_events(rate: float) -> tuple[int, int]:
    """Return a rate an event as a number of false incidents in a number of events.

    >>> in_events(3e-4), in_events(1e-5)
    ((3, 10000), (1, 100000))
    """
    share = Fraction(repr(rate)).limit_denominator(MOST_EVENTS)
    return share.numerator, share.denominator


def has_overrides(alarms: AlarmsConfig) -> bool:
    """Say whether some sensors have a budget of their own."""
    return any(each.false_incidents is not None or each.per is not None for each in alarms.overrides)


def configured_rates(run: Backtest) -> NDArray[np.float64]:
    """Return (S,) the false incidents an event that the settings tolerate of each sensor.

    Where they tolerate them for a time, the interval is the mean of the sensor's intervals but for outages.
    """
    rules, stream = AlarmRules(run.options.alarms), run.stream
    table = SensorRules(1, budget=rules.budget_of(""), further_rates=())
    table.append(len(stream.sensors))
    interval = np.zeros(len(stream.sensors))
    by_sensor = np.argsort(stream.sensor[: run.done], kind="stable")
    bounds = np.searchsorted(stream.sensor[by_sensor], np.arange(len(stream.sensors) + 1)).tolist()
    for row, sensor_id in enumerate(stream.sensors):
        table.apply(row, rules.budget_of(sensor_id), None)
        steps = np.diff(np.maximum.accumulate(stream.times_ns[by_sensor[bounds[row] : bounds[row + 1]]]))
        if len(steps):
            longest = max(LEAST_NS, run.options.learning.outage_intervals * float(np.median(steps)))
            usual = steps[steps <= longest]
            interval[row] = usual.mean() if len(usual) else 0.0
    table.set_rates(np.arange(len(stream.sensors)), interval)
    return table.rate[: len(stream.sensors), 0]


def incidents_section(figures: Figures, replayed: RunResult) -> dict[str, Any]:
    """Return the incidents of a run: those published, and what each budget came to.

    Published ones count if they opened between the first and the last evaluated row.
    """
    run, rows = figures.run, figures.rows
    days = float(np.ptp(run.stream.times_ns[rows])) / _DAY_NS if len(rows) else 0.0
    opened = [
        incident
        for incident_id, incident in latest(replayed.incidents).items()
        if len(rows) and rows[0] <= replayed.opened_at[incident_id] <= rows[-1]
    ]
    return {
        "opened": len(opened),
        "per_day": len(opened) / days if days else float("nan"),
        "kinds": _tally(KINDS[1:], [incident.kind for incident in opened]),
        "severities": _tally(SEVERITIES, [incident.severity for incident in opened]),
        "reasons": _tally(
            (*REASONS, "sensor_gone", STILL_OPEN), [incident.reason or STILL_OPEN for incident in opened]
        ),
        "budgets": budget_rows(figures, replayed),
    }


def latest(incidents: list[Incident]) -> dict[str, Incident]:
    """Return the last message of each incident, by id, in the order in which they opened."""
    return {incident.incident_id: incident for incident in incidents}


def budget_rows(figures: Figures, replayed: RunResult) -> list[dict[str, Any]]:
    """Return what each budget came to: the further ones in their order, then the configured one."""
    run, alarms = figures.run, figures.run.options.alarms
    rows = []
    for column, rate in enumerate(run.budgets, 1):
        false_incidents, events = in_events(rate)
        rows.append(_row(figures, replayed, column, rate, f"{false_incidents:,} per {events:,} events"))
    text = f"{alarms.false_incidents:g} per {alarms.per}{', with overrides' if has_overrides(alarms) else ''}"
    return [*rows, _row(figures, replayed, 0, figures.configured_rate, text)]


def _row(figures: Figures, replayed: RunResult, column: int, rate: float, text: str) -> dict[str, Any]:
    run = figures.run
    came_to = count(
        run.stream.sensor[: run.done],
        figures.code,
        figures.alarming(replayed, column),
        budget=rate,
        quiet_events=run.incidents.quiet_events,
        faults=figures.faults,
    )
    return {
        "budget": text,
        "configured": column == 0,
        "rate": rate,
        "promised": came_to.promised,
        "incidents": came_to.incidents,
        "false": came_to.false,
        **_of_faults(came_to.faults),
        "time_in_alarm": came_to.share_in_alarm,
        "by_class": {run.stream.classes[code]: _of_faults(of_class) for code, of_class in came_to.by_class.items()},
    }


def _of_faults(faults: FaultFigures) -> dict[str, Any]:
    return {
        "found": faults.detected,
        "faults": faults.faults,
        "median_delay_events": faults.delay_events_median,
    }


def _tally(names: tuple[str, ...], of_incidents: list[str]) -> dict[str, int]:
    counts = Counter(of_incidents)
    return {name: counts[name] for name in names}
