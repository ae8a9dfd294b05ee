"""``backtest``: measure how good the detector would have been on recorded readings."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path  # noqa: TC003 -- typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from stream_ad.cli.exit_codes import INTERRUPTED
from stream_ad.cli.options import ConfigFile, Overrides, print_table, read_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stream_ad.evaluation.backtest.label_schedule import Delay

_CLOSING_S = 600.0
"""Longest time that figures and report may take after Ctrl-C."""


def backtest(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE", help="CSV (also .gz) or Parquet: timestamp, sensor_id, label, evaluate, features."
        ),
    ],
    config_file: ConfigFile = None,
    overrides: Overrides = None,
    *,
    label_delay: Annotated[
        str,
        typer.Option(
            metavar="DELAY", help="When a row's label arrives: after events of its sensor (500) or event time (2h)."
        ),
    ] = "500",
    label_coverage: Annotated[
        float,
        typer.Option(metavar="SHARE", min=0.0, max=1.0, help="Share of labelled rows whose label arrives at all."),
    ] = 1.0,
    intervals: Annotated[
        bool, typer.Option("--intervals", help="One label per run of equal labels, at its end.")
    ] = False,
    warmup: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            show_default=False,
            help="First rows of each sensor that are not evaluated. Default: the column evaluate, or else the"
            " detector's warm-up.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", min=0, show_default=False, help="Seed of models, baselines and coverage.")
    ] = None,
    shared: Annotated[
        bool | None,
        typer.Option("--shared/--per-sensor", show_default=False, help="One model for all sensors, or one model each."),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Baselines on the same rows: hst,iforest,zscore.")
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="NAME=COLUMN", help="Column of the file, such as timestamp=ts; repeatable."),
    ] = None,
    json_out: Annotated[Path | None, typer.Option("--json", metavar="OUT", help="Write all figures as JSON.")] = None,
    report: Annotated[Path | None, typer.Option(metavar="OUT.html", help="Write a report as one HTML page.")] = None,
) -> None:
    """Measure detection quality on recorded readings.

    Replays files through the code that runs in production: every row is scored before anything is learned from it,
    and labels arrive late. Ctrl-C ends it early and prints the figures so far.
    """
    delay, mapped, names = _delay(label_delay), _mapping(columns or ()), _names(against)
    chosen = list(overrides or ())
    if seed is not None:
        chosen.append(f"detector.seed={seed}")
    if shared is not None:
        chosen.append(f"detector.models={'shared' if shared else 'per-sensor'}")
    settings = read_settings(config_file, chosen)
    from stream_ad.evaluation.backtest import command
    from stream_ad.evaluation.backtest.label_schedule import Protocol
    from stream_ad.util.signals import stop_on_signals

    protocol = Protocol(delay=delay, coverage=label_coverage, intervals=intervals, seed=settings.detector.seed)
    request = command.BacktestRequest(
        paths=files,
        protocol=protocol,
        columns=mapped,
        warmup=warmup,
        against=names,
        json_out=json_out,
        report_out=report,
    )
    with stop_on_signals(_CLOSING_S) as stop, _bar() as progress:
        result = command.backtest(settings, request, progress=progress, stop=stop)
    typer.echo(command.heading(result))
    if not result["complete"]:
        typer.echo("Interrupted: these figures cover the rows done so far.")
    typer.echo()
    print_table(("", "ROC AUC", "AVERAGE PRECISION", "POOLED: AUC", "AP"), command.comparison(result))
    typer.echo()
    print_table(command.BUDGETS_HEADER, command.budgets(result))
    typer.echo()
    for sentence in command.sentences(result):
        typer.echo(sentence)
    for path in (json_out, report):
        if path is not None:
            typer.echo(f"Written: {path}")
    if not result["complete"]:
        raise typer.Exit(INTERRUPTED)


def _delay(text: str) -> Delay:
    from stream_ad.evaluation.backtest.label_schedule import parse_delay

    try:
        return parse_delay(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--label-delay") from error


def _mapping(texts: Sequence[str]) -> dict[str, str]:
    from stream_ad.evaluation.recordings.recording import parse_columns

    try:
        return parse_columns(texts)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--map") from error


def _names(text: str | None) -> list[str]:
    from stream_ad.evaluation.backtest.baselines import check

    names = list(dict.fromkeys(name.strip() for name in (text or "").split(",") if name.strip()))
    try:
        check(names)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--against") from error
    return names


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None] | None]:
    """Yield a function that updates a progress bar on standard error, or None where that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=None, rate="")

        def show(done: int, rows: int) -> None:
            speed = bar.tasks[task].speed
            bar.update(task, completed=done, total=rows, rate=f"{speed:,.0f} rows/s" if speed else "")

        yield show
