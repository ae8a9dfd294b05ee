"""Commands that produce a stream: replay, simulate, demo."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path  # noqa: TC003 -- typer reads the annotations
from typing import Annotated, TypeVar

import typer

from stream_ad.cli.exit_codes import INTERRUPTED
from stream_ad.cli.options import AsJson, ConfigFile, Overrides, print_json, progress, read_settings

Value = TypeVar("Value")

Speed = Annotated[
    str,
    typer.Option(
        metavar="SPEED",
        help="Event time per wall-clock time: 1x is real time, 60x a minute in a second, max as fast as possible.",
    ),
]


class LabelForm(StrEnum):
    """What a simulated label is about."""

    events = "events"
    intervals = "intervals"


def replay(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="CSV (also .gz): timestamp, sensor_id, label, evaluate, features.")
    ],
    config_file: ConfigFile = None,
    overrides: Overrides = None,
    *,
    label_delay: Annotated[
        int, typer.Option(metavar="N", min=0, help="Rows of its sensor after which a row's label is written.")
    ] = 500,
    speed: Speed = "max",
    as_json: AsJson = False,
) -> None:
    """Write recorded readings and late labels into the topics.

    A row's label is written once N more rows of its sensor have been written.
    """
    factor = _factor(speed)
    settings = read_settings(config_file, overrides)
    from stream_ad.evaluation.simulation.replay import replay as run_replay
    from stream_ad.util.signals import stop_on_signals

    with (
        stop_on_signals(settings.worker.drain_timeout_seconds) as stop,
        progress(lambda done, rows: f"{done:,} of {rows:,} rows") as show,
    ):
        summary = run_replay(settings, file, label_delay=label_delay, speed=factor, progress=show, stop=stop)
    if as_json:
        print_json(asdict(summary))
    else:
        typer.echo(f"{summary.events:,} events and {summary.labels:,} labels written in {summary.seconds:.1f} s.")
    if stop.is_set():
        raise typer.Exit(INTERRUPTED)


def simulate(
    config_file: ConfigFile = None,
    overrides: Overrides = None,
    *,
    machines: Annotated[int, typer.Option(metavar="N", min=1, help="Machines of the plant.")] = 12,
    interval: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.001, help="Event time between two readings of a machine.")
    ] = 10.0,
    label_form: Annotated[
        LabelForm, typer.Option(metavar="events|intervals", help="Labels on single events, or on whole episodes.")
    ] = LabelForm.events,
    label_delay: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.0, help="Mean event time until a label arrives.")
    ] = 1800.0,
    verdicts: Annotated[LabelForm | None, typer.Option(hidden=True)] = None,
    verdict_delay: Annotated[float | None, typer.Option(hidden=True, min=0.0)] = None,
    speed: Speed = "1x",
    seconds: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0.0, help="Wall-clock time to run; without it, until SIGINT or SIGTERM."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="The same seed gives the same plant and faults.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Write a simulated plant and late labels into the topics.

    Its machines have load, temperature, vibration and more, and faults that come and go.
    """
    factor = _factor(speed)
    if verdicts is not None:
        label_form = _renamed("--verdicts", "--label-form", verdicts)
    if verdict_delay is not None:
        label_delay = _renamed("--verdict-delay", "--label-delay", verdict_delay)
    settings = read_settings(config_file, overrides)
    from stream_ad.evaluation.simulation.annotator import AnnotatorConfig
    from stream_ad.evaluation.simulation.plant import PlantConfig
    from stream_ad.evaluation.simulation.simulate import simulate as run_simulation
    from stream_ad.util.signals import stop_on_signals

    with (
        stop_on_signals(settings.worker.drain_timeout_seconds) as stop,
        progress(lambda events, labels: f"{events:,} events, {labels:,} labels") as show,
    ):
        summary = run_simulation(
            settings,
            PlantConfig(machines=machines, seed=seed, interval_s=interval),
            AnnotatorConfig(form=label_form.value, delay_s=label_delay, seed=seed),
            speed=factor,
            seconds=seconds,
            progress=show,
            stop=stop,
        )
    if as_json:
        print_json(asdict(summary))
    else:
        typer.echo(
            f"{summary.events:,} events and {summary.labels:,} labels written in {summary.seconds:.1f} s,"
            f" {summary.faults:,} faults among them."
        )


def demo(
    seconds: Annotated[float, typer.Option(metavar="SECONDS", min=1.0, help="Wall-clock time to run.")] = 60.0,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="The same seed gives the same plant and faults.")] = 0,
) -> None:
    """Watch late labels find more faults of a plant, at the same budget of false incidents.

    Two workers on a temporary embedded broker watch the same machines; one of them gets labels.
    """
    from stream_ad.demo import demo as run_demo

    run_demo(seconds=seconds, seed=seed)


def _renamed(old: str, new: str, value: Value) -> Value:
    """Warn on standard error that an option was given under its old name, and return its value."""
    typer.echo(f"warning: {old} is now {new}; the old name will go with version 1.0.", err=True)
    return value


def _factor(speed: str) -> float:
    from stream_ad.evaluation.simulation.pacing import parse_speed

    try:
        return parse_speed(speed)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--speed") from error
