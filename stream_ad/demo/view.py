"""The demo's screen: machines, scores with and without labels, incidents, labels, and what they changed."""

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

from stream_ad.demo.scene import BUDGET, INTERVAL_S, MACHINES, SIDES, STEPS_PER_S, WITH, WITHOUT
from stream_ad.evaluation.simulation.plant import CLEANING, FAULTS, NORMAL

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import Console, RenderableType

    from stream_ad.demo.feed import Feed
    from stream_ad.demo.tally import ClassFigures, Figures, Tally

_BLOCKS = "▁▂▃▄▅▆▇█"
_BUCKET = 30
"""Readings of a machine in each block of its line: half an hour."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What the screen shows beside the tally."""

    state: str
    share: float  # of the demo's time that has passed
    rate: float  # events a second, scored by both
    importance: dict[str, float]
    figures: tuple[Figures, Figures]


def clock(row: float) -> str:
    """Return the plant time of a row: day, hour and minute."""
    minutes = int(row // MACHINES * INTERVAL_S // 60)
    return f"d{minutes // 1440 + 1} {minutes % 1440 // 60:02d}:{minutes % 60:02d}"


def screen(console: Console, tally: Tally, feed: Feed, names: list[str], moment: Moment) -> RenderableType:
    """Return the whole screen, made to fit the terminal."""
    tall = max(5, console.height - MACHINES - 6)
    width = max(10, min(40, (console.width - 40) // 2))
    story = Panel(_story(feed, names, tall - 2), title="incidents and labels", height=tall)
    changed = _changed(feed, moment)
    middle: RenderableType = story
    if console.width >= 110:
        panels = Table.grid(expand=True)
        panels.add_column(ratio=1)
        panels.add_column(width=60)
        panels.add_row(story, Panel(changed, title="what the labels changed", height=tall))
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
    alarms = tally.alarm[:, :both].reshape(len(SIDES), -1, MACHINES)
    live = tally.live[:, :both].reshape(len(SIDES), -1, MACHINES)
    first = max(0, -(-len(kinds) // _BUCKET) - width) * _BUCKET
    for machine, name in enumerate(names):
        column = slice(first, None), machine
        lines = [
            _line(scores[side][column], alarms[side][column], live[side][column], kinds[column], recovering[column])
            for side in range(len(SIDES))
        ]
        of_machine = WITH, slice(None), machine
        score, truth = _now(scores[of_machine], alarms[of_machine], live[of_machine], kinds[:, machine])
        table.add_row(name, *lines, score, *([truth] if roomy else []))
    return table


def _line(
    score: NDArray[np.float64],
    alarm: NDArray[np.bool_],
    live: NDArray[np.bool_],
    kind: NDArray[np.str_],
    recovering: NDArray[np.bool_],
) -> Text:
    """Draw a block for each bucket, as high as its highest score; the colour says whether an incident was right.

    Args:
        score: (N,) scores of a machine.
        alarm: (N,) whether an incident is open.
        live: (N,) whether each score is live.
        kind: (N,) kind of episode, empty outside.
        recovering: (N,) whether the machine recovers from an episode.
    """
    line = Text()
    for start in range(0, len(score), _BUCKET):
        bucket = slice(start, start + _BUCKET)
        top = float(score[bucket].max())
        height = int(top * len(_BLOCKS))
        faulty = bool(np.isin(kind[bucket], list(FAULTS)).any())
        alarms = bool((alarm[bucket] & ~recovering[bucket]).any())
        if not live[bucket].any():
            style = "bright_black"
        elif faulty:
            style = "bold red" if alarms else "yellow"
        else:
            style = "bold magenta" if alarms else "green"
        line.append(_BLOCKS[min(max(height, 0), len(_BLOCKS) - 1)], style=style)
    return line


def _now(
    score: NDArray[np.float64], alarm: NDArray[np.bool_], live: NDArray[np.bool_], kind: NDArray[np.str_]
) -> tuple[Text, Text]:
    if not len(score):
        return Text("-", style="dim"), Text("")
    if not live[-1]:
        return Text("warm-up", style="bright_black"), Text("")
    going_on = str(kind[-1])
    style = "cyan" if going_on == CLEANING else "yellow"
    return Text(f"{score[-1]:.2f}", style="bold red" if alarm[-1] else ""), Text(going_on, style=style)


def _story(feed: Feed, names: list[str], lines: int) -> Text:
    text = Text(overflow="ellipsis", no_wrap=True)
    for entry in list(feed.lines)[-lines:]:
        text.append(f"{clock(entry.row)} {names[entry.machine]} ", style="dim")
        text.append(entry.text + "\n", style=entry.style)
    text.rstrip()
    return text


def _changed(feed: Feed, moment: Moment) -> Table:
    """Return a table by class: labels given, weight of the class in learning, and episodes with an alarm."""
    table = Table(box=None, expand=True, padding=(0, 1), header_style="dim")
    for header in ("label", "given", "importance", "found*", "without"):
        table.add_column(header, justify="left" if header in ("label", "importance") else "right", no_wrap=True)
    most = max(moment.importance.values(), default=1.0)
    for name, number in feed.label_counts.items():
        weight = moment.importance.get(name)
        bar = "" if weight is None else "█" * max(1, round(5 * weight / most)) + f" {weight:.2f}"
        kind = CLEANING if name == NORMAL else name
        shares = [_of(moment.figures[side].classes[kind]) for side in (WITH, WITHOUT)]
        style = "cyan" if name == NORMAL else ""
        table.add_row(name, f"{number:,}", bar, *shares, style=style)
    table.caption = "* with an alarm while they lasted (normal: cleaning)"
    table.caption_style = "dim"
    return table


def _footer(moment: Moment) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    for side, figures in zip(SIDES, moment.figures, strict=True):
        text.append(f" {side}: ", style="bold")
        text.append(
            f"{figures.detected}/{figures.faults} faults found, {figures.false} false incidents of"
            f" {figures.promised:.1f} promised, average precision {_number(figures.average_precision, '.2f')} \n"
        )
    for block, meaning in (
        ("green", "normal"),
        ("red", "fault, incident"),
        ("yellow", "fault, no incident"),
        ("magenta", "false incident"),
    ):
        text.append(" █ ", style=block)
        text.append(meaning, style="dim")
    return text


def budget() -> str:
    """Return the budget of both workers in words, and how much of the plant's time passes in the demo."""
    days = STEPS_PER_S * INTERVAL_S * 60 / 86_400
    return (
        f"at most {BUDGET.false_incidents:g} false incident of each machine in a week of its time, and a minute here is"
        f" {days:.1f} days there"
    )


def progress_line(tally: Tally, seconds: float, labels: int) -> str:
    """Return a line of progress, for output that is no terminal."""
    with_, without = tally.figures()
    return (
        f"{seconds:3.0f} s  {clock(tally.both)}  {tally.both:,} readings scored, {labels:,} labels;"
        f" faults found: {with_.detected} with them, {without.detected} without, of {with_.faults};"
        f" false incidents: {with_.false} and {without.false}, promised at most {with_.promised:.1f}"
    )


def _of(figures: ClassFigures) -> str:
    return f"{figures.detected} of {figures.episodes}" if figures.episodes else "-"


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{share:.1%}"


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def summary(
    figures: tuple[Figures, Figures], late: tuple[Figures, Figures], labels: int, seconds: float
) -> RenderableType:
    """Return the outcome: the same readings, scored with labels and without."""
    total = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in ("", "with labels", "without", "2nd half: with", "without"):
        total.add_column(header, justify="right" if header else "left")
    four = (*figures, *late)
    total.add_row("faults found", *(f"{side.detected} of {side.faults}" for side in four))
    total.add_row("false incidents", *(f"{side.false}" for side in four))
    total.add_row("promised, at most", *(f"{side.promised:.1f}" for side in four))
    total.add_row("incidents in all", *(f"{side.incidents}" for side in four))
    total.add_row("of the time in an incident", *(_percent(side.share_in_alarm) for side in four))
    total.add_row("cleaning that alarmed", *(_of(side.classes[CLEANING]) for side in four))
    total.add_row("average precision of scores", *(_number(side.average_precision, ".3f") for side in four))
    by_class = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    by_class.add_column("fault")
    for side in SIDES:
        by_class.add_column(f"{side}: found", justify="right")
        by_class.add_column("after min", justify="right")
    for kind in FAULTS:
        cells: list[str] = []
        for of_side in figures:
            of_kind = of_side.classes[kind]
            cells += [_of(of_kind), _number(of_kind.delay_steps * INTERVAL_S / 60, ".0f")]
        by_class.add_row(kind, *cells)
    headline = (
        f"{figures[WITH].evaluated:,} readings after warm-up, scored by two workers; one was given {labels:,} labels,"
        f" each about an hour late ({seconds:.0f} s)."
    )
    promise = (
        f"Both had the default budget: {budget()}. An incident is false if it covers no reading of a fault. Most"
        " false ones open when a machine does something for the first time, such as its first cleaning."
    )
    return Group(Text(headline, style="bold"), Text(promise), total, by_class)
