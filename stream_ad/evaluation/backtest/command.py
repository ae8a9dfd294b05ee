"""Run ``stream-ad backtest``, from files to figures, JSON and report; ``stream_ad.cli`` parses the options."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stream_ad.errors import InputFileError
from stream_ad.evaluation.backtest.baselines import TITLES
from stream_ad.evaluation.backtest.budgets import RATES
from stream_ad.evaluation.backtest.formatting import count, figure, percent, short
from stream_ad.evaluation.backtest.results import results
from stream_ad.evaluation.backtest.runner import Hooks, run_backtest
from stream_ad.evaluation.backtest.stream import Stream
from stream_ad.evaluation.recordings.csv_reader import read_recording
from stream_ad.evaluation.report.report import report_html
from stream_ad.shard.devices import choose_device, passed_over
from stream_ad.telemetry.compile_progress import progress_report
from stream_ad.worker.process_setup import prepare_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from stream_ad.evaluation.backtest.label_schedule import Protocol
    from stream_ad.evaluation.simulation.pacing import Stop
    from stream_ad.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestRequest:
    """What the command line asks for."""

    paths: Sequence[Path]
    protocol: Protocol
    columns: Mapping[str, str] = field(default_factory=dict)
    """Columns of the files by the usual name, if it differs."""
    warmup: int | None = None
    """First rows of each sensor that are not evaluated; None: as the files say."""
    against: Sequence[str] = ()
    """Names of baselines that passed ``baselines.check``."""
    json_out: Path | None = None
    report_out: Path | None = None


def backtest(
    settings: Settings,
    request: BacktestRequest,
    *,
    progress: Callable[[int, int], None] | None = None,
    stop: Stop | None = None,
) -> dict[str, Any]:
    """Read recordings, run the backtest and write the outputs.

    Args:
        settings: Settings of the detector and of incidents; brokers and topics play no part.
        request: What to read, run and write.
        progress: Called with the rows done and the total.
        stop: Ends the backtest early, with everything so far.

    Returns:
        The figures, as ``results`` gives them.

    Raises:
        DeviceError: The device asked for is missing, or does not compute what the CPU does.
        InputFileError: A file cannot be read, breaks the format, or cannot be written.
    """
    outputs = [path for path in (request.json_out, request.report_out) if path is not None]
    for path in outputs:
        if not path.parent.is_dir() or path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise _unwritable(path, "no such folder, or no permission")  # now rather than after an hour
    if fault := passed_over(settings.detector.device):
        _say(f"Warning: {fault}.")
    choose_device(settings.detector.device)
    prepare_process(progress_report(_say))  # as the worker does: the same sums, the same scores
    stream = Stream(
        [read_recording(path, request.columns) for path in request.paths],
        warmup=request.warmup,
        default_warmup=settings.learning.warmup_events,
    )
    run = run_backtest(
        stream,
        settings,
        request.protocol,
        against=request.against,
        incidents=settings.incidents,
        budgets=RATES,
        hooks=Hooks(progress=progress, stop=stop),
    )
    shown = {"detector", "learning", "threshold", "alarms", "incidents"}
    result = results(run, settings=settings.model_dump(mode="json", include=shown))
    if request.json_out is not None:
        _write(request.json_out, json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    if request.report_out is not None:
        _write(request.report_out, report_html(run, result))
    return result


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error


def _unwritable(path: Path, why: str) -> InputFileError:
    return InputFileError(f"{path}: cannot be written: {why}.", hint="Name a file in a folder that you may write to.")


def comparison(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return rows of a table: name, ROC-AUC and average precision, then both with all sensors pooled."""
    lines = [("stream-ad", result)]
    if result["without_labels"]:
        lines.append(("without labels", result["without_labels"]))
    lines += [(TITLES[name], baseline) for name, baseline in result["against"].items()]
    return [
        (
            title,
            *(figure(area) for area in (figures["roc_auc"], figures["average_precision"], *figures["micro"].values())),
        )
        for title, figures in lines
    ]


BUDGETS_HEADER = (
    "BUDGET", "PROMISED", "FALSE", "FAULTS FOUND", "IN ALARM", "MEDIAN DELAY", "WITHOUT LABELS: FALSE", "FOUND",
)  # fmt: skip


def budgets(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return rows of a table, one for each budget, under ``BUDGETS_HEADER``; the configured one comes last."""
    rows = result["incidents"]["budgets"]
    unlabelled = result["without_labels"]["incidents"]["budgets"] if result["without_labels"] else [None] * len(rows)
    return [
        (
            row["budget"] + (" (configured)" if row["configured"] else ""),
            short(row["promised"]),
            f"{row['false']:,}",
            f"{row['found']:,} of {row['faults']:,}",
            percent(row["time_in_alarm"]),
            _events(row["median_delay_events"]),
            *(("–", "–") if other is None else (f"{other['false']:,}", f"{other['found']:,}")),
        )
        for row, other in zip(rows, unlabelled, strict=True)
    ]


def _events(number: float | None) -> str:
    return "–" if number is None else f"{short(number)} {'event' if number == 1 else 'events'}"


def sentences(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield sentences on the incidents at the configured budget, the faults, the rows and the run."""
    incidents, faults, rows = result["incidents"], result["segments"], result["by_row"]
    opened = f"Incidents opened: {incidents['opened']:,}, {short(incidents['per_day'])} a day"
    parts = (", ".join(_named(incidents[name])) for name in ("kinds", "severities", "reasons"))
    yield f"{opened}: {'; '.join(parts)}." if incidents["opened"] else "Incidents opened: none."
    delay = faults["delay_events_median"]
    late = _half_within(faults["detected"], delay)
    yield f"Faults found: {faults['detected']:,} of {faults['total']:,}{late}."
    yield (
        f"Rows that alarm: precision {percent(rows['precision'])}, recall {percent(rows['recall'])};"
        f" {percent(rows['false_alarm_rate'])} of the normal rows."
    )
    yield f"{short(result['events_per_second'])} events a second; {count(result['labels']['given'], 'label')} arrived."


def _named(counts: Mapping[str, int]) -> list[str]:
    return [f"{number:,} {name.replace('_', ' ')}" for name, number in counts.items() if number]


def _half_within(detected: int, median: float | None) -> str:
    """Say how soon faults were found; there is no half of a single fault."""
    if median is None:
        return ""
    within = f"within {count(int(median) + 1, 'event')} of"
    return f", half of them {within} their beginning" if detected > 1 else f", {within} its beginning"


def heading(result: Mapping[str, Any]) -> str:
    """Return a sentence on the rows and the protocol."""
    protocol = result["protocol"]
    targets = "segments, as intervals" if protocol["intervals"] else "rows"
    return (
        f"{', '.join(result['files'])}: {count(result['rows'], 'row')} of {count(len(result['sensors']), 'sensor')},"
        f" {result['evaluated']:,} evaluated, {result['anomalies']:,} of them anomalies."
        f" Labels on {percent(protocol['label_coverage'])} of the labelled {targets},"
        f" {protocol['label_delay']} late."
    )
