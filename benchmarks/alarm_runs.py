"""Runs of benchmarks/alarms.py: which streams there are, one backtest for all budgets, and what it came to."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from made_up import KINDS, PLANTS, TABLES, delay_of, recording
from streams import options_of

from stream_ad.evaluation.backtest.incident_figures import count, faults_of
from stream_ad.evaluation.backtest.label_schedule import Delay, Protocol
from stream_ad.evaluation.backtest.results import Figures
from stream_ad.evaluation.backtest.runner import run_backtest
from stream_ad.evaluation.backtest.stream import Stream
from stream_ad.evaluation.recordings.csv_reader import read_recording

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from stream_ad.detector.config import DetectorOptions
    from stream_ad.evaluation.backtest.incident_figures import IncidentFigures
    from stream_ad.evaluation.backtest.runner import Backtest

BUDGETS = (1e-5, 1e-4, 3e-4, 1e-3)
COVERAGES = (0.0, 0.1, 1.0)
ROW_BUDGET = 1e-3  # of tables
QUIET_EVENTS = 16
ENDING = ".csv.gz"
DELAYS = {
    "servers": 500,
    "process": 73,
    "univariate": 500,
    "cloud": 36,
    "fleet": 200,
    "river": 500,
    "turbofan": 10,
    "shuttle": 500,
    "cardio": 91,
    "mammography": 500,
}
"""Events of a sensor between an event and its label, by recording."""
RECORDED_TABLES = ("shuttle", "cardio", "mammography")


@dataclass(frozen=True)
class Source:
    """Where a stream comes from, and how late its labels are."""

    name: str
    delay: int
    path: Path | None
    """None: it is made up."""
    is_table: bool

    def stream(self, seed: int) -> Stream:
        """Return the rows; the seed draws those that are made up."""
        recorded = read_recording(self.path) if self.path else recording(self.name, seed)
        return Stream([recorded], warmup=None, default_warmup=0)


@dataclass(frozen=True)
class StreamFigures:
    """What one run over a stream came to."""

    name: str
    coverage: float
    sensors: int
    rows: int
    normal_rows: int
    anomalies: int
    budgets: dict[float, IncidentFigures]
    row_counts: tuple[int, int]
    """Anomalies and normal rows that alarm at ``ROW_BUDGET``."""
    roc_auc: float
    average_precision: float
    seconds: float


def recorded_sources(folder: str, delays: dict[str, int], default_delay: int, tables: Sequence[str]) -> list[Source]:
    """Return every recording of a folder, by name.

    Args:
        folder: Holds NAME.csv.gz.
        delays: Delays by name that go before those known here.
        default_delay: Delay of recordings that neither names.
        tables: Names of recordings whose rows have no memory, besides those known here.
    """
    known_delays = {**DELAYS, **delays}
    return [
        Source(name, known_delays.get(name, default_delay), path, name in (*RECORDED_TABLES, *tables))
        for path in sorted(Path(folder).glob(f"*{ENDING}"))
        for name in [path.name.removesuffix(ENDING)]
    ]


def made_up_sources() -> list[Source]:
    """Return every kind of stream of benchmarks/made_up.py."""
    return [Source(name, delay_of(name), None, name in TABLES) for name in (*KINDS, *PLANTS)]


def backtest(
    stream: Stream, delay: int, coverage: float, seed: int, options: DetectorOptions, budgets: Sequence[float]
) -> Backtest:
    """Run the detector over a stream, deciding at all budgets side by side."""
    protocol = Protocol(delay=Delay(delay), coverage=coverage, seed=seed)
    return run_backtest(stream, options, protocol, without_labels=False, budgets=tuple(budgets))


def alarming(run: Backtest, column: int) -> NDArray[np.bool_]:
    """Return the rows (N,) that alarm at a budget: column 0 is the configured one, the others those of the run."""
    return (run.detector.alarms[:, column] >= 1) & run.detector.live


def counted_code(stream: Stream) -> NDArray[np.int64]:
    """Return the index of each row's label (N,), below 0 where the row does not count."""
    return np.where(stream.evaluated, stream.code, -1)


def at_budgets(
    run: Backtest, truth: Stream, budgets: Sequence[float], *, classes_apart: bool = True
) -> dict[float, IncidentFigures]:
    """Return the figures at each budget that the run was given, against the truth.

    Args:
        run: The run.
        truth: The same rows with their true labels.
        budgets: Those of the run.
        classes_apart: Whether a fault ends where its class changes.
    """
    code = counted_code(truth) if classes_apart else np.minimum(counted_code(truth), 1)
    faults = faults_of(truth.sensor, code)
    return {
        budget: count(
            truth.sensor, code, alarming(run, column), budget=budget, quiet_events=QUIET_EVENTS, faults=faults
        )
        for column, budget in enumerate(budgets, 1)
    }


def measure(source: Source, coverage: float, seed: int, settings: Sequence[str]) -> StreamFigures:
    """Run a stream with a share of its labels, and return the figures at all budgets."""
    began = time.monotonic()
    stream = source.stream(seed)
    run = backtest(stream, source.delay, coverage, seed, options_of(settings, seed), BUDGETS)
    areas = Figures(run).macro(run.detector.score)
    anomalous, normal = (stream.evaluated & mask for mask in (stream.anomalous, stream.code == 0))
    by_row = alarming(run, 1 + BUDGETS.index(ROW_BUDGET))
    return StreamFigures(
        source.name,
        coverage,
        len(stream.sensors),
        len(stream),
        int(normal.sum()),
        int(anomalous.sum()),
        at_budgets(run, stream, BUDGETS, classes_apart=False),  # those of river change from row to row in one fault
        (int((by_row & anomalous).sum()), int((by_row & normal).sum())),
        areas["roc_auc"],
        areas["average_precision"],
        time.monotonic() - began,
    )


def in_processes(function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]], jobs: int) -> Iterator[Any]:
    """Yield the result for each tuple of arguments, in their order, from so many processes."""
    if jobs == 1:
        one_thread()
        yield from starmap(function, arguments)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn, initializer=one_thread) as pool:
        yield from pool.map(function, *zip(*arguments, strict=True))


def one_thread() -> None:
    """Compute on one thread, as the worker does."""
    torch.set_num_threads(1)


def line(cells: Sequence[str]) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(cells)} |"


def header(*cells: str) -> str:
    """Return the first two lines of a table."""
    return f"{line(cells)}\n{'|---' * len(cells)}|"
