"""The command line: one thin function per command; nothing heavy is imported before a command runs.

Settings are read first, so that a wrong one is reported before the heavy parts are loaded.
"""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from stream_ad import __version__
from stream_ad.cli.backtest import backtest
from stream_ad.cli.doctor import doctor
from stream_ad.cli.exit_codes import EXIT_CODES, end
from stream_ad.cli.help import PlainCommand, PlainGroup, example
from stream_ad.cli.options import AsJson, ConfigFile, Overrides, print_json, print_table, read_settings
from stream_ad.cli.published import incidents, scores
from stream_ad.cli.snapshots import snapshots
from stream_ad.cli.streams import demo, replay, simulate
from stream_ad.errors import TopicError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stream_ad.brokers.tools_api import TopicPlan

EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:<4} {meaning}" for code, meaning in EXIT_CODES.items())

DETECT, TRY_OUT, OPERATE = "Detect", "Try out", "Operate"

app = typer.Typer(
    cls=PlainGroup,
    suggest_commands=False,  # PlainGroup does
    rich_markup_mode=None,  # plain text, the same on a terminal and in a pipe
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=EPILOG,
)
topics = typer.Typer(
    cls=PlainGroup,
    suggest_commands=False,
    rich_markup_mode=None,
    help="Show or create the topics that the settings name.",
    no_args_is_help=True,
)
config = typer.Typer(
    cls=PlainGroup,
    suggest_commands=False,
    rich_markup_mode=None,
    help="Show or check the settings.",
    no_args_is_help=True,
)


def main() -> None:
    """Run the console script."""
    try:
        app(prog_name="stream-ad")
    except Exception as error:  # noqa: BLE001 -- the last chance to turn it into a sentence
        raise end(error, sys.argv[1:]) from None


@app.callback(invoke_without_command=True)
def _program(
    context: typer.Context,
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an unexpected failure.")] = False,  # noqa: ARG001 -- read in exit_codes, which sees failures of the command line itself too
) -> None:
    """Streaming anomaly detection that learns from delayed labels."""
    if version:
        typer.echo(f"stream-ad {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(
    cls=PlainCommand, rich_help_panel=DETECT, epilog=example("run --config stream-ad.yaml", "run --until-idle 2")
)
def run(
    config_file: ConfigFile = None,
    overrides: Overrides = None,
    until_idle: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0.0, help="Exit with code 0 once no record has arrived for this long."),
    ] = None,
) -> None:
    """Score readings and learn from labels until stopped.

    On SIGTERM or SIGINT the worker finishes its step, saves snapshots and exits with 0.
    """
    settings = read_settings(config_file, overrides)
    from stream_ad.worker.worker import Worker

    Worker(settings).run(until_idle_s=until_idle)


app.command(
    cls=PlainCommand,
    rich_help_panel=DETECT,
    epilog=example("incidents --open", "incidents --follow --sensor 'press-*'"),
)(incidents)
app.command(cls=PlainCommand, rich_help_panel=DETECT, epilog=example("scores --sensor pump-7 --since 2h --json"))(
    scores
)
app.command(
    cls=PlainCommand,
    rich_help_panel=DETECT,
    epilog=example("backtest history.csv.gz --label-delay 2h --report history.html"),
)(backtest)
app.command(cls=PlainCommand, rich_help_panel=TRY_OUT, epilog=example("demo --seconds 30"))(demo)
app.command(
    cls=PlainCommand, rich_help_panel=TRY_OUT, epilog=example("simulate --machines 4 --speed max --seconds 10")
)(simulate)
app.command(cls=PlainCommand, rich_help_panel=TRY_OUT, epilog=example("replay history.csv --speed 60x"))(replay)
app.command(cls=PlainCommand, rich_help_panel=OPERATE, epilog=example("doctor --config stream-ad.yaml"))(doctor)


