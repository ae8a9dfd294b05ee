"""Run a recorded stream through the code that runs in production, with labels that arrive late.

Prequential evaluation (Gama et al., Machine Learning 2013): every row is scored before anything is learned from it,
and its label is learned only once it is due. ``Shard.step`` gets the rows in their order, with the labels in between.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.alarm_config import USUAL_INCIDENTS, IncidentSettings
from stream_ad.evaluation.backtest.baselines import make_baselines
from stream_ad.evaluation.backtest.label_schedule import Protocol, Schedule
from stream_ad.records.columns import Labels
from stream_ad.shard.shard import Shard

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from stream_ad.detector.config import DetectorOptions
    from stream_ad.evaluation.backtest.stream import Stream
    from stream_ad.evaluation.simulation.pacing import Stop
    from stream_ad.records.columns import Contribution
    from stream_ad.records.schemas import Incident

CHUNK_ROWS = 1000
"""Rows of one step: few enough for a lively progress bar. The results do not depend on it."""


@dataclass(slots=True, eq=False)
class RunResult:
    """What one shard returned for N rows; rows from ``Backtest.done`` on are not filled yet."""

    score: NDArray[np.float64]  # (N,)
    alarms: NDArray[np.float64]  # (N, K) evidence over level: 1 or above alarms; 0 during the warm-up
    live: NDArray[np.bool_]  # (N,)
    incidents: list[Incident] = field(default_factory=list)
    """Incidents at the configured budget, as they are published: each opening, change and closing."""
    opened_at: dict[str, int] = field(default_factory=dict)
    """Row at which each of them opened, by id."""
    contributions: dict[int, tuple[Contribution, ...]] = field(default_factory=dict)
    """Contributions of alarms, by row."""
    counts: dict[str, int] = field(default_factory=dict)
    label_outcomes: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(slots=True, eq=False)
class Backtest:
    """A backtest, complete or interrupted."""

    stream: Stream
    protocol: Protocol
    options: DetectorOptions
    schedule: Schedule
    detector: RunResult
    unlabelled: RunResult | None
    """The same detector without labels."""
    baselines: dict[str, NDArray[np.float64]]
    """Scores (N,) by name of the baseline."""
    baseline_seconds: dict[str, float]
    incidents: IncidentSettings = USUAL_INCIDENTS
    budgets: tuple[float, ...] = ()
    """Rates of false incidents an event, by column of the alarms from the second on."""
    done: int = 0
    """Rows that the detector and all baselines have scored."""

    @property
    def complete(self) -> bool:
        """Whether every row was scored."""
        return self.done == len(self.stream)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What a backtest calls while it runs."""

    progress: Callable[[int, int], None] | None = None
    """Called with the rows done and the total."""
    stop: Stop | None = None
    """Ends the backtest early, with everything so far."""


NO_HOOKS = Hooks()


def run_backtest(
    stream: Stream,
    options: DetectorOptions,
    protocol: Protocol,
    *,
    against: Sequence[str] = (),
    without_labels: bool = True,
    incidents: IncidentSettings = USUAL_INCIDENTS,
    budgets: tuple[float, ...] = (),
    hooks: Hooks = NO_HOOKS,
) -> Backtest:
    """Run the detector, the detector without labels, and baselines side by side over a stream.

    Args:
        stream: The rows.
        options: Options of the detector.
        protocol: Which rows get a label, and when.
        against: Names of the baselines.
        without_labels: Whether to run the detector a second time, without labels.
        incidents: When incidents close.
        budgets: Rates of false incidents an event that are decided beside the configured budget.
        hooks: What is told of progress, and what ends the backtest early.

    Returns:
        The backtest; check ``complete`` where something may end it early.
    """
    total = len(stream)
    shared = options.detector.models == "shared"
    group = np.zeros(total, np.int64) if shared else stream.sensor
    run = Backtest(
        stream=stream,
        protocol=protocol,
        options=options,
        schedule=Schedule(stream, protocol),
        detector=_blank(total, 1 + len(budgets)),
        unlabelled=_blank(total, 1 + len(budgets)) if without_labels else None,
        baselines={name: np.zeros(total) for name in against},
        baseline_seconds=dict.fromkeys(against, 0.0),
        incidents=incidents,
        budgets=budgets,
    )
    shard = Shard(options, incidents=incidents, budgets=budgets)
    unlabelled_shard = Shard(options, incidents=incidents, budgets=budgets)
    no_labels = _no_labels()
    baselines = make_baselines(list(against), stream, group, protocol.seed)
    while run.done < total and not (hooks.stop is not None and hooks.stop.is_set()):
        start, end = run.done, min(run.done + CHUNK_ROWS, total)
        _step(shard, run.detector, stream, start, end, run.schedule.labels(start, end))
        if run.unlabelled is not None:
            _step(unlabelled_shard, run.unlabelled, stream, start, end, no_labels)
        values = stream.values(start, end) if baselines else None
        for name, baseline in baselines.items():
            assert values is not None
            began = time.perf_counter()
            run.baselines[name][start:end] = baseline.score(group[start:end], values)
            run.baseline_seconds[name] += time.perf_counter() - began
        run.done = end
        if hooks.progress is not None:
            hooks.progress(end, total)
    return run


def _step(shard: Shard, out: RunResult, stream: Stream, start: int, end: int, labels: Labels) -> None:
    events = stream.events(start, end)
    began = time.perf_counter()
    result = shard.step(events, labels)
    out.seconds += time.perf_counter() - began
    scores = result.scores
    out.score[start:end], out.live[start:end] = scores.score, scores.live
    out.alarms[start:end] = np.where(scores.live[:, None], scores.alarms, 0.0)
    out.contributions.update({start + row: named for row, named in scores.contributions.items()})
    for row, incident_id in scores.incident_ids.items():
        out.opened_at.setdefault(incident_id, start + row)
    for total, addend in ((out.counts, result.counts), (out.label_outcomes, result.label_outcomes)):
        for name, count in addend.items():
            total[name] = total.get(name, 0) + count
    out.incidents += result.incidents


def _blank(rows: int, budgets: int) -> RunResult:
    return RunResult(np.zeros(rows), np.zeros((rows, budgets)), np.zeros(rows, np.bool_))


def _no_labels() -> Labels:
    none = np.empty(0, np.int64)
    return Labels(none, none, [], [], [], none, none)
