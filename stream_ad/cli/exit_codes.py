"""Exit codes of the command line, and errors as a sentence instead of a traceback."""

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
    1: "unexpected error; `health`: the worker is not ready; or the reader of the output left early",
    2: "the command line is wrong",
    3: "a setting is unknown, missing or contradicts another",
    4: "the broker cannot be reached or refuses, or a topic does not fit",
    5: "a file given on the command line cannot be used",
    6: "saved state is damaged or does not fit",
    7: "the device asked for is not available, or computes wrongly",
    UNWELL: "a check of `doctor` failed",
    ScarceMemoryError.exit_code: "there is too little memory",
    INTERRUPTED: "interrupted from the keyboard (`run` finishes its work instead, and exits with 0; so does --follow)",
}
"""Checked by a test against stream_ad.errors; --help and the documentation are made from it."""


def end(error: Exception, arguments: Sequence[str]) -> SystemExit:
    """Tell the operator what went wrong, and return what to raise then."""
    if isinstance(error, MemoryError):
        error = ScarceMemoryError("There is too little memory.", hint="Give the process more memory; no data is lost.")
    expected = error if isinstance(error, StreamADError) else None
    what, hint = (expected.what, expected.hint) if expected else _unexpected(error, arguments)
    log = logging.getLogger("stream_ad")
    if log.hasHandlers():  # a worker reports through its log, which machines may read
        log.critical("%s %s", what, hint, exc_info=None if expected else error)
    else:
        if expected is None and "--debug" in arguments:
            traceback.print_exception(error)
        _say(what, hint)
    return SystemExit((expected or StreamADError).exit_code)


def _unexpected(error: Exception, arguments: Sequence[str]) -> tuple[str, str]:
    report = "This is a defect of stream-ad. Please report it to the project with the traceback"
    again = f"; `stream-ad --debug {' '.join(arguments)}` shows it."
    return f"Unexpected failure: {type(error).__name__}: {error}", report + ("." if "--debug" in arguments else again)


def _say(what: str, hint: str) -> None:
    """Print what happened, and below it what to do, on standard error."""
    colour = False if "NO_COLOR" in os.environ else None  # None: only on a terminal
    typer.secho("error: ", fg="red", bold=True, nl=False, err=True, color=colour)
    typer.echo(what, err=True)
    if hint:
        typer.echo(f"  {hint}", err=True)
