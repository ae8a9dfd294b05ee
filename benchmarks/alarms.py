"""False incidents and detected faults at several budgets, promised beside observed, on recorded and made-up streams.

    python benchmarks/alarms.py [--data FOLDER] [--jobs 4]
    python benchmarks/alarms.py --section presses,intervals
    python benchmarks/alarms.py --only drift,onoff --set learning.warmup_events=512

The folder holds recordings as NAME.csv.gz: timestamp, sensor_id, label, evaluate, features; those with other names than
the known ones take the delay of their labels from --delay. Each stream runs once for each share of labels, and a run
decides at all budgets side by side. A budget is the number of false incidents tolerated for each normal event.

Sections: streams and tables (those two unless others are named), noise, stuck, change, presses, intervals, fleets,
named, classes; or all of them.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from alarm_checks import CHECKS
from alarm_classes import classes_section
from alarm_runs import (
    BUDGETS,
    COVERAGES,
    ROW_BUDGET,
    header,
    in_processes,
    line,
    made_up_sources,
    measure,
    recorded_sources,
)

from stream_ad.evaluation.backtest.results import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from alarm_runs import Source, StreamFigures

    from stream_ad.evaluation.backtest.incident_figures import IncidentFigures

CLASSES = "classes"
SECTIONS = ("streams", "tables", *CHECKS, CLASSES)
OVER = 3  # times the promise, and more than so many, is over it


def is_over(figures: IncidentFigures) -> bool:
    """Say whether a stream has far more false incidents than promised."""
    return figures.false > OVER * figures.promised and figures.false > OVER


def share(coverage: float) -> str:
    """Return a share of labels as text."""
    return f"{100 * coverage:g} %"


def streams_section(runs: Iterator[tuple[StreamFigures, ...]]) -> Iterator[str]:
    """Yield the tables of streams: a line for each when its runs are done, then what all of them come to."""
    shares = ", ".join(map(share, COVERAGES))
    yield f"Detected faults / false incidents with {shares} of the labels (promised); ! is over {OVER} times that.\n"
    yield header("stream", "faults", *(f"{budget:g} an event" for budget in BUDGETS))
    rows = []
    for figures in runs:
        rows.append(figures)
        faults = figures[0].budgets[BUDGETS[0]].faults.faults
        yield line(
            [figures[0].name, str(faults), *(_cell([run.budgets[budget] for run in figures]) for budget in BUDGETS)]
        )
    yield ""
    yield header(
        "budget", "promised", *(f"{share(coverage)}: detected / false, streams over" for coverage in COVERAGES)
    )
    for budget in BUDGETS:
        promised = sum(figures[0].budgets[budget].promised for figures in rows)
        by_coverage = zip(*([run.budgets[budget] for run in figures] for figures in rows), strict=True)
        yield line([f"{budget:g}", f"{promised:,.0f}", *map(_total, by_coverage)])
    faults = sum(figures[0].budgets[BUDGETS[0]].faults.faults for figures in rows)
    yield f"\n{len(rows)} streams, {faults} faults, {sum(figures[0].normal_rows for figures in rows):,} normal rows.\n"
    yield header("budget", *(f"{share(coverage)}: in alarm, events to the first alarm" for coverage in COVERAGES))
    for budget in BUDGETS:
        by_coverage = zip(*([run.budgets[budget] for run in figures] for figures in rows), strict=True)
        yield line([f"{budget:g}", *map(_alarm_time, by_coverage)])
    yield "\nThe mean over the streams of the share of rows that incidents cover; the median of their median delays.\n"
    yield header("labels", "ROC-AUC", "average precision", "seconds")
    for runs_at in zip(*rows, strict=True):
        areas = [_mean([getattr(run, area) for run in runs_at]) for area in ("roc_auc", "average_precision")]
        seconds = sum(run.seconds for run in runs_at)
        yield line([share(runs_at[0].coverage), *(f"{area:.4f}" for area in areas), f"{seconds:,.0f}"])
    yield "\nAreas are those of the score: the mean over the sensors of each stream, then over the streams."


def _cell(figures: Sequence[IncidentFigures]) -> str:
    counts = ", ".join(f"{each.faults.detected}/{each.false}{'!' * is_over(each)}" for each in figures)
    promised = figures[0].promised
    return f"{counts} ({promised:.0f})" if promised >= 1 else f"{counts} ({promised:.1f})"


def _total(figures: Sequence[IncidentFigures]) -> str:
    detected, false, over = (
        sum(values)
        for values in zip(*((each.faults.detected, each.false, is_over(each)) for each in figures), strict=True)
    )
    return f"{detected} / {false}, {over}"


def _alarm_time(figures: Sequence[IncidentFigures]) -> str:
    delays = [each.faults.delay_events_median for each in figures if each.faults.detected]
    delay = f"{np.median(delays):.0f}" if delays else "-"
    return f"{100 * _mean([each.share_in_alarm for each in figures]):.2g} %, {delay}"


def _mean(values: Sequence[float]) -> float:
    """Return the mean of the values that are numbers: streams with one class only have no area."""
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


def tables_section(runs: Iterator[tuple[StreamFigures, ...]]) -> Iterator[str]:
    """Yield the table of tables: rows, since theirs have no memory and each is an incident of its own."""
    yield f"Anomalous rows that alarm / normal rows that do, at {ROW_BUDGET:g} of the rows.\n"
    yield header("table", "anomalies", "promised", *map(share, COVERAGES))
    for figures in runs:
        name, anomalies, normal_rows = figures[0].name, figures[0].anomalies, figures[0].normal_rows
        counts = [f"{detected} / {false}" for detected, false in (run.row_counts for run in figures)]
        yield line([name, f"{anomalies:,}", f"{ROW_BUDGET * normal_rows:.1f}", *counts])


def measured(
    sources: Sequence[Source], chosen: argparse.Namespace, kept: list[StreamFigures]
) -> Iterator[tuple[StreamFigures, ...]]:
    """Yield the runs of each source, one for each share of labels, and keep them."""
    tasks = [(source, coverage, chosen.seed, chosen.set) for source in sources for coverage in COVERAGES]
    runs = in_processes(measure, tasks, chosen.jobs)
    while figures := tuple(islice(runs, len(COVERAGES))):
        kept += figures
        yield figures


def all_sources(chosen: argparse.Namespace, parser: argparse.ArgumentParser) -> list[Source]:
    """Return the streams that the options name."""
    sources: list[Source] = []
    if chosen.data:
        named = dict(delay.split("=", 1) for delay in chosen.delay if "=" in delay)
        default = [delay for delay in chosen.delay if "=" not in delay][-1:] or ["500"]
        try:
            delays = {name: int(delay) for name, delay in named.items()}
            sources = recorded_sources(chosen.data, delays, int(default[0]), chosen.tables.split(","))
        except ValueError:
            parser.error("--delay takes a number of events, such as 500, or one for a recording, such as api=36")
        if not sources:
            parser.error(f"{chosen.data} holds no recording: put them there as NAME.csv.gz")
    if not chosen.recorded_only:
        sources += made_up_sources()
    wanted = chosen.only.split(",") if chosen.only else [source.name for source in sources]
    if unknown := sorted(set(wanted) - {source.name for source in sources}):
        parser.error(f"no stream is called {unknown[0]}: there are {', '.join(source.name for source in sources)}")
    return [source for source in sources if source.name in wanted]


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[Source]]:
    """Return the options and the streams that they name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="FOLDER", help="of recordings; without it, made-up streams only")
    parser.add_argument("--recorded-only", action="store_true", help="leave the made-up streams out")
    parser.add_argument("--delay", action="append", default=[], metavar="[NAME=]EVENTS", help="of labels; default: 500")
    parser.add_argument("--tables", default="", metavar="NAMES", help="recordings whose rows have no memory")
    parser.add_argument("--only", default="", metavar="NAMES", help="of streams and tables")
    parser.add_argument(
        "--section", default="streams,tables", metavar="NAMES", help=f"of {', '.join(SECTIONS)}; or all"
    )
    parser.add_argument("--set", action="append", default=[], metavar="SETTING=VALUE", help="of detector settings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--json", metavar="FILE", help="where the figures of streams and tables are written, too")
    chosen = parser.parse_args(arguments)
    chosen.sections = SECTIONS if chosen.section == "all" else chosen.section.split(",")
    if unknown := sorted(set(chosen.sections) - set(SECTIONS)):
        parser.error(f"no section is called {unknown[0]}: there are {', '.join(SECTIONS)}")
    return chosen, all_sources(chosen, parser)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; return the exit code."""
    chosen, sources = parse(arguments)
    kept: list[StreamFigures] = []
    for section in chosen.sections:
        if section in CHECKS:
            lines = CHECKS[section](chosen.seed, chosen.set, chosen.jobs)
        elif section == CLASSES:
            lines = classes_section(sources, chosen.seed, chosen.set, chosen.jobs)
        else:
            members = [source for source in sources if source.is_table == (section == "tables")]
            if not members:
                continue
            print_section = tables_section if section == "tables" else streams_section
            lines = print_section(measured(members, chosen, kept))
        print(f"## {section}\n", flush=True)
        for text in lines:
            print(text, flush=True)
        print()
    if chosen.json:
        figures = plain([asdict(run) for run in kept])
        Path(chosen.json).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
