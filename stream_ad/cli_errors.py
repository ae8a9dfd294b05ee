"""How the command line ends: exit codes, and errors as a sentence instead of a traceback."""

from __future__ import annotations

import logging
import os
import traceback
from typing import TYPE_CHECKING

import typer

from stream_ad.errors import StreamADError

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    INTERRUPTED: "interrupted from the keyboard (`run` finishes its work instead, and exits with 0)",
}
"""A test holds it to the tree of stream_ad.errors; --help and the documentation are made from it."""


def end(error: Exception, arguments: Sequence[str]) -> SystemExit:
    """Tell the operator what went wrong; what to raise then."""
    if isinstance(error, StreamADError):
        _say(error.what, error.hint)
        return SystemExit(error.exit_code)
    log = logging.getLogger("stream_ad")
    if "--debug" in arguments:
        traceback.print_exception(error)
    elif log.hasHandlers():  # a worker's log keeps the traceback for whoever looks later
        log.critical("unexpected failure", exc_info=error)
    again = f"`stream-ad --debug {' '.join(arguments)}`"
    _say(
        f"Unexpected failure: {type(error).__name__}: {error}",
        "This is a defect of stream-ad. Please report it to the project with the traceback"
        + ("." if "--debug" in arguments else f", which {again} shows."),
    )
    return SystemExit(StreamADError.exit_code)


def _say(what: str, hint: str) -> None:
    """On standard error: what happened, and below it what to do."""
    colour = False if "NO_COLOR" in os.environ else None  # None: only on a terminal
    typer.secho("error: ", fg="red", bold=True, nl=False, err=True, color=colour)
    typer.echo(what, err=True)
    if hint:
        typer.echo(f"  {hint}", err=True)
