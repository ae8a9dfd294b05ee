"""Data of the report as plain values, thinned so that the page of a long stream stays a few megabytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.evaluation.backtest.advice import advice
from stream_ad.evaluation.backtest.baselines import TITLES
from stream_ad.evaluation.backtest.metrics import by_row, curve, segments
from stream_ad.evaluation.backtest.results import Figures, plain
from stream_ad.evaluation.report.incident_data import false_incidents, missed, published_by_sensor, span, where

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.evaluation.backtest.metrics import Segment
    from stream_ad.evaluation.backtest.runner import Backtest
    from stream_ad.records.schemas import Incident

POINTS = 100_000  # scores drawn in all
SENSOR_POINTS, LEAST_SENSOR_POINTS = 4000, 400
SENSORS = 60  # sensors that are drawn; the table has all
CURVE_POINTS = 160
CURVE_NUMBERS = 400_000  # of all curves together
PROGRESS_POINTS, PROGRESS_AREAS = 60, 20_000  # points of the line; and points times sensors, which bounds the time
BANDS = 2000  # faults drawn for each sensor, and incidents, the longest first
WORST, WORST_OF_SENSOR, WORST_APART = 12, 3, 60
AROUND = 90  # rows drawn on either side of a worst minute
LONG_GAP = 20  # times the median interval between drawn points: a longer gap interrupts the line


def report_data(run: Backtest, result: dict[str, Any]) -> dict[str, Any]:
    """Return everything that the page needs; the figures of ``results`` go in unchanged.

    Args:
        run: The backtest.
        result: The figures that ``results`` returned.
    """
    figures = Figures(run)
    lines = {"detector": run.detector.score}
    if run.unlabelled is not None:
        lines["unlabelled"] = run.unlabelled.score
    lines |= run.baselines
    shown = _shown(figures)
    points = int(np.clip(POINTS // max(len(shown), 1), LEAST_SENSOR_POINTS, SENSOR_POINTS))
    of_sensor = _rows_by_sensor(run)
    published = published_by_sensor(run)
    return plain(
        {
            "figures": result,
            "titles": {"detector": "stream-ad", "unlabelled": "without labels", **TITLES},
            "lines": list(lines),
            "span_ms": [int(run.stream.times_ns[: run.done].min(initial=2**62)) // 10**6,
                        int(run.stream.times_ns[: run.done].max(initial=0)) // 10**6],
            "shown": [_series(figures, number, of_sensor[number], points, published) for number in shown],
            "curves": _curves(figures, lines, shown),
            "progress": _progress(figures),
            "worst": [_moment(figures, row, of_sensor) for row in _worst(run)],
            "false_incidents": false_incidents(figures, of_sensor),
            "missed": missed(figures),
            "advice": advice(figures, result),
        }
    )  # fmt: skip


def _rows_by_sensor(run: Backtest) -> list[NDArray[np.int64]]:
    sensor = run.stream.sensor[: run.done]
    order = np.argsort(sensor, kind="stable")
    return np.split(order, np.searchsorted(sensor[order], np.arange(1, len(run.stream.sensors))))


def _shown(figures: Figures) -> list[int]:
    """Return the sensors that are drawn: those with most alarming or anomalous rows, in the order of the stream."""
    run = figures.run
    telling = figures.alarming(run.detector) | (figures.code > 0)
    weight = np.bincount(run.stream.sensor[: run.done], telling.astype(float), minlength=len(run.stream.sensors))
    return sorted(np.argsort(-weight, kind="stable")[:SENSORS].tolist())


def _series(
    figures: Figures, sensor: int, rows: NDArray[np.int64], points: int, published: dict[int, list[Incident]]
) -> dict[str, Any]:
    """Return scores and alarms of a sensor, the highest of each bucket of rows, and its faults and incidents.

    Args:
        figures: Figures of the backtest.
        sensor: Index of the sensor.
        rows: (R,) its rows.
        points: Buckets, at most.
        published: Incidents by sensor.
    """
    run, stream = figures.run, figures.run.stream
    time_ms = np.maximum.accumulate(stream.times_ns[rows]) // 10**6
    size = -(-len(rows) // points) if len(rows) else 1
    begins = np.arange(0, len(rows), size)
    score = run.detector.score[rows]
    peak = np.array([begin + int(score[begin : begin + size].argmax()) for begin in begins.tolist()], np.int64)
    labelled = np.zeros(len(rows), np.int64)  # 1 normal, 2 anomalous
    labelled[_labelled_rows(run, sensor, rows)] = 1
    labelled[labelled == 1] += stream.anomalous[rows[labelled == 1]]
    faults = [fault for fault in figures.faults if fault.sensor == sensor]
    faults = sorted(faults, key=lambda fault: -len(fault.rows))[:BANDS]
    evaluated = stream.evaluated[rows]
    steps = np.diff(time_ms[peak])
    steps = steps[steps > 0]
    out = {
        "id": stream.sensors[sensor],
        "every": size,
        "t0": int(time_ms[0]) if len(rows) else 0,
        "t": np.diff(time_ms[peak], prepend=time_ms[:1]).tolist() if len(rows) else [],
        "gap": int(LONG_GAP * np.median(steps)) if len(steps) else None,
        "row": stream.row_in[rows[peak]].tolist(),
        "score": _short(score[peak]),
        "alarm": _short(np.maximum.reduceat(run.detector.alarms[rows, 0], begins)) if len(rows) else [],
        "labelled": "".join(str(labelled[begin : begin + size].max()) for begin in begins.tolist()),
        "from": int(time_ms[int(evaluated.argmax())]) if evaluated.any() else None,
        "faults": [_band(figures, fault) for fault in faults],
        "incidents": [
            span(incident)
            for incident in sorted(published.get(sensor, []), key=lambda incident: -incident.events)[:BANDS]
        ],
    }
    if run.unlabelled is not None and len(rows):
        out["unlabelled"] = _short(np.maximum.reduceat(run.unlabelled.score[rows], begins))
    return out


def _labelled_rows(run: Backtest, sensor: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return indices into a sensor's rows (R,) whose label has arrived."""
    schedule, stream = run.schedule, run.stream
    given = schedule.rows[: int(np.searchsorted(schedule.after, run.done))]
    given = given[stream.sensor[given] == sensor]
    if not schedule.intervals:
        return np.searchsorted(rows, given)
    last = np.isin(rows, given)
    stretches = segments(np.zeros(len(rows), np.int64), stream.code[rows])
    inside = [segment.rows for segment in stretches if last[segment.rows[-1]]]
    return np.concatenate([np.empty(0, np.int64), *inside])


