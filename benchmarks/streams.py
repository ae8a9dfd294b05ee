"""Quality on made-up streams of many kinds: all labelled, 10 % labelled, none, and with 5 % of the labels wrong.

    python benchmarks/streams.py [--seeds 3] [--only drift,wells] [--set learning.loss.alpha=0]

The streams are those of benchmarks/made_up.py. Every row is scored before anything is learned from it. Wrong
labels say normal for an anomaly and some anomaly for a normal row; figures are against the truth. The last column
has the faults found and the false incidents, with all labels, at one false incident in a thousand normal events.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from made_up import KINDS, PLANTS, delay_of, recording

from stream_ad.detector.config import DetectorOptions
from stream_ad.evaluation.backtest.incident_figures import count
from stream_ad.evaluation.backtest.label_schedule import Delay, Protocol
from stream_ad.evaluation.backtest.metrics import curve
from stream_ad.evaluation.backtest.runner import run_backtest
from stream_ad.evaluation.backtest.stream import NORMAL, Stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ad.evaluation.recordings.recording import Recording

WRONG = 0.05
BUDGET = 1e-3
HEADER = (
    "| stream | all labelled | 10 % | none | all, 5 % wrong | all labelled: found, false (promised) |\n"
    "|---|---|---|---|---|---|"
)


def mislabelled(true: Recording, seed: int) -> Recording:
    """Return the recording with wrong labels on a share of the rows."""
    rng = np.random.default_rng([seed, 1])
    kinds = sorted({label for label in true.labels if label} - {NORMAL})
    wrong = rng.random(len(true)) < WRONG
    labels = [
        (str(rng.choice(kinds)) if label == NORMAL else NORMAL) if flip else label
        for label, flip in zip(true.labels, wrong.tolist(), strict=True)
    ]
    return replace(true, labels=labels)


def measure(name: str, seed: int, coverage: float, options: DetectorOptions, wrong: bool) -> list[float]:
    """Return ROC-AUC and average precision (means over sensors), then faults, found, false incidents, promised ones."""
    true = recording(name, seed)
    stream = Stream([mislabelled(true, seed) if wrong else true], warmup=None, default_warmup=0)
    truth = Stream([true], warmup=None, default_warmup=0)
    protocol = Protocol(delay=Delay(delay_of(name)), coverage=coverage, seed=seed)
    run = run_backtest(stream, options, protocol, without_labels=False, budgets=(BUDGET,))
    score, areas = run.detector.score, []
    for sensor in range(len(truth.sensors)):
        members = truth.evaluated & (truth.sensor == sensor)
        whole = curve(score[members], truth.anomalous[members])
        if whole.has_both:
            areas.append((whole.roc_auc(), whole.average_precision()))
    came_to = count(
        truth.sensor,
        np.where(truth.evaluated, truth.code, -1),
        run.detector.alarms[:, 1] >= 1,
        budget=BUDGET,
        quiet_events=run.incidents.quiet_events,
    )
    faults = came_to.faults
    return [*np.mean(areas, axis=0).tolist(), faults.faults, faults.detected, came_to.false, came_to.promised]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default=",".join([*KINDS, *PLANTS]), metavar="NAMES")
    parser.add_argument("--set", action="append", default=[], metavar="SETTING=VALUE", help="of detector settings")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(HEADER, flush=True)
    for name in chosen.only.split(","):
        cells, incidents = [name], []
        for coverage, wrong in ((1.0, False), (0.1, False), (0.0, False), (1.0, True)):
            each = [measure(name, seed, coverage, options_of(chosen.set, seed), wrong) for seed in range(chosen.seeds)]
            auc, precision, faults, detected, false, promised = np.mean(each, axis=0).tolist()
            cells.append(f"{auc:.3f} / {precision:.3f}")
            incidents.append(f"{detected:.3g} of {faults:.3g}, {false:.3g} ({promised:.3g})")
        print(f"| {' | '.join(cells)} | {incidents[0]} |", flush=True)
    return 0


def options_of(settings: Sequence[str], seed: int) -> DetectorOptions:
    """Return options from assignments such as ``learning.rate=0.001``."""
    tree: dict[str, Any] = {"detector": {"seed": seed}}
    for assignment in settings:
        path, value = assignment.split("=", 1)
        *sections, name = path.split(".")
        at = tree
        for section in sections:
            at = at.setdefault(section, {})
        at[name] = value
    return DetectorOptions.model_validate(tree)


if __name__ == "__main__":
    sys.exit(main())
