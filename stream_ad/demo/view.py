"""The demo's screen: machines, scores with and without verdicts, alarms, verdicts, and what they changed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rich import box
from rich.console import Group
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from stream_ad.demo.scene import INTERVAL_S, MACHINES, SIDES, WITH, WITHOUT
from stream_ad.evaluation.simulation.plant import CLEANING, FAULTS, NORMAL

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import Console, RenderableType

    from stream_ad.demo.feed import Feed
    from stream_ad.demo.tally import Figures, Tally

_BLOCKS = "▁▂▃▄▅▆▇█"
_BUCKET = 30
"""Readings of a machine behind one block of its line: half an hour."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What the screen needs beside the tally."""

    state: str
    share: float  # of the demo's time that is over
    rate: float  # events a second, scored by both
    importance: dict[str, float]
    figures: tuple[Figures, Figures]


def clock(row: float) -> str:
    """Plant time of a row: day and hour."""
    minutes = int(row // MACHINES * INTERVAL_S // 60)
    return f"d{minutes // 1440 + 1} {minutes % 1440 // 60:02d}:{minutes % 60:02d}"


def screen(console: Console, tally: Tally, feed: Feed, names: list[str], moment: Moment) -> RenderableType:
    """Everything, to fit the terminal."""
    tall = max(5, console.height - MACHINES - 6)
    width = max(10, min(40, (console.width - 40) // 2))
    story = Panel(_story(feed, names, tall - 2), title="alarms and verdicts", height=tall)
    changed = _changed(feed, moment)
    middle: RenderableType = story
    if console.width >= 110:
        panels = Table.grid(expand=True)
        panels.add_column(ratio=1)
        panels.add_column(width=60)
        panels.add_row(story, Panel(changed, title="what the verdicts changed", height=tall))
        middle = panels
    elif tall >= 20:
        story.height = tall - 10
        middle = Group(changed, story)
    return Group(
        _header(tally, moment), _machines(tally, names, width, roomy=console.width >= 72), middle, _footer(moment)
    )


def _header(tally: Tally, moment: Moment) -> RenderableType:
    grid = Table.grid(expand=True)
    grid.add_column()
    grid.add_column(justify="right")
    grid.add_row(
        Text.assemble(("stream-ad demo ", "bold"), (f" {moment.state}", "dim")),
        Text(f"plant time {clock(tally.both)}   {tally.both:,} readings   {moment.rate:,.0f}/s", style="dim"),
    )
    bar = Table.grid(expand=True)
    bar.add_row(ProgressBar(total=1.0, completed=moment.share))
    return Group(grid, bar)


def _machines(tally: Tally, names: list[str], width: int, *, roomy: bool) -> Table:
    table = Table(box=None, expand=True, padding=(0, 1), header_style="dim")
    table.add_column("machine", no_wrap=True, width=7)
    for side in SIDES:
        table.add_column(side, no_wrap=True, width=max(width, len(SIDES[WITH])))
    table.add_column("score", justify="right", no_wrap=True, width=7)
    if roomy:
        table.add_column("in truth", no_wrap=True, width=15)
    both = tally.both // MACHINES * MACHINES
    kinds = tally.kinds()[:both].reshape(-1, MACHINES)
    recovering = tally.recovering[:both].reshape(-1, MACHINES)
    scores = tally.score[:, :both].reshape(len(SIDES), -1, MACHINES)
    live = tally.live[:, :both].reshape(len(SIDES), -1, MACHINES)
    first = max(0, -(-len(kinds) // _BUCKET) - width) * _BUCKET
    for machine, name in enumerate(names):
        column = slice(first, None), machine
        lines = [
            _line(scores[side][column], live[side][column], kinds[column], recovering[column])
            for side in range(len(SIDES))
        ]
        score, truth = _now(scores[WITH, :, machine], live[WITH, :, machine], kinds[:, machine])
        table.add_row(name, *lines, score, *([truth] if roomy else []))
    return table


def _line(
    score: NDArray[np.float64], live: NDArray[np.bool_], kind: NDArray[np.str_], recovering: NDArray[np.bool_]
) -> Text:
    """One block for each bucket, as high as its highest score; the colour says whether an alarm was right."""
    line = Text()
    for start in range(0, len(score), _BUCKET):
        here = slice(start, start + _BUCKET)
        top = float(score[here].max())
        height = int((math.log10(max(top, 1e-4)) + 2.5) / 3.5 * len(_BLOCKS))
        faulty = bool(np.isin(kind[here], list(FAULTS)).any())
        alarm = bool((score[here][live[here] & ~recovering[here]] >= 1).any())
        if not live[here].any():
            style = "bright_black"
        elif faulty:
            style = "bold red" if alarm else "yellow"
        else:
            style = "bold magenta" if alarm else "green"
        line.append(_BLOCKS[min(max(height, 0), len(_BLOCKS) - 1)], style=style)
    return line


def _now(score: NDArray[np.float64], live: NDArray[np.bool_], kind: NDArray[np.str_]) -> tuple[Text, Text]:
    if not len(score):
        return Text("-", style="dim"), Text("")
    if not live[-1]:
        return Text("warm-up", style="bright_black"), Text("")
    going_on = str(kind[-1])
    style = "cyan" if going_on == CLEANING else "yellow"
    return Text(f"{score[-1]:.2f}", style="bold red" if score[-1] >= 1 else ""), Text(going_on, style=style)


def _story(feed: Feed, names: list[str], lines: int) -> Text:
    text = Text(overflow="ellipsis", no_wrap=True)
    for one in list(feed.lines)[-lines:]:
        text.append(f"{clock(one.row)} {names[one.machine]} ", style="dim")
        text.append(one.text + "\n", style=one.style)
    text.rstrip()
    return text


def _changed(feed: Feed, moment: Moment) -> Table:
    """Class by class: verdicts, what they make the class weigh in learning, and what alarms on it came to."""
    table = Table(box=None, expand=True, padding=(0, 1), header_style="dim")
    for header in ("verdict", "given", "importance", "alarms*", "without"):
        table.add_column(header, justify="left" if header in ("verdict", "importance") else "right", no_wrap=True)
    most = max(moment.importance.values(), default=1.0)
    for name, given in feed.verdicts.items():
        weight = moment.importance.get(name)
        bar = "" if weight is None else "█" * max(1, round(5 * weight / most)) + f" {weight:.2f}"
        kind = CLEANING if name == NORMAL else name
        shares = [_percent(moment.figures[side].classes[kind].alarmed) for side in (WITH, WITHOUT)]
        style = "cyan" if name == NORMAL else ""
        table.add_row(name, f"{given:,}", bar, *shares, style=style)
    table.caption = "* of its readings (normal: of cleaning)"
    table.caption_style = "dim"
    return table


def _footer(moment: Moment) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    for side, figures in zip(SIDES, moment.figures, strict=True):
        text.append(f" {side}: ", style="bold")
        text.append(
            f"{figures.found}/{figures.episodes} faults, {_number(figures.false_per_1000, '.1f')} false alarms"
            f" per 1,000, average precision {_number(figures.average_precision, '.2f')} \n"
        )
    for block, meaning in (
        ("green", "normal"),
        ("red", "fault, alarm"),
        ("yellow", "fault, no alarm"),
        ("magenta", "false alarm"),
    ):
        text.append(" █ ", style=block)
        text.append(meaning, style="dim")
    return text


def progress_line(tally: Tally, seconds: float, verdicts: int) -> str:
    """For where there is no screen."""
    with_, without = tally.figures()
    return (
        f"{seconds:3.0f} s  {clock(tally.both)}  {tally.both:,} readings scored, {verdicts:,} verdicts;"
        f" false alarms per 1,000: {_number(with_.false_per_1000, '.1f')} with them,"
        f" {_number(without.false_per_1000, '.1f')} without;"
        f" faults found: {with_.found} and {without.found} of {with_.episodes}"
    )


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{share:.0%}"


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def summary(
    figures: tuple[Figures, Figures], late: tuple[Figures, Figures], verdicts: int, seconds: float
) -> RenderableType:
    """What came of it: the same readings, scored with verdicts and without."""
    total = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in ("", "with verdicts", "without", "2nd half: with", "without"):
        total.add_column(header, justify="right" if header else "left")
    four = (*figures, *late)
    total.add_row("faults found", *(f"{one.found} of {one.episodes}" for one in four))
    total.add_row("alarms in faults, of readings", *(_percent(one.recall) for one in four))
    total.add_row("alarms in cleaning, of readings", *(_percent(one.classes[CLEANING].alarmed) for one in four))
    total.add_row("false alarms per 1,000", *(_number(one.false_per_1000, ".1f") for one in four))
    total.add_row("average precision", *(_number(one.average_precision, ".3f") for one in four))
    by_class = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    by_class.add_column("fault")
    for side in SIDES:
        by_class.add_column(f"{side}: found", justify="right")
        by_class.add_column("after min", justify="right")
    for kind in FAULTS:
        cells: list[str] = []
        for one in figures:
            mine = one.classes[kind]
            cells += [f"{mine.found} of {mine.episodes}", _number(mine.delay_steps * INTERVAL_S / 60, ".0f")]
        by_class.add_row(kind, *cells)
    headline = (
        f"{figures[WITH].judged:,} readings after warm-up, scored by two workers; one was told {verdicts:,} verdicts,"
        f" each about an hour late ({seconds:.0f} s)."
    )
    return Group(Text(headline, style="bold"), total, by_class)
