"""What to try next, as the figures of a backtest suggest; and whether it comes true."""

from __future__ import annotations

import dataclasses
import shlex

import pytest
import torch

from stream_ad.detector.alarm_config import AlarmOverride, AlarmsConfig
from stream_ad.evaluation.backtest.advice import advice
from stream_ad.evaluation.backtest.budgets import RATES
from stream_ad.evaluation.backtest.label_schedule import Delay, Protocol
from stream_ad.evaluation.backtest.results import Figures, results
from stream_ad.evaluation.backtest.runner import run_backtest
from stream_ad.evaluation.backtest.stream import Stream
from tests.support.recordings import OPTIONS, drawn

HARDLY_ANY = AlarmsConfig(false_incidents=1e-9, per="100 years")


def budgeted(alarms):
    """Options with these alarms."""
    return OPTIONS.model_copy(update={"alarms": alarms})


@pytest.fixture(scope="module")
def run():
    """A backtest whose configured budget is so small that it finds few of the faults."""
    torch.set_num_threads(1)
    stream = Stream([drawn(4000, faults=0.01)], warmup=None, default_warmup=64)
    return run_backtest(stream, budgeted(HARDLY_ANY), Protocol(delay=Delay(20)), against=["zscore"], budgets=RATES)


@pytest.fixture(scope="module")
def result(run):
    return results(run, settings={})


def titles(run, result, **changes):
    return [piece["title"] for piece in advice(Figures(run), {**result, **changes})]


def test_advice_without_two_classes(run, result):
    """Where only one class was evaluated, that is all there is to say."""
    nothing = dataclasses.replace(run, done=0)
    assert titles(nothing, result) == ["Label rows of both kinds"]


def test_advice_when_a_baseline_wins(run, result):
    """A baseline that is clearly ahead is named; one that is a little ahead is not."""

    def against(by):
        return {"zscore": {"roc_auc": result["roc_auc"] + by, "average_precision": 0.0}}

    assert "Running z-score is ahead here" in titles(run, result, against=against(0.05))
    assert "Running z-score is ahead here" not in titles(run, result, against=against(0.005))


def test_the_budget_advised_is_one_of_the_run(run, result):
    """The advice promises what the run decided at a budget, and says how to set that one."""
    (piece,) = [piece for piece in advice(Figures(run), result) if "alarms.per" in piece["options"]]
    false_incidents, per = in_options(piece["options"])
    (advised,) = [
        row
        for row in result["incidents"]["budgets"]
        if row["budget"].replace(",", "") == f"{false_incidents} per {per}"
    ]
    assert advised["found"] > result["incidents"]["budgets"][-1]["found"]
    assert f"{advised['found']} would have rung, with {advised['false']} false incident" in piece["text"]


@pytest.mark.parametrize("rate", RATES)
def test_advice_on_the_budget_comes_true(run, result, rate):
    """Whichever budget is advised: followed, it has exactly the figures that its row promised, without labels too."""
    rows = result["incidents"]["budgets"]
    advised = next(row for row in rows if row["rate"] == rate)
    chosen = {**result["incidents"], "budgets": [advised, {**rows[-1], "found": 0}]}
    (piece,) = [
        piece for piece in advice(Figures(run), {**result, "incidents": chosen}) if "alarms.per" in piece["options"]
    ]
    false_incidents, per = in_options(piece["options"])

    again = budgeted(AlarmsConfig(false_incidents=false_incidents, per=per))
    followed = results(run_backtest(run.stream, again, run.protocol), settings={})

    for now, before in ((followed, result), (followed["without_labels"], result["without_labels"])):
        (configured,) = now["incidents"]["budgets"]
        promised = before["incidents"]["budgets"][rows.index(advised)]
        for name in ("incidents", "false", "found", "faults", "time_in_alarm", "median_delay_events", "by_class"):
            assert configured[name] == promised[name]
        for name in ("rate", "promised"):
            assert configured[name] == pytest.approx(promised[name], rel=1e-12)


