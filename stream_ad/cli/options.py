"""What the commands share: options, settings, output."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream_ad.cli.help import INPUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stream_ad.settings import Settings


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        envvar="STREAM_AD_CONFIG",
        show_envvar=True,
        rich_help_panel=INPUT,
        help="Settings as a YAML file.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        rich_help_panel=INPUT,
        help="One setting, such as broker.kind=kafka; repeatable.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def read_settings(config_file: Path | None, overrides: Sequence[str] | None) -> Settings:
    """Read all sources of settings, as the options name them."""
    from stream_ad.settings.loader import load_settings

    return load_settings(config_file, overrides or ())


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def thousands(number: int) -> str:
    """Return a number with separators between the thousands."""
    return f"{number:,}"


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: with lines on a terminal, as plain columns elsewhere, so that programs can read it."""
    if sys.stdout.isatty():
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table

        table = Table(*header, box=SIMPLE_HEAD, pad_edge=False)
        for column in table.columns:
            column.overflow = "fold"  # a narrow terminal breaks a cell; nothing is cut off
        for row in rows:
            table.add_row(*row)
        Console(highlight=False, markup=False).print(table)
        return
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, *rows):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@contextmanager
def progress(describe: Callable[[int, int], str]) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a function that shows progress in two numbers on standard error, or None where that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    with Console(stderr=True).status("…") as status:
        yield lambda first, second: status.update(describe(first, second))
