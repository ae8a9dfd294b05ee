"""What ``stream-ad backtest`` does, from files to figures, JSON and report; the command line only names its options."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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
    """What is to be done."""

    paths: Sequence[Path]
    protocol: Protocol
    columns: Mapping[str, str] = field(default_factory=dict)
    """Names of the columns in the files where they are not the usual ones."""
    warmup: int | None = None
    """First rows of each sensor that are not judged; None: as the files say."""
    against: Sequence[str] = ()
    """Baselines by name, as ``baselines.check`` lets them pass."""
    json_out: Path | None = None
    report_out: Path | None = None


def backtest(
    settings: Settings,
    order: BacktestRequest,
    *,
    progress: Callable[[int, int], None] | None = None,
    stop: Stop | None = None,
) -> dict[str, Any]:
    """Read recordings, run the backtest, write what was asked for; returns the figures.

    Args:
        settings: Of the detector and of incidents; brokers and topics play no part.
        order: See there.
        progress: Called with the rows done and the rows there are.
        stop: Ends it early, with what there is so far.

    Raises:
        DeviceError: The device asked for is not there, or does not compute what the processor does.
        InputFileError: A file cannot be read, breaks the form, or cannot be written.
    """
    outputs = [path for path in (order.json_out, order.report_out) if path is not None]
    for path in outputs:
        if not path.parent.is_dir() or path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise _unwritable(path, "no such folder, or no permission")  # better now than after an hour
    if fault := passed_over(settings.detector.device):
        _say(f"Warning: {fault}.")
    choose_device(settings.detector.device)
    prepare_process(progress_report(_say))  # as the worker does: the same sums, the same scores
    stream = Stream(
        [read_recording(path, order.columns) for path in order.paths],
        warmup=order.warmup,
        default_warmup=settings.learning.warmup_events,
    )
    run = run_backtest(
        stream,
        settings,
        order.protocol,
        against=order.against,
        quiet_events=settings.incidents.quiet_events,
        progress=progress,
        stop=stop,
    )
    shown = {"detector", "learning", "threshold", "drift", "incidents"}
    found = results(run, settings=settings.model_dump(mode="json", include=shown))
    if order.json_out is not None:
        _write(order.json_out, json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    if order.report_out is not None:
        _write(order.report_out, report_html(run, found))
    return found


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error


def _unwritable(path: Path, why: str) -> InputFileError:
    return InputFileError(f"{path}: cannot be written: {why}.", hint="Name a file in a folder that you may write to.")


def comparison(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows of a table: who, both areas, both pooled."""
    lines = [("stream-ad", found)]
    if found["without_labels"]:
        lines.append(("without verdicts", found["without_labels"]))
    lines += [(TITLES[name], one) for name, one in found["against"].items()]
    return [
        (title, *(figure(area) for area in (one["roc_auc"], one["average_precision"], *one["micro"].values())))
        for title, one in lines
    ]


def sentences(found: Mapping[str, Any]) -> Iterator[str]:
    """What happened at the threshold, and how it went, in words."""
    at, faults = found["at_threshold"], found["segments"]
    yield (
        f"At a score of 1: precision {percent(at['precision'])}, recall {percent(at['recall'])};"
        f" {percent(at['false_alarm_rate'])} of the normal rows flagged"
        f" ({percent(found['settings']['threshold']['false_alarm_rate'])} tolerated);"
        f" {short(at['alarms_per_day'])} alarms a day."
    )
    delay = faults["delay_events_median"]
    late = "" if delay is None else f", half of them within {count(int(delay) + 1, 'event')} of their beginning"
    yield f"Faults noticed: {faults['detected']:,} of {faults['total']:,}{late}."
    yield f"{short(found['events_per_second'])} events a second; {found['verdicts']['given']:,} verdicts arrived."


def heading(found: Mapping[str, Any]) -> str:
    """What was judged, and under which protocol."""
    protocol = found["protocol"]
    targets = "segments, as intervals" if protocol["intervals"] else "rows"
    return (
        f"{', '.join(found['files'])}: {count(found['rows'], 'row')} of {count(len(found['sensors']), 'sensor')},"
        f" {found['evaluated']:,} judged, {found['anomalies']:,} of them anomalies."
        f" Verdicts on {percent(protocol['label_coverage'])} of the labelled {targets},"
        f" {protocol['label_delay']} late."
    )
