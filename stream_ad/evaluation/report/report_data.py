"""What the report shows, as plain values, thinned so that a page of a long stream stays a few megabytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.evaluation.backtest.advice import advice
from stream_ad.evaluation.backtest.baselines import TITLES
from stream_ad.evaluation.backtest.metrics import curve, segments
from stream_ad.evaluation.backtest.results import Figures, plain

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.evaluation.backtest.metrics import Segment
    from stream_ad.evaluation.backtest.runner import Backtest, RunResult

POINTS = 100_000  # of scores, in all
SENSOR_POINTS, LEAST_SENSOR_POINTS = 4000, 400
SENSORS = 60  # that are drawn; the table has all
CURVE_POINTS = 160
CURVE_NUMBERS = 400_000
PROGRESS_POINTS, PROGRESS_AREAS = 60, 20_000  # the latter bounds points times sensors
BANDS = 2000  # faults drawn for a sensor
LISTED = 200  # false alarms, and faults that went unnoticed
WORST, WORST_OF_SENSOR, WORST_APART = 12, 3, 60
AROUND = 90  # rows drawn on either side of a worst minute


def report_data(run: Backtest, found: dict[str, Any]) -> dict[str, Any]:
    """Everything that the page needs beside the figures of ``results``, which go in as they are.

    Args:
        run: The backtest.
        found: What ``results`` made of it.
    """
    figures = Figures(run)
    lines = {"detector": run.detector.score}
    if run.unlabelled is not None:
        lines["unlabelled"] = run.unlabelled.score
    lines |= run.baselines
    shown = _shown(figures)
    points = int(np.clip(POINTS // max(len(shown), 1), LEAST_SENSOR_POINTS, SENSOR_POINTS))
    of_sensor = _rows_by_sensor(run)
    return plain(
        {
            "figures": found,
            "titles": {"detector": "stream-ad", "unlabelled": "without verdicts", **TITLES},
            "lines": list(lines),
            "span_ms": [int(run.stream.times_ns[: run.done].min(initial=2**62)) // 10**6,
                        int(run.stream.times_ns[: run.done].max(initial=0)) // 10**6],
            "shown": [_series(figures, number, of_sensor[number], points) for number in shown],
            "curves": _curves(figures, lines, shown),
            "progress": _progress(figures),
            "worst": [_moment(figures, row, of_sensor) for row in _worst(run)],
            "false_alarms": _false_alarms(figures),
            "unnoticed": _unnoticed(figures),
            "advice": advice(figures, found),
        }
    )  # fmt: skip


def _rows_by_sensor(run: Backtest) -> list[NDArray[np.int64]]:
    sensor = run.stream.sensor[: run.done]
    order = np.argsort(sensor, kind="stable")
    return np.split(order, np.searchsorted(sensor[order], np.arange(1, len(run.stream.sensors))))


def _shown(figures: Figures) -> list[int]:
    """The sensors that are drawn: those with most flagged or anomalous rows, in the order of the stream."""
    run = figures.run
    telling = (run.detector.score >= 1) | (run.stream.anomalous & run.stream.judged)
    weight = np.bincount(
        run.stream.sensor[: run.done], telling[: run.done].astype(float), minlength=len(run.stream.sensors)
    )
    return sorted(np.argsort(-weight, kind="stable")[:SENSORS].tolist())


def _series(figures: Figures, number: int, rows: NDArray[np.int64], points: int) -> dict[str, Any]:
    """Scores of one sensor: of each bucket of rows the highest, at its own time."""
    run, stream = figures.run, figures.run.stream
    time_ms = np.maximum.accumulate(stream.times_ns[rows]) // 10**6
    size = -(-len(rows) // points) if len(rows) else 1
    begins = np.arange(0, len(rows), size)
    score = run.detector.score[rows]
    peak = np.array([begin + int(score[begin : begin + size].argmax()) for begin in begins.tolist()], np.int64)
    told = np.zeros(len(rows), np.int64)  # 1 normal, 2 anomalous
    told[_told(run, number, rows)] = 1
    told[told == 1] += stream.anomalous[rows[told == 1]]
    faults = [one for one in figures.faults if one.sensor == number]
    faults = sorted(faults, key=lambda one: -len(one.rows))[:BANDS]
    judged = stream.judged[rows]
    out = {
        "id": stream.sensors[number],
        "every": size,
        "t0": int(time_ms[0]) if len(rows) else 0,
        "t": np.diff(time_ms[peak], prepend=time_ms[:1]).tolist() if len(rows) else [],
        "row": stream.row_in[rows[peak]].tolist(),
        "score": _short(score[peak]),
        "told": "".join(str(told[begin : begin + size].max()) for begin in begins.tolist()),
        "from": int(time_ms[int(judged.argmax())]) if judged.any() else None,
        "faults": [_band(run, one) for one in faults],
    }
    if run.unlabelled is not None and len(rows):
        out["unlabelled"] = _short(np.maximum.reduceat(run.unlabelled.score[rows], begins))
    return out


def _told(run: Backtest, number: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices into a sensor's rows: those whose verdict has arrived."""
    schedule, stream = run.schedule, run.stream
    given = schedule.rows[: int(np.searchsorted(schedule.after, run.done))]
    given = given[stream.sensor[given] == number]
    if not schedule.intervals:
        return np.searchsorted(rows, given)
    last = np.isin(rows, given)
    spans = segments(np.zeros(len(rows), np.int64), stream.code[rows])
    inside = [one.rows for one in spans if last[one.rows[-1]]]
    return np.concatenate([np.empty(0, np.int64), *inside])


