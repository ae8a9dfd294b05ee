"""False-alarm rate as tolerated and as measured: the share of normal rows that score 1 or above, all rows labelled.

    python benchmarks/alarms.py [--seeds 3] [--only plant,cardio] [--data FOLDER]

Made-up streams (see benchmarks/made_up.py) and, where a folder is named, the recordings of benchmarks/quality.py. The
interval is that of 95 % of 2,000 bootstrap draws of blocks of 128 normal rows: false alarms come in bursts.
For the simulated plant, a second table says which of its faults were found, and how often a broken feature was named
first by the highest alarm of a fault.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from made_up import KINDS, PLANTS, delay_of, recording
from quality import TARGETS, path_of
from streams import options_of

from stream_ad.evaluation.backtest.label_schedule import Delay, Protocol
from stream_ad.evaluation.backtest.metrics import segments
from stream_ad.evaluation.backtest.runner import run_backtest
from stream_ad.evaluation.backtest.stream import Stream
from stream_ad.evaluation.recordings.csv_reader import read_recording
from stream_ad.evaluation.simulation.plant import FAULTS, FEATURES, Plant, PlantConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stream_ad.evaluation.backtest.runner import Backtest

RATES = (1e-2, 1e-3)
BLOCK, DRAWS = 128, 2000
HEADER = (
    "| stream | normal rows | at 1 % | 95 % interval | faults found | at 0.1 % | 95 % interval | faults found |\n"
    "|---|---|---|---|---|---|---|---|"
)
PLANT_HEADER = (
    "| stream | rate | " + " | ".join(FAULTS) + " | all | named first | among the first three |\n" + "|---" * 11 + "|"
)  # one column for each kind of fault


def blocks(run: Backtest) -> NDArray[np.float64]:
    """Return false alarms and rows (K, 2) of blocks of normal rows, each of a single sensor."""
    counts = []
    calm = run.stream.evaluated & ~run.stream.anomalous
    for sensor in range(len(run.stream.sensors)):
        alarms = (run.detector.score[calm & (run.stream.sensor == sensor)] >= 1).astype(np.float64)
        counts += [(alarms[at : at + BLOCK].sum(), len(alarms[at : at + BLOCK])) for at in range(0, len(alarms), BLOCK)]
    return np.array(counts).reshape(-1, 2)


def interval(parts: NDArray[np.float64]) -> tuple[float, float]:
    """Return the interval that holds 95 % of the shares of resampled blocks (K, 2)."""
    rng = np.random.default_rng(0)
    drawn = parts[rng.integers(len(parts), size=(DRAWS, len(parts)))].sum(axis=1)  # (D, 2)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    return float(low), float(high)


def faults(run: Backtest) -> tuple[int, int]:
    """Return the number of faults with a row at 1 or above, and of all faults."""
    code = np.where(run.stream.evaluated, run.stream.code, -1)
    rows = [segment.rows for segment in segments(run.stream.sensor, code) if segment.code > 0]
    return sum(bool((run.detector.score[fault_rows] >= 1).any()) for fault_rows in rows), len(rows)


def go(stream: Stream, delay: int, rate: float, seed: int) -> Backtest:
    """Run a backtest with every row labelled, at a tolerated false-alarm rate."""
    options = options_of([f"threshold.false_alarm_rate={rate}"], seed)
    return run_backtest(stream, options, Protocol(delay=Delay(delay), seed=seed), without_labels=False)


def plant_counts(run: Backtest, seed: int, counts: Counter[Any]) -> None:
    """Count the plant's faults, those found, and how well the highest alarm of each was explained."""
    plant = Plant(PlantConfig(machines=len(run.stream.sensors), seed=seed))
    chunk = plant.chunk(len(run.stream) // len(run.stream.sensors))
    for index, episode in enumerate(plant.episodes):
        rows = np.flatnonzero((chunk.episode == index) & run.stream.evaluated)
        if episode.kind not in FAULTS or not len(rows):
            continue
        counts[episode.kind, "all"] += 1
        alarms = rows[run.detector.score[rows] >= 1]
        if not len(alarms):
            continue
        counts[episode.kind, "found"] += 1
        highest = int(alarms[np.argmax(run.detector.score[alarms])])
        named = [FEATURES.index(part.feature) for part in run.detector.contributions[highest]]
        counts["first"] += named[0] in episode.broken
        counts["three"] += bool(set(named[:3]) & set(episode.broken))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", metavar="FOLDER", help="of the recordings; without it, made-up streams only")
    parser.add_argument("--only", default="", metavar="NAMES")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    files = {target.name: target for target in TARGETS} if chosen.data else {}
    counts: defaultdict[tuple[str, float], Counter[Any]] = defaultdict(Counter)
    print(HEADER, flush=True)
    for name in chosen.only.split(",") if chosen.only else [*KINDS, *PLANTS, *files]:
        cells = [name]
        for rate in RATES:
            parts, detected, present = [], 0, 0
            for seed in range(chosen.seeds):
                recorded = read_recording(path_of(Path(chosen.data), files[name])) if name in files else None
                stream = Stream([recorded or recording(name, seed)], warmup=None, default_warmup=0)
                delay = files[name].delay if recorded else delay_of(name)
                run = go(stream, delay, rate, seed)
                parts.append(blocks(run))
                detected_now, faults_now = faults(run)
                detected, present = detected + detected_now, present + faults_now
                if name in PLANTS:
                    plant_counts(run, seed, counts[name, rate])
            every = np.concatenate(parts)
            low, high = interval(every)
            if len(cells) == 1:
                cells.append(f"{int(every[:, 1].sum()):,}")
            share = every[:, 0].sum() / every[:, 1].sum()
            cells += [f"{100 * share:.2g} %", f"{100 * low:.2g} to {100 * high:.2g}", f"{detected} of {present}"]
        print(f"| {' | '.join(cells)} |", flush=True)
    if counts:
        print("", PLANT_HEADER, sep="\n")
    for (name, rate), count in counts.items():
        each = [f"{count[kind, 'detected']} of {count[kind, 'all']}" for kind in FAULTS]
        total = sum(count[kind, "found"] for kind in FAULTS)
        summed = f"{total} of {sum(count[kind, 'all'] for kind in FAULTS)}"
        print(
            f"| {name} | {100 * rate:g} % | {' | '.join(each)} | {summed} | {count['first']} | {count['three']} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
