"""What a backtest found, as plain values: the figures of ``--json``, and what the report is drawn from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad import __version__
from stream_ad.evaluation.backtest.metrics import at_threshold, curve, detection, segments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.evaluation.backtest.metrics import Segment
    from stream_ad.evaluation.backtest.runner import Backtest, RunResult

_DAY_NS = 86_400e9


class Figures:
    """Figures over the judged ones among the rows that were done."""

    def __init__(self, run: Backtest) -> None:
        stream, done = run.stream, run.done
        self.run = run
        self.rows = np.flatnonzero(stream.judged[:done])  # (J,) judged rows
        self.anomalous = stream.anomalous[self.rows]  # (J,)
        self.sensor = stream.sensor[self.rows]  # (J,)
        code = np.where(stream.judged[:done], stream.code[:done], -1)
        self.faults = [one for one in segments(stream.sensor[:done], code) if one.code > 0]
        by_sensor = np.argsort(self.sensor, kind="stable")
        bounds = np.searchsorted(self.sensor[by_sensor], np.arange(len(stream.sensors) + 1))
        self.of_sensor = [by_sensor[a:b] for a, b in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)]
        """Indices into ``rows``, by sensor."""

    def ranking(self, score: NDArray[np.float64], some: NDArray[np.int64] | slice = slice(None)) -> dict[str, float]:
        """Both areas of some of the judged rows.

        Args:
            score: (N,) of all rows.
            some: Indices into ``rows``.
        """
        found = curve(score[self.rows[some]], self.anomalous[some])
        return {"roc_auc": found.roc_auc(), "average_precision": found.average_precision()}

    def macro(self, score: NDArray[np.float64]) -> dict[str, float]:
        """The mean of both areas over the sensors that have both classes."""
        each = [self.ranking(score, some) for some in self.of_sensor]
        return {key: _mean([one[key] for one in each]) for key in ("roc_auc", "average_precision")}

    def summary(self, replayed: RunResult) -> dict[str, Any]:
        """All that is said of the detector as a whole."""
        flagged = replayed.score >= 1  # (N,)
        days = float(np.ptp(self.run.stream.times_ns[self.rows])) / _DAY_NS if len(self.rows) else 0.0
        judged = self.run.stream.judged
        alarms = sum(bool(judged[row]) for row in replayed.incidents)
        threshold = at_threshold(flagged[self.rows], self.anomalous)
        return {
            **self.macro(replayed.score),
            "micro": self.ranking(replayed.score),
            "at_threshold": {**threshold, "alarms_per_day": alarms / days if days else float("nan")},
            "segments": detection(self.faults, flagged),
        }

    def per_class(self, replayed: RunResult) -> dict[str, dict[str, Any]]:
        """Each anomaly class against the normal rows."""
        flagged = replayed.score >= 1
        out: dict[str, dict[str, Any]] = {}
        codes = self.run.stream.code[self.rows]
        for code, name in enumerate(self.run.stream.classes):
            mine = codes == code
            if code == 0 or not mine.any():
                continue
            out[name] = {
                "rows": int(mine.sum()),
                "recall": float(flagged[self.rows[mine]].mean()),
                **self.ranking(replayed.score, np.flatnonzero(mine | (codes == 0))),
                "segments": detection([one for one in self.faults if one.code == code], flagged),
            }
        return out

    def per_sensor(self, replayed: RunResult) -> dict[str, dict[str, Any]]:
        """Each sensor by itself."""
        flagged = replayed.score >= 1
        out: dict[str, dict[str, Any]] = {}
        seen = np.bincount(self.run.stream.sensor[: self.run.done], minlength=len(self.of_sensor))
        faults: dict[int, list[Segment]] = {}
        for one in self.faults:
            faults.setdefault(one.sensor, []).append(one)
        for number, some in enumerate(self.of_sensor):
            out[self.run.stream.sensors[number]] = {
                "rows": int(seen[number]),
                "evaluated": len(some),
                "anomalies": int(self.anomalous[some].sum()),
                **self.ranking(replayed.score, some),
                **at_threshold(flagged[self.rows[some]], self.anomalous[some]),
                "segments": detection(faults.get(number, []), flagged),
            }
        return out


def results(run: Backtest, *, settings: dict[str, Any]) -> dict[str, Any]:
    """The figures of ``--json``; a figure that cannot be had (one class only, nothing judged) is None.

    Args:
        run: Complete or not.
        settings: All settings in force, as plain values.
    """
    figures, protocol = Figures(run), run.protocol
    found = {
        "files": [one.stem for one in run.stream.recordings],
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
        "verdicts": {
            "given": int(np.searchsorted(run.schedule.after, run.done)),
            "outcomes": run.detector.label_outcomes,
        },
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
    return plain(found)


def plain(value: Any) -> Any:
    """The same with None for NaN, for which JSON has no word."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else float("nan")


def _rate(rows: int, seconds: float) -> float:
    return rows / seconds if seconds else float("nan")