@app.command(cls=PlainCommand, rich_help_panel=OPERATE, epilog=example("health --live --timeout 1"))
def health(
    config_file: ConfigFile = None,
    overrides: Overrides = None,
    *,
    live: Annotated[
        bool, typer.Option("--live", help="Ask whether it is alive (/livez) instead of ready (/readyz).")
    ] = False,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="Longest time to wait for the answer.")
    ] = 3.0,
) -> None:
    """Ask the worker on this machine whether it is ready.

    Exits with 0 when it is, and with 1 when it is not or when no worker answers.
    """
    settings = read_settings(config_file, overrides)
    from stream_ad.cli.health import ask

    typer.echo(ask(settings.http, "/livez" if live else "/readyz", timeout_s=timeout))


@topics.command(cls=PlainCommand, epilog=example("topics plan --config stream-ad.yaml"))
def plan(config_file: ConfigFile = None, overrides: Overrides = None, *, as_json: AsJson = False) -> None:
    """Show what `topics apply` would do; change nothing."""
    _topics(config_file, overrides, "plan", as_json=as_json)


@topics.command(cls=PlainCommand, epilog=example("topics apply --config stream-ad.yaml"))
def apply(config_file: ConfigFile = None, overrides: Overrides = None, *, as_json: AsJson = False) -> None:
    """Create missing topics; never change existing topics."""
    _topics(config_file, overrides, "apply", as_json=as_json)


def _topics(config_file: Path | None, overrides: Sequence[str] | None, action: str, *, as_json: bool) -> None:
    settings = read_settings(config_file, overrides)
    from stream_ad.brokers import open_admin

    with closing(open_admin(settings)) as admin:
        plans: list[TopicPlan] = getattr(admin, action)()
    if as_json:
        print_json([asdict(topic) for topic in plans])
    else:
        rows = [(topic.role, topic.topic, str(topic.partitions), _state(topic, action)) for topic in plans]
        print_table(("ROLE", "TOPIC", "PARTITIONS", "STATE"), rows)
        for note in dict.fromkeys(topic.note for topic in plans if topic.note):
            named = ", ".join(topic.topic for topic in plans if topic.note == note)
            typer.echo(f"{named}: {note}.")
    if unusable := [topic for topic in plans if topic.problem]:
        raise TopicError(
            f"Topic '{unusable[0].topic}' cannot be used: {unusable[0].problem}"
            + (f" ({len(unusable) - 1} more, see above)." if unusable[1:] else "."),
            hint="Name another topic, or change this topic by hand; stream-ad never changes existing topics.",
        )


def _state(topic: TopicPlan, action: str) -> str:
    if topic.problem:
        return topic.problem
    if topic.exists:
        return "exists"
    return "created" if action == "apply" else "missing, `topics apply` creates it"


@config.command(cls=PlainCommand, epilog=example("config show --set broker.kind=kafka"))
def show(config_file: ConfigFile = None, overrides: Overrides = None, *, as_json: AsJson = False) -> None:
    """Print the settings in force, secrets masked.

    A value that is not the default is followed by where it was set.
    """
    from stream_ad.settings.loader import resolve
    from stream_ad.settings.render import as_yaml

    resolved = resolve(config_file, overrides or ())
    if as_json:
        print_json(resolved.settings.model_dump(mode="json"))
    else:
        typer.echo(as_yaml(resolved), nl=False)


@config.command(cls=PlainCommand, epilog=example("config validate --config stream-ad.yaml"))
def validate(config_file: ConfigFile = None, overrides: Overrides = None, *, as_json: AsJson = False) -> None:
    """Check the settings and list everything that is wrong.

    Exits with 0 when the settings are valid, otherwise with 3.
    """
    from stream_ad.settings.loader import examine, settings_error

    _, problems = examine(config_file, overrides or ())
    if as_json:
        print_json({"valid": not problems, "problems": problems})
    if problems:
        raise settings_error(problems)
    if not as_json:
        typer.echo("The settings are valid.")


@config.command(cls=PlainCommand, epilog=example("config schema > stream-ad.schema.json"))
def schema() -> None:
    """Print the JSON Schema of the settings."""
    from stream_ad.settings import Settings

    print_json(Settings.model_json_schema())


app.add_typer(topics, name="topics", rich_help_panel=OPERATE)
app.add_typer(snapshots, name="snapshots", rich_help_panel=OPERATE)
app.add_typer(config, name="config", rich_help_panel=OPERATE)
