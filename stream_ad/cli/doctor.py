"""``doctor``: check everything that a worker needs."""

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

_SHOWN = {Level.OK: ("ok", "green"), Level.WARNING: ("warn", "yellow"), Level.PROBLEM: ("FAIL", "bold red")}
"""Word and style of each level."""


def doctor(config_file: ConfigFile = None, overrides: Overrides = None, *, as_json: AsJson = False) -> None:
    """Check everything that a worker needs; change nothing.

    Each warning and failure comes with what to do about it. Exits with 8 when a check fails, otherwise with 0, even
    if there are warnings.
    """
    from stream_ad.diagnostics.doctor import diagnose

    findings = list(diagnose(config_file, overrides or ()))
    counts = Counter(finding.level for finding in findings)
    if as_json:
        counted = {level.value: counts[level] for level in Level}
        listed = [_as_json(finding) for finding in findings]
        print_json({"well": not counts[Level.PROBLEM], "counts": counted, "findings": listed})
    else:
        _print(findings)
        typer.echo(_summary(counts))
    if counts[Level.PROBLEM]:
        raise typer.Exit(UNWELL)


def _as_json(finding: Finding) -> dict[str, str]:
    """Return a finding as `--json` prints it; what to do is called ``mend`` there."""
    return {"mend" if name == "remediation" else name: text for name, text in asdict(finding).items()}


def _print(findings: list[Finding]) -> None:
    if not sys.stdout.isatty():
        for finding in findings:
            typer.echo(f"{_SHOWN[finding.level][0]:<6}{finding.check:<12}{finding.what}")
            if finding.remediation:
                typer.echo(f"{'':<18}→ {finding.remediation}")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column()
    table.add_column(overflow="fold")  # a long path breaks in the middle; nothing is cut off
    for finding in findings:
        word, style = _SHOWN[finding.level]
        text = Text(finding.what)
        if finding.remediation:
            text.append(f"\n→ {finding.remediation}", style="bold")
        table.add_row(Text(word, style=style), Text(finding.check, style="" if finding.remediation else "dim"), text)
    Console(highlight=False).print(table)


def _summary(counts: Counter[Level]) -> str:
    failures, warnings = counts[Level.PROBLEM], counts[Level.WARNING]
    if not failures and not warnings:
        return "\nAll checks passed."
    return f"\nFailures: {failures}. Warnings: {warnings}."
