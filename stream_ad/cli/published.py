"""``incidents`` and ``scores``: show what workers have published."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from stream_ad.cli.options import ConfigFile, Overrides, read_settings

NEWEST_SCORES = 20

Sensors = Annotated[
    list[str] | None,
    typer.Option(
        "--sensor", metavar="PATTERN", help="Only sensors whose id fits, such as pump-7 or 'press-*'; repeatable."
    ),
]
Since = Annotated[
    str | None,
    typer.Option(
        metavar="TIME", help="Only records of this time or later: 2026-11-30T01:00:00Z, or 2h for two hours ago."
    ),
]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is published from now on, until Ctrl-C.")]
JsonLines = Annotated[bool, typer.Option("--json", help="Print the messages themselves, one JSON object per line.")]


def incidents(
    config_file: ConfigFile = None,
    overrides: Overrides = None,
    *,
    sensors: Sensors = None,
    since: Since = None,
    only_open: Annotated[bool, typer.Option("--open", help="Only open incidents.")] = False,
    last: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the newest N.")] = None,
    follow: Follow = False,
    as_json: JsonLines = False,
) -> None:
    """List incidents in their latest state, the newest last.

    Shows the features that contributed most, with value and expected value, and the class that is suspected most.
    With --follow every further change is a line.
    """
    since_ms = _since_ms(since)
    settings = read_settings(config_file, overrides)
    from stream_ad.cli.output_listing import Selection, list_incidents

    selection = Selection(tuple(sensors or ()), since_ms, last, only_open=only_open, follow=follow, as_json=as_json)
    list_incidents(settings, selection)


def scores(
    config_file: ConfigFile = None,
    overrides: Overrides = None,
    *,
    sensors: Sensors = None,
    since: Since = None,
    last: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            show_default=False,
            help=f"Only the newest N. Default: {NEWEST_SCORES}, or with --since all.",
        ),
    ] = None,
    follow: Follow = False,
    as_json: JsonLines = False,
) -> None:
    """List scores, the newest last.

    Scores of one sensor are always in order; those of several sensors may mix where there are very many.
    """
    since_ms = _since_ms(since)
    settings = read_settings(config_file, overrides)
    from stream_ad.cli.output_listing import Selection, list_scores

    newest = NEWEST_SCORES if last is None and since is None else last
    list_scores(settings, Selection(tuple(sensors or ()), since_ms, newest, follow=follow, as_json=as_json))


def _since_ms(text: str | None) -> int:
    """Return milliseconds since the epoch; 0, the beginning, without a text."""
    if text is None:
        return 0
    from stream_ad.codec.timestamps import UNIT_NS, parse_rfc3339
    from stream_ad.evaluation.backtest.label_schedule import parse_delay

    time_ns = int(parse_rfc3339([text])[0])
    if time_ns < 0:
        try:
            ago_ns = parse_delay(text).duration_ns
        except ValueError:
            ago_ns = None
        if ago_ns is None:
            raise typer.BadParameter(
                f'"{text}" is neither a time with an offset such as 2026-11-30T01:00:00Z nor a duration such as 2h',
                param_hint="--since",
            )
        time_ns = max(0, time.time_ns() - ago_ns)
    return time_ns // UNIT_NS["ms"]
