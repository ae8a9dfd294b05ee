"""Advice on what to try next, from the figures of a backtest. Every piece names the figures it follows from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ad.evaluation.backtest.baselines import TITLES
from stream_ad.evaluation.backtest.budgets import has_overrides, in_events
from stream_ad.evaluation.backtest.formatting import count, short

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ad.evaluation.backtest.results import Figures

FEW_FAULTS = 10
AREAS = {"roc_auc": "ROC AUC", "average_precision": "average precision"}
CLEAR = 0.02  # differences of an area below this are noise
WORTH_A_CHANGE = 0.1  # of the F1 of faults and false incidents
WIDE_OF_PROMISE = 3  # times the promise, and more than so many, is over it


def advice(figures: Figures, result: dict[str, Any]) -> list[dict[str, str]]:
    """Return pieces of advice, the most useful first: a title, a text, perhaps options of the command.

    Args:
        figures: Figures of the backtest.
        result: The figures that ``results`` returned.
    """
    if not figures.anomalous.any() or figures.anomalous.all():
        return [
            _piece(
                "Label rows of both kinds",
                f"{result['evaluated']:,} rows were evaluated and {result['anomalies']:,} of them are anomalies."
                " Without both kinds nothing can be said about quality. Label some rows normal and some not, or"
                " evaluate more rows.",
            )
        ]
    return [
        piece
        for say in (_few_faults, _against, _promise, _budget, _horizon, _labels, _weak_sensors, _short_streams)
        for piece in say(figures, result)
    ]


def _piece(title: str, text: str, options: str = "") -> dict[str, str]:
    return {"title": title, "text": text, "options": options}


def _few_faults(_figures: Figures, result: dict[str, Any]) -> Iterator[dict[str, str]]:
    if (faults := result["segments"]["total"]) < FEW_FAULTS:
        yield _piece(
            "Take these figures with care",
            f"There {'is' if faults == 1 else 'are'} only {count(faults, 'fault')} among the evaluated rows:"
            " a single one more or less moves every figure. Add recordings.",
        )


def _against(_figures: Figures, result: dict[str, Any]) -> Iterator[dict[str, str]]:
    for name, other in result["against"].items():
        ahead = [key for key in AREAS if (other[key] or 0) > (result[key] or 0) + CLEAR]
        if ahead:
            figures = " and ".join(f"{AREAS[key]} {other[key]:.3f} against {result[key]:.3f}" for key in ahead)
            yield _piece(
                f"{TITLES[name]} is ahead here",
                f"By {figures}. Please report this with the shape of your data.",
            )


def _budget(figures: Figures, result: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Advise the budget of the run at which faults and false incidents are in the best proportion, if clearly so."""
    *others, now = result["incidents"]["budgets"]
    best = max(others, key=_f1, default=now)
    if _f1(best) < _f1(now) + WORTH_A_CHANGE:
        return
    false_incidents, events = in_events(best["rate"])
    more_found, more_false = best["found"] > now["found"], best["false"] > now["false"]
    if more_found:
        title = "Find more faults, for more false incidents" if more_false else "Find more faults"
    else:
        title = "Fewer false incidents, for fewer faults" if best["found"] < now["found"] else "Fewer false incidents"
    alarms = figures.run.options.alarms
    yield _piece(
        title,
        f"{now['found']:,} of {count(now['faults'], 'fault')} rang, with {count(now['false'], 'false incident')}. Had"
        f" {count(false_incidents, 'false incident')} per {events:,} events been tolerated, {best['found']:,} would"
        f" have rung, with {count(best['false'], 'false incident')}: set alarms.false_incidents and alarms.per."
        + (" Take both out of alarms.overrides, which go before them." if has_overrides(alarms) else ""),
        f"--set alarms.false_incidents={false_incidents} --set alarms.per='{events} events'",
    )


def _f1(row: dict[str, Any]) -> float:
    """Return the F1 of a budget: its faults found as hits, its false incidents and faults missed as errors."""
    return float(2 * row["found"] / max(row["found"] + row["false"] + row["faults"], 1))


def _promise(_figures: Figures, result: dict[str, Any]) -> Iterator[dict[str, str]]:
    now = result["incidents"]["budgets"][-1]
    if now["false"] > max(WIDE_OF_PROMISE * now["promised"], WIDE_OF_PROMISE):
        yield _piece(
            "More false incidents than promised",
            f"{now['false']:,} incidents were false, {short(now['promised'])} are tolerated ({now['budget']}). Look at"
            " the list of false incidents: if they are real faults, label them; if they come with a change of"
            ' operation, more labels "normal" there let the levels follow; if they come with planned stops, enter'
            " those as alarms.windows.",
        )


def _horizon(figures: Figures, result: dict[str, Any]) -> Iterator[dict[str, str]]:
    outcomes = result["labels"]["outcomes"]
    lost = outcomes.get("early", 0) + outcomes.get("late", 0)
    if lost > 0.1 * max(result["labels"]["given"], 1):
        delay = figures.run.protocol.delay
        longer = max(figures.run.options.learning.label_horizon_events, delay.events) * 2
        yield _piece(
            "Labels come after events were let go",
            f"{lost:,} of {result['labels']['given']:,} labels came when their event had been learned without"
            " them or had left memory. Let events wait longer.",
            f"--set learning.label_horizon_events={longer}",
        )


def _labels(figures: Figures, result: dict[str, Any]) -> Iterator[dict[str, str]]:
    without = result["without_labels"]
    if without is None or without["average_precision"] is None:
        return
    gain = result["average_precision"] - without["average_precision"]
    given = result["labels"]["given"]
    protocol = figures.run.protocol
    every = protocol.coverage == 1 and not protocol.intervals
    if given and gain > CLEAR:
        yield _piece(
            "Labels pay",
            f"{given:,} labels raise average precision from {without['average_precision']:.3f} to"
            f" {result['average_precision']:.3f}." + (" See how few would do." if every else ""),
            "--label-coverage 0.1" if every else "",
        )
    elif given and gain < -CLEAR:
        yield _piece(
            "Labels do not help here",
            f"Average precision is {result['average_precision']:.3f} with and {without['average_precision']:.3f}"
            " without them. Are rows of real faults labelled normal? Compare the list of false incidents with what"
            " happened then.",
        )
    elif not given:
        yield _piece("No label arrived in time", "All would have come after the last row.", "--label-delay 100")


def _weak_sensors(_figures: Figures, result: dict[str, Any]) -> Iterator[dict[str, str]]:
    ranked = {name: sensor["roc_auc"] for name, sensor in result["sensors"].items() if sensor["roc_auc"] is not None}
    weak = sorted((name for name in ranked if ranked[name] < 0.65), key=ranked.__getitem__)
    if weak and len(ranked) > 1:
        named = ", ".join(f"{name} ({ranked[name]:.2f})" for name in weak[:5])
        yield _piece(
            "Some sensors are hardly better than chance",
            f"{len(weak)} of {len(ranked)}: {named}. Do their readings show the faults at all? Look at one of their"
            " faults with the readings beside it; a feature that is missing cannot be learned.",
        )


def _short_streams(figures: Figures, result: dict[str, Any]) -> Iterator[dict[str, str]]:
    each = result["rows"] / max(len(result["sensors"]), 1)
    options = figures.run.options
    few = 4 * options.learning.warmup_events
    if options.detector.models == "per-sensor" and len(result["sensors"]) > 1 and each < few:
        yield _piece(
            "Sensors are short: let them share a model",
            f"A sensor has {each:,.0f} rows on average; with so few, one model for all that have the same features may"
            " learn faster.",
            "--shared",
        )
