"""The command ``doctor``."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from stream_ad.cli.exit_codes import UNWELL
from stream_ad.cli.options import AsJson, ConfigFile, Overrides, print_json
from stream_ad.util.findings import Level

if TYPE_CHECKING:
    from stream_ad.util.findings import Finding

_SHOWN = {Level.OK: ("ok", "green"), Level.WARNING: ("look", "yellow"), Level.PROBLEM: ("WRONG", "bold red")}


def doctor(config_file: ConfigFile = None, overrides: Overrides = None, *, as_json: AsJson = False) -> None:
    """Look at everything that a worker will need; change nothing.

    Each finding comes with what to do about it. Ends with 8 when something is wrong, with 0 when nothing is, even if
    something is worth a look.
    """
    from stream_ad.diagnostics.doctor import diagnose

    found = list(diagnose(config_file, overrides or ()))
    counts = Counter(one.level for one in found)
    if as_json:
        counted = {level.value: counts[level] for level in Level}
        print_json({"well": not counts[Level.PROBLEM], "counts": counted, "findings": [asdict(one) for one in found]})
    else:
        _print(found)
        typer.echo(_summary(counts))
    if counts[Level.PROBLEM]:
        raise typer.Exit(UNWELL)


def _print(found: list[Finding]) -> None:
    if not sys.stdout.isatty():
        for one in found:
            typer.echo(f"{_SHOWN[one.level][0]:<7}{one.check:<12}{one.what}")
            if one.remediation:
                typer.echo(f"{'':<19}→ {one.remediation}")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column()
    table.add_column(overflow="fold")  # a long path breaks in the middle; nothing is left out
    for one in found:
        word, style = _SHOWN[one.level]
        text = Text(one.what)
        if one.remediation:
            text.append(f"\n→ {one.remediation}", style="bold")
        table.add_row(Text(word, style=style), Text(one.check, style="" if one.remediation else "dim"), text)
    Console(highlight=False).print(table)


def _summary(counts: Counter[Level]) -> str:
    wrong, look = counts[Level.PROBLEM], counts[Level.WARNING]
    if not wrong and not look:
        return "\nAll is well."
    return f"\nWrong: {wrong}. Worth a look: {look}."
