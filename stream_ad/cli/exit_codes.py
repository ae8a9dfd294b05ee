"""How the command line ends: exit codes, and errors as a sentence instead of a traceback."""

from __future__ import annotations

import logging
import os
import traceback
from typing import TYPE_CHECKING

import typer

from stream_ad.errors import ScarceMemoryError, StreamADError

if TYPE_CHECKING:
    from collections.abc import Sequence

UNWELL = 8
INTERRUPTED = 130
EXIT_CODES = {
    0: "done",
    1: "failed in a way nobody foresaw; `health`: the worker is not well; or nobody read the output to its end",
    2: "the command line is wrong",
    3: "a setting is unknown, missing or contradicts another",
    4: "the broker cannot be reached or refuses, or a topic does not fit",
    5: "a file given on the command line cannot be used",
    6: "saved state is damaged or does not fit",
    7: "the device asked for is not there",
    UNWELL: "`doctor` found something that is wrong",
    ScarceMemoryError.exit_code: "there is too little memory",
    INTERRUPTED: "interrupted from the keyboard (`run` finishes its work instead, and exits with 0)",
}
"""A test holds it to the tree of stream_ad.errors; --help and the documentation are made from it."""


def end(error: Exception, arguments: Sequence[str]) -> SystemExit:
    """Tell the operator what went wrong; what to raise then."""
    if isinstance(error, MemoryError):
        error = ScarceMemoryError("There is too little memory.", hint="Give the process more; no data is lost.")
    foreseen = error if isinstance(error, StreamADError) else None
    what, hint = (foreseen.what, foreseen.hint) if foreseen else _unexpected(error, arguments)
    log = logging.getLogger("stream_ad")
    if log.hasHandlers():  # a worker speaks through its log, which may be read by machines
        log.critical("%s %s", what, hint, exc_info=None if foreseen else error)
    else:
        if foreseen is None and "--debug" in arguments:
            traceback.print_exception(error)
        _say(what, hint)
    return SystemExit((foreseen or StreamADError).exit_code)


def _unexpected(error: Exception, arguments: Sequence[str]) -> tuple[str, str]:
    report = "This is a defect of stream-ad. Please report it to the project with the traceback"
    again = f"; `stream-ad --debug {' '.join(arguments)}` shows it."
    return f"Unexpected failure: {type(error).__name__}: {error}", report + ("." if "--debug" in arguments else again)


def _say(what: str, hint: str) -> None:
    """On standard error: what happened, and below it what to do."""
    colour = False if "NO_COLOR" in os.environ else None  # None: only on a terminal
    typer.secho("error: ", fg="red", bold=True, nl=False, err=True, color=colour)
    typer.echo(what, err=True)
    if hint:
        typer.echo(f"  {hint}", err=True)