def in_options(text):
    """False incidents and the period that options of the command set, as texts."""
    chosen = dict(word.split("=", 1) for word in shlex.split(text) if word != "--set")
    return chosen["alarms.false_incidents"], chosen["alarms.per"]


def row(rate, detected, false, **changes):
    """A budget of a result, of ten faults."""
    usual = {"budget": "1 per week", "configured": False, "promised": 1.0, "faults": 10}
    return {**usual, "rate": rate, "found": detected, "false": false, **changes}


@pytest.mark.parametrize(
    ("others", "title"),
    [
        ([(1e-4, 8, 4)], "Find more faults, for more false incidents"),
        ([(1e-4, 8, 3)], "Find more faults"),
        ([(1e-5, 5, 0), (1e-4, 5, 2)], "Fewer false incidents"),
        ([(1e-5, 4, 0)], None),  # hardly better
        ([], None),
    ],
)
def test_advice_on_the_budget(run, result, others, title):
    """The best of the other budgets is advised, if it is clearly better than five faults found and three false."""
    rows = [*(row(*each) for each in others), row(2e-6, 5, 3, configured=True)]
    pieces = advice(Figures(run), {**result, "incidents": {**result["incidents"], "budgets": rows}})
    assert [piece["title"] for piece in pieces if "alarms.per" in piece["options"]] == ([title] if title else [])


def test_advice_beside_overrides_says_so(run, result):
    """Where some sensors have a budget of their own, the advice says that it must go."""
    overrides = (AlarmOverride(sensors="s1", false_incidents=0.5),)
    options = budgeted(HARDLY_ANY.model_copy(update={"overrides": overrides}))
    pieces = advice(Figures(dataclasses.replace(run, options=options)), result)
    assert any("out of alarms.overrides" in piece["text"] for piece in pieces)
    assert not any("out of alarms.overrides" in piece["text"] for piece in advice(Figures(run), result))


def test_advice_on_labels(run, result):
    """Whether labels pay, do harm or never came is said by the two runs."""

    def without(by):
        return {**result["without_labels"], "average_precision": result["average_precision"] - by}

    assert "Labels pay" in titles(run, result, without_labels=without(0.2))
    assert "Labels do not help here" in titles(run, result, without_labels=without(-0.2))
    none = {"given": 0, "outcomes": {}}
    assert "No label arrived in time" in titles(run, result, without_labels=without(0.0), labels=none)
    late = {"given": 100, "outcomes": {"late": 60}}
    assert "Labels come after events were let go" in titles(run, result, labels=late)


def test_a_single_fault_is_counted_in_good_english(run, result):
    """Advice on few faults agrees with their number."""

    def text(total):
        segments = {"detected": 1, "total": total, "delay_events_median": 0.0}
        (piece,) = [
            piece for piece in advice(Figures(run), {**result, "segments": segments}) if "care" in piece["title"]
        ]
        return piece["text"]

    assert "There is only 1 fault among" in text(1)
    assert "There are only 2 faults among" in text(2)


def test_advice_on_broken_promises_and_short_streams(run, result):
    """Far more false incidents than promised, sensors near chance, few faults and short sensors are pointed out."""
    for false, said in ((4, True), (3, False)):
        rows = [row(2e-6, 5, false, configured=True, promised=1.0)]
        broken = titles(run, result, incidents={**result["incidents"], "budgets": rows})
        assert ("More false incidents than promised" in broken) == said
    weak = {name: {**figures, "roc_auc": 0.5} for name, figures in result["sensors"].items()}
    assert "Some sensors are hardly better than chance" in titles(run, result, sensors=weak)
    few = {"detected": 1, "total": 2, "delay_events_median": 0.0}
    assert "Take these figures with care" in titles(run, result, segments=few)
    assert "Sensors are short: let them share a model" in titles(run, {**result, "rows": 400})
