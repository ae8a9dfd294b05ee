"""The section classes of benchmarks/alarms.py: whether incidents name the class of the fault that they are on.

Incidents are those at 1e-4 false ones an event. The class suspected most is right if most anomalous rows of the
incident have it. The Brier score is the sum, over all classes, of the squared difference between the probability and
what came true, from 0 to 2, lower is better. The base rate names the class with most labelled faults so far, and gives
each class its faults over all faults and one: to leave a share to classes yet unknown scores better than not to.

An incident counts as it opens and at its peak, each unless its fault had a label by then, or nothing had.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from alarm_checks import stream_of
from alarm_runs import backtest, counted_code, header, in_processes, line
from made_up_presses import DELAY, presses
from streams import options_of

from stream_ad.evaluation.backtest.incident_figures import faults_of
from stream_ad.evaluation.backtest.metrics import segments

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from alarm_runs import Source
    from numpy.typing import NDArray

    from stream_ad.evaluation.backtest.runner import Backtest
    from stream_ad.evaluation.backtest.stream import Stream
    from stream_ad.records.schemas import Incident

COVERAGES = (0.1, 1.0)
LEAST_CLASSES = 3
PRESSES = "presses"
BUDGET = "alarms.per=10000 events"
MOMENTS = ("as it opens", "at its peak")
CHOSEN_ON = {"plant-days": (0,), "regimes": (0,), "heavy": (0,), "constant": (0,), "classes": (0, 1)}
"""Streams on which the constants of the detector's part were chosen, and their seeds."""


@dataclass(frozen=True)
class Naming:
    """What an incident said of its class, beside the base rate."""

    right: bool
    brier: float
    base_right: bool
    base_brier: float


def classes_section(sources: Sequence[Source], seed: int, settings: Sequence[str], jobs: int) -> Iterator[str]:
    """Yield how often the class suspected most is right, and how good its probabilities are."""
    yield "Incidents on labelled faults; of these named right / Brier score, and the same of the base rate.\n"
    yield header("stream", "labels", *(f"{moment}: {who}" for moment in MOMENTS for who in ("n", "named", "base rate")))
    chosen = [source for source in sources if has_classes(source.stream(seed))]
    tasks = [(source, coverage, seed, settings) for source in (*chosen, None) for coverage in COVERAGES]
    total: dict[tuple[str, float], list[list[Naming]]] = {}
    for (source, coverage, *_), namings in zip(tasks, in_processes(named_at, tasks, jobs), strict=True):
        name = source.name if source else PRESSES
        group = "all that constants were chosen on" if seed in CHOSEN_ON.get(name, ()) else "all others"
        for moment, more in enumerate(namings):
            total.setdefault((group, coverage), [[], []])[moment].extend(more)
        yield _line(name, coverage, namings)
    for (group, coverage), namings in sorted(total.items(), reverse=True):
        yield _line(group, coverage, namings)


def has_classes(stream: Stream) -> bool:
    """Say whether a stream has faults of three or more classes."""
    faults = faults_of(stream.sensor, counted_code(stream))
    return len({fault.code for fault in faults}) >= LEAST_CLASSES


def named_at(
    source: Source | None, coverage: float, seed: int, settings: Sequence[str]
) -> tuple[list[Naming], list[Naming]]:
    """Return what the incidents of a stream, or of the presses, say as they open and at their peak."""
    if source:
        given = truth = source.stream(seed)
        delay = source.delay
    else:
        made = presses(seed)
        given, truth, delay = stream_of(made.labelled), stream_of(made.truth), DELAY
    run = backtest(given, delay, coverage, seed, options_of([BUDGET, *settings], seed), ())
    return judged(run, truth)


def judged(run: Backtest, truth: Stream) -> tuple[list[Naming], list[Naming]]:
    """Judge what the incidents of a run say as they open and at their peak, against the true labels."""
    first: dict[str, Incident] = {}
    latest: dict[str, Incident] = {}
    for message in run.detector.incidents:
        first.setdefault(message.incident_id, message)
        latest[message.incident_id] = message
    row_of = dict(zip(truth.event_ids(np.arange(len(truth))), range(len(truth)), strict=True))
    code, faults = counted_code(truth), segments(truth.sensor, truth.code)
    fault_of = np.zeros(len(truth), np.int64)
    for number, fault in enumerate(faults):
        fault_of[fault.rows] = number
    labelled_after = _labelled_after(run, truth, fault_of, len(faults))
    codes = np.array([fault.code for fault in faults])
    own_rows = {name: np.flatnonzero(truth.sensor == number) for number, name in enumerate(truth.sensors)}
    named: tuple[list[Naming], list[Naming]] = ([], [])
    for opening, closing in zip(first.values(), latest.values(), strict=True):
        sensor = own_rows[opening.sensor_id]
        begin = int(np.searchsorted(sensor, row_of[opening.peak_event_id]))
        rows = sensor[begin : begin + 1 + _events_until(truth, sensor[begin:], closing)]
        anomalous = rows[code[rows] > 0]
        if not len(anomalous):
            continue
        true = truth.classes[int(np.bincount(code[anomalous]).argmax())]
        by_label = int(labelled_after[np.unique(fault_of[anomalous])].min())
        for moment, message in enumerate((opening, closing)):
            row = row_of[message.peak_event_id]
            labelled = codes[(labelled_after < row) & (codes > 0)]
            if len(labelled) and row <= by_label:
                counts = Counter(truth.classes[each] for each in labelled.tolist())
                suspected = {each.name: each.probability for each in message.classes}
                base = {name: number / (len(labelled) + 1) for name, number in counts.items()}
                named[moment].append(
                    Naming(
                        next(iter(suspected), None) == true,
                        brier(suspected, true),
                        max(sorted(base), key=base.__getitem__) == true,
                        brier(base, true),
                    )
                )
    return named


def _events_until(truth: Stream, rows: NDArray[np.int64], closing: Incident) -> int:
    """Return how many of the rows (M,) after the first lie before the end of an incident, or at it."""
    end_us = round(closing.end.timestamp() * 1e6)
    return max(0, int((truth.times_ns[rows] // 1000 <= end_us).sum()) - 1)


def _labelled_after(run: Backtest, truth: Stream, fault_of: NDArray[np.int64], faults: int) -> NDArray[np.int64]:
    """Return the row (K,) after which each of K stretches of a label has its first label; N where it gets none."""
    schedule = run.schedule
    after = np.full(faults, len(truth), np.int64)
    np.minimum.at(after, fault_of[schedule.rows], schedule.after)
    return after


def brier(probabilities: Mapping[str, float], true: str) -> float:
    """Return the Brier score of probabilities by class; a class that is not named has none."""
    named = sum((probability - (name == true)) ** 2 for name, probability in probabilities.items())
    return named + (true not in probabilities)


def _line(name: str, coverage: float, namings: Sequence[Sequence[Naming]]) -> str:
    cells = [name, f"{100 * coverage:g} %"]
    for each in namings:
        figures = np.array(
            [(naming.right, naming.brier, naming.base_right, naming.base_brier) for naming in each], float
        )
        right, score, base_right, base_score = figures.mean(axis=0).tolist() if len(figures) else (np.nan,) * 4
        pairs = f"{right:.2f} / {score:.2f}", f"{base_right:.2f} / {base_score:.2f}"
        cells += [str(len(figures)), *(pairs if len(figures) else ("-", "-"))]
    return line(cells)
