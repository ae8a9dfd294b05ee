"""What the commands of the command line share: options, settings, output."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stream_ad.settings import Settings

_UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__base__)  # of click, or of typer's copy of it

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", envvar="STREAM_AD_CONFIG", help="Settings as a YAML file."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="One setting, such as broker.kind=kafka; may be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Group(TyperGroup):
    """Commands; what is none of them is answered with what was meant: a command, or an option that says the same."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except _UsageError as error:
            from stream_ad.settings.keys import closest

            options = [name for option in self.get_params(ctx) for name in option.opts if name.startswith("--")]
            known = {name.removeprefix("--"): name for name in (*options, *self.commands)}
            if (meant := closest(args[0], known)) is not None:
                error.message = f"{error.message.rstrip('.')}. Did you mean '{known[meant]}'?"
            raise


def read_settings(config_file: Path | None, overrides: Sequence[str] | None) -> Settings:
    """All sources of settings, as the options name them."""
    from stream_ad.settings.loader import load_settings

    return load_settings(config_file, overrides or ())


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def thousands(number: int) -> str:
    return f"{number:,}"


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, *rows):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@contextmanager
def progress(describe: Callable[[int, int], str]) -> Iterator[Callable[[int, int], None] | None]:
    """Something to call with two numbers, shown on standard error; None where no person watches."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    with Console(stderr=True).status("…") as status:
        yield lambda first, second: status.update(describe(first, second))