def _band(figures: Figures, fault: Segment) -> list[Any]:
    run = figures.run
    times = run.stream.times_ns[fault.rows] // 10**6
    is_found = bool(figures.alarming(run.detector)[fault.rows].any())
    return [int(times.min()), int(times.max()), run.stream.classes[fault.code], is_found]


def _curves(figures: Figures, lines: dict[str, NDArray[np.float64]], shown: list[int]) -> dict[str, Any]:
    """Return the points of both curves and those of the alarm, by sensor ("" is all sensors together) and by line."""
    run = figures.run
    replayed = {"detector": run.detector, "unlabelled": run.unlabelled}
    selections: dict[str, NDArray[np.int64] | slice] = {"": slice(None)}
    each = CURVE_POINTS * 4 * len(lines)
    for sensor in shown[: CURVE_NUMBERS // each]:
        selections[run.stream.sensors[sensor]] = figures.of_sensor[sensor]
    out: dict[str, Any] = {}
    for name, members in selections.items():
        out[name] = {}
        for line, score in lines.items():
            whole = curve(score[figures.rows[members]], figures.anomalous[members])
            if not whole.has_both:
                continue
            thin = whole.thinned(CURVE_POINTS)
            of_alarm = None
            if (decided := replayed.get(line)) is not None:
                rows = by_row(figures.alarming(decided)[figures.rows[members]], figures.anomalous[members])
                of_alarm = [rows["recall"], rows["false_alarm_rate"], rows["precision"]]
            out[name][line] = {
                "roc_auc": whole.roc_auc(),
                "average_precision": whole.average_precision(),
                "recall": _short(thin.hits / whole.anomalies),
                "fall_out": _short(thin.alarms / whole.normals),
                "precision": _short(thin.precision()),
                "share": whole.anomalies / (whole.anomalies + whole.normals),
                "of_alarm": of_alarm,
            }
    return out


def _progress(figures: Figures) -> dict[str, Any]:
    """Return both areas over the evaluated rows up to a row, with and without labels, and the labels given by then."""
    run, evaluated = figures.run, len(figures.rows)
    with_both = [members for members in figures.of_sensor if 0 < figures.anomalous[members].sum() < len(members)]
    points = int(np.clip(PROGRESS_AREAS // max(len(with_both), 1), 8, PROGRESS_POINTS))
    stops = np.unique(np.linspace(0, evaluated, points + 1).astype(np.int64))
    out: dict[str, Any] = {"row": [], "labels": [], "detector": [], "unlabelled": []}
    for stop in stops[stops > 0].tolist():
        row = int(figures.rows[stop - 1]) + 1
        out["row"].append(row)
        out["labels"].append(int(np.searchsorted(run.schedule.after, row)))
        for key, replayed in (("detector", run.detector), ("unlabelled", run.unlabelled)):
            if replayed is not None:
                areas = [figures.ranking(replayed.score, members[members < stop]) for members in with_both]
                out[key].append(_means(areas))
    return out


def _means(areas: list[dict[str, float]]) -> list[float]:
    both = np.array([[pair["roc_auc"], pair["average_precision"]] for pair in areas]).reshape(-1, 2)
    finite = both[~np.isnan(both[:, 0])]
    return finite.mean(axis=0).round(4).tolist() if len(finite) else [float("nan")] * 2


def _worst(run: Backtest) -> list[int]:
    """Return the alarming rows with the highest scores; not all of a single sensor, nor of a single episode."""
    rows = np.array(sorted(run.detector.contributions), np.int64)
    rows = rows[(rows < run.done) & (run.detector.alarms[rows, 0] >= 1)]
    taken: list[int] = []
    stream = run.stream
    for row in rows[np.argsort(-run.detector.score[rows], kind="stable")].tolist():
        same_sensor = [other for other in taken if stream.sensor[other] == stream.sensor[row]]
        if len(same_sensor) < WORST_OF_SENSOR or len(stream.sensors) == 1:
            if all(abs(int(stream.nth[other] - stream.nth[row])) > WORST_APART for other in same_sensor):
                taken.append(row)
            if len(taken) == WORST:
                break
    return taken


def _moment(figures: Figures, row: int, of_sensor: list[NDArray[np.int64]]) -> dict[str, Any]:
    """Return a row, its contributions, and the readings of the first contribution around it."""
    run, stream = figures.run, figures.run.stream
    named = run.detector.contributions[row]
    sensor_rows, nth = of_sensor[int(stream.sensor[row])], int(stream.nth[row])
    around = sensor_rows[max(0, nth - AROUND) : nth + AROUND + 1]
    origin = stream.locate(row)
    readings: list[Any] = []
    if named and named[0].feature in origin.recording.features:
        column = origin.recording.features.index(named[0].feature)
        same_file = around[stream.which[around] == stream.which[row]]
        readings = _short(origin.recording.values[stream.row_in[same_file], column], digits=5)
        position = int(np.searchsorted(same_file, row))
    else:
        position = 0
    return {
        **where(run, row),
        "score": float(run.detector.score[row]),
        "alarm": float(run.detector.alarms[row, 0]),
        "label": stream.classes[int(stream.code[row])] if stream.code[row] >= 0 else None,
        "named": [
            [contribution.feature, contribution.value, contribution.expected, contribution.share]
            for contribution in named
        ],
        "readings": readings,
        "at": position,
    }


def _short(values: NDArray[np.float64], digits: int = 4) -> list[float | None]:
    """Round values (N,) to as many digits as can be seen; None for NaN."""
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in values.tolist()]
