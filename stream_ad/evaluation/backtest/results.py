"""Figures of a backtest as plain values: the output of ``--json`` and the data of the report."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad import __version__
from stream_ad.evaluation.backtest.budgets import configured_rates, incidents_section
from stream_ad.evaluation.backtest.incident_figures import covered, faults_of, spans
from stream_ad.evaluation.backtest.metrics import by_row, curve, detection

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.evaluation.backtest.incident_figures import Spans
    from stream_ad.evaluation.backtest.metrics import Segment
    from stream_ad.evaluation.backtest.runner import Backtest, RunResult

OLD_LABELS_KEY = "verdicts"
"""The key of ``labels`` in 0.1.0; it goes with the next version."""
OLD_BY_ROW_KEY = "at_threshold"
"""The key of ``by_row`` in 0.1.0, with the incidents a day; it goes with the next version."""


class Figures:
    """Figures over the evaluated rows among those that were done."""

    def __init__(self, run: Backtest) -> None:
        stream, done = run.stream, run.done
        self.run = run
        self.rows = np.flatnonzero(stream.evaluated[:done])  # (E,) evaluated rows
        self.anomalous = stream.anomalous[self.rows]  # (E,)
        self.sensor = stream.sensor[self.rows]  # (E,)
        self.code = np.where(stream.evaluated[:done], stream.code[:done], -1)  # (done,) below 0 if not evaluated
        self.faults = faults_of(stream.sensor[:done], self.code)
        by_sensor = np.argsort(self.sensor, kind="stable")
        bounds = np.searchsorted(self.sensor[by_sensor], np.arange(len(stream.sensors) + 1))
        self.of_sensor = [by_sensor[a:b] for a, b in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)]
        """Indices into ``rows`` for each sensor."""

    @cached_property
    def configured_rate(self) -> float:
        """False incidents that the configured budget tolerates for each normal event, the mean of all such events."""
        normals = np.bincount(self.sensor[~self.anomalous], minlength=len(self.of_sensor))
        return float(np.average(configured_rates(self.run), weights=normals if normals.any() else None))

    def alarming(self, replayed: RunResult, column: int = 0) -> NDArray[np.bool_]:
        """Return the rows (done,) that alarm at the configured budget, column 0, or at another one of the run."""
        return replayed.alarms[: self.run.done, column] >= 1

    def counted_incidents(self, replayed: RunResult) -> tuple[Spans, NDArray[np.bool_]]:
        """Return the incidents at the configured budget that count, and which of them (I,) are false."""
        sensor = self.run.stream.sensor[: self.run.done]
        incidents = spans(sensor, self.alarming(replayed), self.run.incidents.quiet_events)
        judged, anomalous = covered(sensor, self.code, incidents)
        count = judged > 0
        return incidents.chosen(count), anomalous[count] == 0

    def ranking(self, score: NDArray[np.float64], members: NDArray[np.int64] | slice = slice(None)) -> dict[str, float]:
        """Return ROC-AUC and average precision over some of the evaluated rows.

        Args:
            score: (N,) scores of all rows.
            members: (K,) indices into ``rows``.
        """
        whole = curve(score[self.rows[members]], self.anomalous[members])
        return {"roc_auc": whole.roc_auc(), "average_precision": whole.average_precision()}

    def macro(self, score: NDArray[np.float64]) -> dict[str, float]:
        """Return the mean of both areas over the sensors that have both classes; ``score`` is (N,)."""
        by_sensor = [self.ranking(score, members) for members in self.of_sensor]
        return {key: _mean([areas[key] for areas in by_sensor]) for key in ("roc_auc", "average_precision")}

    def summary(self, replayed: RunResult) -> dict[str, Any]:
        """Return the figures of the detector over all sensors."""
        alarming = self.alarming(replayed)  # (done,)
        rows = by_row(alarming[self.rows], self.anomalous)
        incidents = incidents_section(self, replayed)
        return {
            **self.macro(replayed.score),
            "micro": self.ranking(replayed.score),
            "incidents": incidents,
            "segments": detection(self.faults, alarming),
            "by_row": rows,
            OLD_BY_ROW_KEY: {**rows, "alarms_per_day": incidents["per_day"]},
        }

    def per_class(self, replayed: RunResult) -> dict[str, dict[str, Any]]:
        """Return figures of each anomaly class against the normal rows."""
        alarming = self.alarming(replayed)
        figures: dict[str, dict[str, Any]] = {}
        codes = self.run.stream.code[self.rows]
        for code, name in enumerate(self.run.stream.classes):
            of_class = codes == code
            if code == 0 or not of_class.any():
                continue
            figures[name] = {
                "rows": int(of_class.sum()),
                "recall": float(alarming[self.rows[of_class]].mean()),
                **self.ranking(replayed.score, np.flatnonzero(of_class | (codes == 0))),
                "segments": detection([fault for fault in self.faults if fault.code == code], alarming),
            }
        return figures

    def per_sensor(self, replayed: RunResult) -> dict[str, dict[str, Any]]:
        """Return figures of each sensor by itself."""
        alarming = self.alarming(replayed)
        incidents, is_false = self.counted_incidents(replayed)
        sensor_of, total = self.run.stream.sensor[incidents.first], len(self.of_sensor)
        every = np.bincount(sensor_of, minlength=total).tolist()
        false = np.bincount(sensor_of[is_false], minlength=total).tolist()
        figures: dict[str, dict[str, Any]] = {}
        seen = np.bincount(self.run.stream.sensor[: self.run.done], minlength=len(self.of_sensor))
        faults: dict[int, list[Segment]] = {}
        for fault in self.faults:
            faults.setdefault(fault.sensor, []).append(fault)
        for sensor, members in enumerate(self.of_sensor):
            figures[self.run.stream.sensors[sensor]] = {
                "rows": int(seen[sensor]),
                "evaluated": len(members),
                "anomalies": int(self.anomalous[members].sum()),
                **self.ranking(replayed.score, members),
                "incidents": every[sensor],
                "false_incidents": false[sensor],
                **by_row(alarming[self.rows[members]], self.anomalous[members]),
                "segments": detection(faults.get(sensor, []), alarming),
            }
        return figures


def results(run: Backtest, *, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of ``--json``; a figure without a value (one class only, no row evaluated) is None.

    Args:
        run: The backtest, complete or not.
        settings: All settings in force, as plain values.
    """
    figures, protocol = Figures(run), run.protocol
    labels = {
        "given": int(np.searchsorted(run.schedule.after, run.done)),
        "outcomes": run.detector.label_outcomes,
    }
    result = {
        "files": [recording.stem for recording in run.stream.recordings],
        "complete": run.complete,
        "rows": run.done,
        "evaluated": len(figures.rows),
        "anomalies": int(figures.anomalous.sum()),
        **figures.summary(run.detector),
        "per_class": figures.per_class(run.detector),
        "sensors": figures.per_sensor(run.detector),
        "without_labels": figures.summary(run.unlabelled) if run.unlabelled else None,
        "against": {
            name: {
                **figures.macro(score),
                "micro": figures.ranking(score),
                "events_per_second": _rate(run.done, run.baseline_seconds[name]),
            }
            for name, score in run.baselines.items()
        },
        "labels": labels,
        OLD_LABELS_KEY: labels,
        "counts": run.detector.counts,
        "events_per_second": _rate(run.done, run.detector.seconds),
        "protocol": {
            "label_delay": str(protocol.delay),
            "label_coverage": protocol.coverage,
            "intervals": protocol.intervals,
            "seed": protocol.seed,
        },
        "settings": settings,
        "version": __version__,
    }
    return plain(result)


def plain(value: Any) -> Any:
    """Return the value with None for NaN and infinity, which JSON lacks."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _mean(values: list[float]) -> float:
    finite = [value for value in values if not math.isnan(value)]
    return sum(finite) / len(finite) if finite else float("nan")


def _rate(rows: int, seconds: float) -> float:
    return rows / seconds if seconds else float("nan")