def _band(run: Backtest, fault: Segment) -> list[Any]:
    times = run.stream.times_ns[fault.rows] // 10**6
    noticed = bool((run.detector.score[fault.rows] >= 1).any())
    return [int(times.min()), int(times.max()), run.stream.classes[fault.code], noticed]


def _curves(figures: Figures, lines: dict[str, NDArray[np.float64]], shown: list[int]) -> dict[str, Any]:
    """By what is chosen («» is all sensors together) and line: points of both curves and the place of the threshold."""
    run = figures.run
    chosen: dict[str, NDArray[np.int64] | slice] = {"": slice(None)}
    each = CURVE_POINTS * 4 * len(lines)
    for number in shown[: CURVE_NUMBERS // each]:
        chosen[run.stream.sensors[number]] = figures.of_sensor[number]
    out: dict[str, Any] = {}
    for name, some in chosen.items():
        out[name] = {}
        for line, score in lines.items():
            whole = curve(score[figures.rows[some]], figures.anomalous[some])
            if not whole.has_both:
                continue
            thin = whole.thinned(CURVE_POINTS)
            at = int(np.searchsorted(-whole.scores, -1.0, side="right")) - 1  # the lowest score of 1 or above
            out[name][line] = {
                "roc_auc": whole.roc_auc(),
                "average_precision": whole.average_precision(),
                "recall": _short(thin.hits / whole.anomalies),
                "fall_out": _short(thin.alarms / whole.normals),
                "precision": _short(thin.precision()),
                "share": whole.anomalies / (whole.anomalies + whole.normals),
                "at": [whole.hits[at] / whole.anomalies, whole.alarms[at] / whole.normals, whole.precision()[at]]
                if line in ("detector", "unlabelled") and at >= 0
                else None,
            }
    return out


def _progress(figures: Figures) -> dict[str, Any]:
    """Both areas of everything judged up to a row, with and without verdicts, and how many had arrived by then."""
    run, judged = figures.run, len(figures.rows)
    telling = [some for some in figures.of_sensor if 0 < figures.anomalous[some].sum() < len(some)]
    points = int(np.clip(PROGRESS_AREAS // max(len(telling), 1), 8, PROGRESS_POINTS))
    stops = np.unique(np.linspace(0, judged, points + 1).astype(np.int64))
    out: dict[str, Any] = {"row": [], "verdicts": [], "detector": [], "unlabelled": []}
    for stop in stops[stops > 0].tolist():
        row = int(figures.rows[stop - 1]) + 1
        out["row"].append(row)
        out["verdicts"].append(int(np.searchsorted(run.schedule.after, row)))
        for key, replayed in (("detector", run.detector), ("unlabelled", run.unlabelled)):
            if replayed is not None:
                areas = [figures.ranking(replayed.score, some[some < stop]) for some in telling]
                out[key].append(_means(areas))
    return out


def _means(areas: list[dict[str, float]]) -> list[float]:
    both = np.array([[one["roc_auc"], one["average_precision"]] for one in areas]).reshape(-1, 2)
    known = both[~np.isnan(both[:, 0])]
    return known.mean(axis=0).round(4).tolist() if len(known) else [float("nan")] * 2


def _worst(run: Backtest) -> list[int]:
    """Rows with the highest scores; not all of one sensor, nor all of one episode."""
    rows = np.array(sorted(run.detector.contributions), np.int64)
    taken: list[int] = []
    stream = run.stream
    for row in rows[np.argsort(-run.detector.score[rows], kind="stable")].tolist():
        mine = [one for one in taken if stream.sensor[one] == stream.sensor[row]]
        if len(mine) < WORST_OF_SENSOR or len(stream.sensors) == 1:
            if all(abs(int(stream.nth[one] - stream.nth[row])) > WORST_APART for one in mine):
                taken.append(row)
            if len(taken) == WORST:
                break
    return taken


def _moment(figures: Figures, row: int, of_sensor: list[NDArray[np.int64]]) -> dict[str, Any]:
    """A row, what it was blamed on, and the readings of that around it."""
    run, stream = figures.run, figures.run.stream
    named = run.detector.contributions[row]
    mine, nth = of_sensor[int(stream.sensor[row])], int(stream.nth[row])
    around = mine[max(0, nth - AROUND) : nth + AROUND + 1]
    place = stream.place(row)
    readings: list[Any] = []
    if named and named[0].feature in place.recording.features:
        column = place.recording.features.index(named[0].feature)
        same = around[stream.which[around] == stream.which[row]]
        readings = _short(place.recording.values[stream.row_in[same], column], digits=5)
        nth_here = int(np.searchsorted(same, row))
    else:
        nth_here = 0
    return {
        **_where(run, row),
        "score": float(run.detector.score[row]),
        "label": stream.classes[int(stream.code[row])] if stream.code[row] >= 0 else None,
        "named": [[one.feature, one.value, one.expected, one.share] for one in named],
        "readings": readings,
        "at": nth_here,
    }


def _false_alarms(figures: Figures) -> dict[str, Any]:
    """Runs of rows that were flagged and judged normal, the highest first."""
    run, stream, done = figures.run, figures.run.stream, figures.run.done
    wrong = (run.detector.score[:done] >= 1) & stream.judged[:done] & ~stream.anomalous[:done]
    runs = segments(stream.sensor[:done], np.where(wrong, 0, -1))
    peaks = [int(one.rows[run.detector.score[one.rows].argmax()]) for one in runs]
    order = sorted(range(len(runs)), key=lambda i: -run.detector.score[peaks[i]])[:LISTED]
    return {
        "total": len(runs),
        "rows": int(wrong.sum()),
        "listed": [
            {**_where(run, int(runs[i].rows[0])), "rows": len(runs[i].rows), "score": run.detector.score[peaks[i]],
             "named": _names(run.detector, peaks[i])}
            for i in order
        ],
    }  # fmt: skip


def _unnoticed(figures: Figures) -> dict[str, Any]:
    """Faults of which no row was flagged, the nearest to the threshold first."""
    run = figures.run
    missed = [(float(run.detector.score[one.rows].max()), one) for one in figures.faults]
    missed = sorted(((peak, one) for peak, one in missed if peak < 1), key=lambda pair: -pair[0])
    return {
        "total": len(missed),
        "listed": [
            {**_where(run, int(one.rows[0])), "rows": len(one.rows), "score": peak,
             "label": run.stream.classes[one.code]}
            for peak, one in missed[:LISTED]
        ],
    }  # fmt: skip


def _where(run: Backtest, row: int) -> dict[str, Any]:
    place = run.stream.place(row)
    return {
        "sensor": run.stream.sensors[int(run.stream.sensor[row])],
        "event": place.event_id,
        "time": int(run.stream.times_ns[row]) // 10**6,
    }


def _names(replayed: RunResult, row: int) -> list[str]:
    return [one.feature for one in replayed.contributions.get(row, ())[:3]]


def _short(values: NDArray[np.float64], digits: int = 4) -> list[float | None]:
    """So many digits each: as many as can be seen."""
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in values.tolist()]
