"""Quality on recorded streams beside its goals: all labelled and 10 % labelled, several seeds, default settings.

    python benchmarks/quality.py FOLDER      (or TEST_DATA=FOLDER)

The folder holds servers, process, shuttle, cardio and mammography as NAME.csv.gz: timestamp, sensor_id, label,
evaluate, features. Every row is scored before anything is learned from it; its label comes a fixed number of
events of its sensor later. Prints a table, and writes it to docs/explanation/quality.md as printed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from stream_ad import __version__
from stream_ad.detector.config import DetectorOptions
from stream_ad.evaluation.backtest.label_schedule import Delay, Protocol
from stream_ad.evaluation.backtest.results import results
from stream_ad.evaluation.backtest.runner import run_backtest
from stream_ad.evaluation.backtest.stream import Stream
from stream_ad.evaluation.recordings.csv_reader import read_recording

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE = Path(__file__).resolve().parent.parent / "docs" / "explanation" / "quality.md"
INTRODUCTION = """# Quality on recorded streams

Each row below is a recording that was replayed in the order of its rows.
Every row is scored before anything is learned from it; its label comes so many events of its sensor later:
{waits}.

- The columns show ROC-AUC / average precision: the mean over sensors and seeds, ± the standard deviation over seeds.
- "Best baseline" is the best of half-space trees, isolation forest, running z-score and two online autoencoders on the
  same rows.
- "Goal" is what is wanted here. A figure below its goal misses it.
- The last two columns have the faults found and the false incidents, the mean over seeds, where one false incident in a
  thousand normal events is tolerated: so many are promised on the evaluated rows. A fault is a stretch of anomalous
  rows of one class, an incident false if it covers no anomaly.

To measure your own recordings by the same protocol, [backtest](../how-to/backtest-a-recording.md) them.
`make quality TEST_DATA=FOLDER` writes this page; the recordings are not part of the tree.

"""
COVERAGES = (1.0, 0.1)
BUDGET = 1e-3
Both = tuple[float, float]  # ROC-AUC, average precision


@dataclass(frozen=True)
class Target:
    """A file, the delay of its labels, what baselines reach, and the goals."""

    name: str
    delay: int
    baseline: Both  # the best of half-space trees, isolation forest, running z-score and two online autoencoders
    goals: tuple[Both, Both]  # all labelled, 10 % labelled


TARGETS = (
    Target("servers", 500, (0.731, 0.264), ((0.90, 0.52), (0.88, 0.47))),
    Target("process", 73, (0.833, 0.947), ((0.92, 0.97), (0.90, 0.965))),
    Target("shuttle", 500, (0.998, 0.985), ((0.999, 0.995), (0.999, 0.99))),
    Target("cardio", 91, (0.954, 0.677), ((0.985, 0.87), (0.965, 0.77))),
    Target("mammography", 500, (0.926, 0.499), ((0.94, 0.64), (0.93, 0.56))),
)
HEADER = (
    "| file | best baseline | all labelled | goal | 10 % labelled | goal | all: found, false (promised) | 10 % |",
    "|---|---|---|---|---|---|---|---|",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line names; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default=os.environ.get("TEST_DATA"), help="default: $TEST_DATA")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", metavar="NAMES", help="some of the files, such as servers,cardio")
    parser.add_argument("--no-page", action="store_true", help="leave docs/explanation/quality.md as it is")
    chosen = parser.parse_args(arguments)
    targets = [target for target in TARGETS if not chosen.only or target.name in chosen.only.split(",")]
    if problem := missing(chosen.folder, targets):
        print(problem, file=sys.stderr)
        return 1
    torch.set_num_threads(1)  # as the worker does
    began = time.monotonic()
    lines = list(HEADER)
    print(*lines, sep="\n", flush=True)
    for target in targets:
        lines.append(row(target, Path(chosen.folder), chosen.seeds))
        print(lines[-1], flush=True)
    closing = (
        f"ROC-AUC / average precision, mean of sensors, mean of {chosen.seeds} seeds ± standard deviation over them;"
        f" stream-ad {__version__}, default settings; {(time.monotonic() - began) / 60:.0f} minutes on one thread."
    )
    print("", closing, sep="\n")
    if not chosen.no_page and len(targets) == len(TARGETS):
        PAGE.write_text(page([*lines, "", closing]), encoding="utf-8")
    return 0


def missing(folder: str | None, targets: Sequence[Target]) -> str:
    """Return which files are missing and where to put them; empty if none is."""
    how = "Put them into a folder as NAME.csv.gz and name it: make quality TEST_DATA=FOLDER"
    if not folder:
        return f"No folder of recordings is named. Needed: {', '.join(target.name for target in targets)}. {how}"
    absent = [target.name for target in targets if not path_of(Path(folder), target).is_file()]
    return f"{folder} lacks {', '.join(f'{name}.csv.gz' for name in absent)}. {how}" if absent else ""


def path_of(folder: Path, target: Target) -> Path:
    """Return the path of a file in the folder."""
    return folder / f"{target.name}.csv.gz"


def row(target: Target, folder: Path, seeds: int) -> str:
    """Return a line of the table."""
    stream = Stream([read_recording(path_of(folder, target))], warmup=None, default_warmup=0)
    cells = [target.name, "{:.3f} / {:.3f}".format(*target.baseline)]
    incidents = []
    for coverage, goal in zip(COVERAGES, target.goals, strict=True):
        runs = [backtest(stream, target, coverage, seed) for seed in range(seeds)]
        (auc, precision), (auc_sd, precision_sd) = (of([run[:2] for run in runs], axis=0) for of in (np.mean, np.std))
        cells += [f"{auc:.3f} ± {auc_sd:.3f} / {precision:.3f} ± {precision_sd:.3f}", f"{goal[0]:g} / {goal[1]:g}"]
        faults, detected, false, promised = np.mean([run[2:] for run in runs], axis=0).tolist()
        incidents.append(f"{detected:,.1f} of {faults:,.0f}, {false:,.1f}")
    return f"| {' | '.join(cells)} | {incidents[0]} ({promised:,.1f}) | {incidents[1]} |"


def backtest(stream: Stream, target: Target, coverage: float, seed: int) -> tuple[float, ...]:
    """Return both areas of a run, then its faults, those found, its false incidents, and those promised."""
    options = DetectorOptions.model_validate({"detector": {"seed": seed}})
    protocol = Protocol(delay=Delay(target.delay), coverage=coverage, seed=seed)
    run = run_backtest(stream, options, protocol, without_labels=False, budgets=(BUDGET,))
    figures = results(run, settings={})
    budget = figures["incidents"]["budgets"][0]
    counts = (budget[name] for name in ("faults", "found", "false", "promised"))
    return figures["roc_auc"], figures["average_precision"], *counts


def page(lines: Sequence[str]) -> str:
    """Return docs/explanation/quality.md."""
    waits = ", ".join(f"{target.delay} for {target.name}" for target in TARGETS)
    return INTRODUCTION.format(waits=waits) + "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
