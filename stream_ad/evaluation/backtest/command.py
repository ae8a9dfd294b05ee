"""Run ``stream-ad backtest``, from files to figures, JSON and report; ``stream_ad.cli`` parses the options."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stream_ad.detector.scoring.threshold import ROW_RATE
from stream_ad.errors import InputFileError
from stream_ad.evaluation.backtest.baselines import TITLES
from stream_ad.evaluation.backtest.formatting import count, figure, percent, short
from stream_ad.evaluation.backtest.results import results
from stream_ad.evaluation.backtest.runner import run_backtest
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
        progress=progress,
        stop=stop,
    )
    shown = {"detector", "learning", "threshold", "alarms", "drift", "incidents"}
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


def sentences(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield sentences on the threshold, the faults and the run."""
    at, faults = result["at_threshold"], result["segments"]
    yield (
        f"At a score of 1: precision {percent(at['precision'])}, recall {percent(at['recall'])};"
        f" {percent(at['false_alarm_rate'])} of the normal rows flagged"
        f" ({percent(ROW_RATE)} tolerated);"
        f" {short(at['alarms_per_day'])} alarms a day."
    )
    delay = faults["delay_events_median"]
    late = _half_within(faults["detected"], delay)
    yield f"Faults noticed: {faults['detected']:,} of {faults['total']:,}{late}."
    yield f"{short(result['events_per_second'])} events a second; {count(result['labels']['given'], 'label')} arrived."


def _half_within(detected: int, median: float | None) -> str:
    """Say how soon faults were noticed; there is no half of a single fault."""
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
