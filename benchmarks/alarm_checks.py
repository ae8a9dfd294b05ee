"""The questions that benchmarks/alarms.py puts to the alarm, each on a made-up stream of its own, as tables.

Every function takes the seed, detector settings such as ``learning.rate=0.001`` and the number of processes, and
yields lines.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
from alarm_runs import (
    COVERAGES,
    QUIET_EVENTS,
    alarming,
    at_budgets,
    backtest,
    counted_code,
    header,
    in_processes,
    line,
)
from fleet_baseline import detected_at_false_incidents
from made_up import delay_of, recording
from made_up_checks import (
    AGES,
    CHANGE_ROW,
    CHANGES,
    FLEETS,
    INTERVALS_S,
    LASTS,
    NOISES,
    STUCK,
    at_interval,
    change,
    error_label,
    fleet,
    noise,
    stuck,
)
from made_up_presses import DELAY, FAULTS, INTERVAL_S, presses
from streams import options_of

from stream_ad.evaluation.backtest.incident_figures import count, faults_of, spans
from stream_ad.evaluation.backtest.stream import Stream
from stream_ad.evaluation.simulation.plant import FAULTS as PLANT_FAULTS
from stream_ad.evaluation.simulation.plant import FEATURES, Plant, PlantConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stream_ad.detector.config import DetectorOptions
    from stream_ad.evaluation.recordings.recording import Recording

    Check = Callable[[int, Sequence[str], int], Iterator[str]]

HOUR_S, DAY_S = 3600.0, 86_400.0
PERIODS_S = {"hour": HOUR_S, "day": DAY_S, "week": 7 * DAY_S, "month": 365.25 / 12 * DAY_S, "year": 365.25 * DAY_S}


def stream_of(recorded: Recording) -> Stream:
    """Return the rows of a recording."""
    return Stream([recorded], warmup=None, default_warmup=0)


NOISE_BUDGETS = (1e-3, 3e-4, 1e-4)


def noise_section(seed: int, settings: Sequence[str], jobs: int) -> Iterator[str]:
    """Yield false incidents on noise without labels: whether the promise holds where nothing happens at all."""
    yield "False incidents on noise, no labels (promised).\n"
    yield header("noise", *(f"{budget:g} an event" for budget in NOISE_BUDGETS))
    yield from in_processes(_noise_line, [(kind, seed, settings) for kind in NOISES], jobs)


def _noise_line(kind: str, seed: int, settings: Sequence[str]) -> str:
    stream = stream_of(noise(kind, seed))
    run = backtest(stream, 0, 0.0, seed, options_of(settings, seed), NOISE_BUDGETS)
    figures = at_budgets(run, stream, NOISE_BUDGETS)
    return line([kind, *(f"{figures[budget].false} ({figures[budget].promised:.0f})" for budget in NOISE_BUDGETS)])


STUCK_BUDGETS = (1e-4, 1e-3)


def stuck_section(seed: int, settings: Sequence[str], jobs: int) -> Iterator[str]:
    """Yield which exact repeats of a moving reading are detected, and after how many events."""
    yield "Stuck readings detected, of all, median events to the first alarm; false incidents (promised).\n"
    yield header("labels", "budget", *STUCK, "false")
    for lines in in_processes(_stuck_lines, [(coverage, seed, settings) for coverage in COVERAGES], jobs):
        yield from lines


def _stuck_lines(coverage: float, seed: int, settings: Sequence[str]) -> list[str]:
    stream = stream_of(stuck(seed))
    run = backtest(stream, 500, coverage, seed, options_of(settings, seed), STUCK_BUDGETS)
    lines = []
    for budget, figures in at_budgets(run, stream, STUCK_BUDGETS).items():
        by_nature = [figures.by_class[stream.classes.index(nature)] for nature in STUCK]
        cells = [f"{each.detected} of {each.faults}, {each.delay_events_median:.0f}" for each in by_nature]
        lines.append(
            line([f"{100 * coverage:g} %", f"{budget:g}", *cells, f"{figures.false} ({figures.promised:.0f})"])
        )
    return lines


def change_section(seed: int, settings: Sequence[str], jobs: int) -> Iterator[str]:
    """Yield how long a lasting change of what is normal alarms, with nobody's labels and with everybody's."""
    yield "After a lasting change, at 1e-4: incidents, rows that alarm, and rows until the last of them.\n"
    yield header(
        "change", *(f"{share}: {what}" for share in ("0 %", "100 %") for what in ("incidents", "rows", "last"))
    )
    columns = list(in_processes(_change_cells, [(coverage, seed, settings) for coverage in (0.0, 1.0)], jobs))
    for name, *cells in zip(CHANGES, *columns, strict=True):
        yield line([name, *(text for three in cells for text in three)])


def _change_cells(coverage: float, seed: int, settings: Sequence[str]) -> list[list[str]]:
    stream = stream_of(change(seed))
    alarms = alarming(backtest(stream, 500, coverage, seed, options_of(settings, seed), (1e-4,)), 1)
    cells = []
    for sensor in range(len(CHANGES)):
        after = alarms[stream.sensor == sensor][CHANGE_ROW:]
        rows = np.flatnonzero(after)
        incidents = spans(np.zeros(len(after), np.int64), after, QUIET_EVENTS)
        cells.append([str(len(incidents)), f"{len(rows):,}", f"{rows[-1]:,}" if len(rows) else "-"])
    return cells


PRESS_PERIODS = ("month", "week")
STOPS = ("unlabelled", "in the calendar", "none")


def presses_section(seed: int, settings: Sequence[str], jobs: int) -> Iterator[str]:
    """Yield what is detected on presses whose stops nobody labels, with a calendar of the stops, and without stops."""
    yield "Presses: faults detected; false incidents (promised), at so many false incidents a press.\n"
    yield header("stops", "labels", "one a press and", *FAULTS, "all", "false")
    tasks = [(stops, coverage, seed, settings) for stops in STOPS for coverage in COVERAGES]
    for lines in in_processes(_presses_lines, tasks, jobs):
        yield from lines


def _presses_lines(stops: str, coverage: float, seed: int, settings: Sequence[str]) -> list[str]:
    made = presses(seed, with_stops=stops != "none")
    options = options_of(settings, seed)
    if stops == "in the calendar":
        options = with_windows(options, made.stops)
    truth = stream_of(made.truth)
    budgets = [INTERVAL_S / PERIODS_S[period] for period in PRESS_PERIODS]
    run = backtest(stream_of(made.labelled), DELAY, coverage, seed, options, budgets)
    lines = []
    for period, figures in zip(PRESS_PERIODS, at_budgets(run, truth, budgets).values(), strict=True):
        by_kind = [figures.by_class[truth.classes.index(kind)] for kind in FAULTS]
        counts = [f"{each.detected} of {each.faults}" for each in (*by_kind, figures.faults)]
        false = f"{figures.false} ({figures.promised:.1f})"
        lines.append(line([stops, f"{100 * coverage:g} %", period, *counts, false]))
    return lines


def with_windows(options: DetectorOptions, stops: Sequence[tuple[int, int]]) -> DetectorOptions:
    """Return the options with planned stops, given by their first nanosecond and that of their end."""
    periods = [{"start": rfc3339(start), "end": rfc3339(end)} for start, end in stops]
    tree = options.model_dump(exclude_unset=True)
    tree["alarms"] = {**tree.get("alarms", {}), "windows": [{"periods": periods, "learn": "apart"}]}
    return type(options).model_validate(tree)


def rfc3339(time_ns: int) -> str:
    """Return a time of whole seconds."""
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def intervals_section(seed: int, settings: Sequence[str], jobs: int) -> Iterator[str]:
    """Yield the configured promise in calendar time beside what came, and whether a huge error rings."""
    errors = [f"{lasts} after {age:,}" for age in AGES for lasts in LASTS]
    yield "False incidents per sensor and week as configured; whether an error ten times anything seen rings when it"
    yield f"lasts {' or '.join(map(str, LASTS))} events, after so many of its sensor.\n"
    yield header("interval", "promised", "observed", "false, in weeks of sensors", *errors)
    yield from in_processes(_interval_line, [(name, seed, settings) for name in INTERVALS_S], jobs)


def _interval_line(name: str, seed: int, settings: Sequence[str]) -> str:
    options, interval_s = options_of(settings, seed), INTERVALS_S[name]
    stream = stream_of(at_interval(interval_s, seed))
    run = backtest(stream, 0, 0.0, seed, options, ())
    promised = promised_a_week(options, interval_s)
    week_events = PERIODS_S["week"] / interval_s
    code = counted_code(stream)
    figures = count(stream.sensor, code, alarming(run, 0), budget=promised / week_events, quiet_events=QUIET_EVENTS)
    weeks = int((code == 0).sum()) / week_events
    labels = [error_label(age, lasts) for age in AGES for lasts in LASTS]
    rings = ["yes" if figures.by_class[stream.classes.index(label)].detected else "no" for label in labels]
    return line([name, f"{promised:.3g}", f"{figures.false / weeks:.3g}", f"{figures.false} in {weeks:,.1f}", *rings])


def promised_a_week(options: DetectorOptions, interval_s: float) -> float:
    """Return the false incidents per sensor and week that the settings allow, at so many seconds an event."""
    alarms = options.alarms
    in_events = alarms.per not in PERIODS_S  # such as "10000 events"
    period_s = int(alarms.per.split()[0]) * interval_s if in_events else PERIODS_S[alarms.per]
    return float(alarms.false_incidents * PERIODS_S["week"] / period_s)


FLEET_BUDGETS = (1e-4, 1e-3)
FLEET_DELAY = 20
FLEET_SETTINGS = {
    "as delivered": (),
    "warm-up 64": ("learning.warmup_events=64",),
    "shared model": ("detector.models=shared",),
    "shared, warm-up 64": ("detector.models=shared", "learning.warmup_events=64"),
}


def fleets_section(seed: int, settings: Sequence[str], jobs: int) -> Iterator[str]:
    """Yield what is detected in fleets of machines with few rows, beside a running z-score."""
    yield "Short fleets: faults detected / false incidents (promised); then what a running z-score detects with a"
    yield "threshold chosen in hindsight so that it has no more false incidents.\n"
    yield header(
        "fleet, faults",
        "settings",
        "labels",
        *(f"{budget:g}: {who}" for budget in FLEET_BUDGETS for who in ("this", "z-score")),
    )
    tasks = [
        (kind, name, coverage, seed, settings) for kind in FLEETS for name in FLEET_SETTINGS for coverage in (0.0, 1.0)
    ]
    yield from in_processes(_fleet_line, tasks, jobs)


def _fleet_line(kind: str, name: str, coverage: float, seed: int, settings: Sequence[str]) -> str:
    stream = stream_of(fleet(kind, seed))
    options = options_of([*settings, *FLEET_SETTINGS[name]], seed)
    run = backtest(stream, FLEET_DELAY, coverage, seed, options, FLEET_BUDGETS)
    cells = []
    for figures in at_budgets(run, stream, FLEET_BUDGETS).values():
        cells.append(f"{figures.faults.detected} / {figures.false} ({figures.promised:.1f})")
        cells.append(str(detected_at_false_incidents(stream, figures.false, QUIET_EVENTS)))
    faults = len(faults_of(stream.sensor, counted_code(stream)))
    return line([f"{kind}, {faults}", name, f"{100 * coverage:g} %", *cells])


def named_section(seed: int, settings: Sequence[str], jobs: int) -> Iterator[str]:
    """Yield how well alarms are explained: whether the highest of a fault names a feature that is broken."""
    yield "The plant's faults over five days at the configured budget; how many have a broken feature"
    yield "named first, and among the first three, by their highest alarm.\n"
    yield header("labels", *PLANT_FAULTS, "all", "first", "among three")
    yield from in_processes(_named_line, [(coverage, seed, settings) for coverage in COVERAGES], jobs)


def _named_line(coverage: float, seed: int, settings: Sequence[str]) -> str:
    stream = stream_of(recording("plant-days", seed))
    run = backtest(stream, delay_of("plant-days"), coverage, seed, options_of(settings, seed), ())
    alarms, plant = alarming(run, 0), Plant(PlantConfig(machines=len(stream.sensors), seed=seed))
    chunk = plant.chunk(len(stream) // len(stream.sensors))
    counts: Counter[str] = Counter()
    for index, episode in enumerate(plant.episodes):
        rows = np.flatnonzero((chunk.episode == index) & stream.evaluated)
        if episode.kind not in PLANT_FAULTS or not len(rows):
            continue
        counts[f"{episode.kind} of"] += 1
        rows = rows[alarms[rows]]
        if not len(rows):
            continue
        counts[episode.kind] += 1
        highest = int(rows[np.argmax(run.detector.alarms[rows, 0])])
        named = [FEATURES.index(part.feature) for part in run.detector.contributions[highest]]
        counts["first"] += named[0] in episode.broken
        counts["three"] += bool(set(named[:3]) & set(episode.broken))
    every = [sum(counts[f"{kind}{of}"] for kind in PLANT_FAULTS) for of in ("", " of")]
    by_kind = [f"{counts[kind]} of {counts[f'{kind} of']}" for kind in PLANT_FAULTS]
    return line(
        [f"{100 * coverage:g} %", *by_kind, f"{every[0]} of {every[1]}", str(counts["first"]), str(counts["three"])]
    )


CHECKS: dict[str, Check] = {
    "noise": noise_section,
    "stuck": stuck_section,
    "change": change_section,
    "presses": presses_section,
    "intervals": intervals_section,
    "fleets": fleets_section,
    "named": named_section,
}
