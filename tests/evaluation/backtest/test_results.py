"""The figures of a backtest, number by number on a recording made by hand, and every key that is promised."""

from __future__ import annotations

import json

import numpy as np
import pytest

from stream_ad.detector.alarm_config import AlarmsConfig, IncidentSettings
from stream_ad.evaluation.backtest.command import budgets, sentences
from stream_ad.evaluation.backtest.label_schedule import Delay, Protocol, Schedule
from stream_ad.evaluation.backtest.results import OLD_BY_ROW_KEY, OLD_LABELS_KEY, results
from stream_ad.evaluation.backtest.runner import Backtest, RunResult
from stream_ad.evaluation.backtest.stream import Stream
from stream_ad.settings import Settings
from tests.support.incidents import incident
from tests.support.recordings import OPTIONS, recording

N, L, J = "normal", "leak", "jump"
#           a  b  a  b  a  b  a  b  a  b  a  b
LABELS = [N, N, N, N, L, N, L, None, N, N, J, N]
EVALUATE = [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
SCORE = [0.9, 0.9, 0.5, 0.2, 0.4, 0.8, 0.7, 0.95, 0.1, 0.3, 0.2, 0.1]
ALARM = [0, 0, 0.5, 0.2, 0.4, 2.0, 1.5, 9.0, 0.1, 0.3, 0.2, 0.1]
WIDER = [0, 0, 1.5, 0.2, 1.4, 3.0, 2.5, 9.0, 0.1, 0.3, 1.0, 0.1]  # at the further budget
WITHOUT = [0, 0, 0.5, 0.2, 0.4, 0.2, 0.3, 0.2, 0.1, 0.3, 0.05, 0.1]
HOURS = np.arange(12) * 3600
RATE = 0.25
PUBLISHED = [
    incident(incident_id="b/6"),
    incident(incident_id="a/7", kind="spike"),
    incident(incident_id="b/6", state="closed", events=2, severity="critical", reason="over"),
]


def made(score, alarms, incidents=()):
    """A replay with these scores and alarms (12,) by budget; incident b/6 opened at row 5, a/7 at row 6."""
    return RunResult(
        np.array(score, np.float64),
        np.array(alarms, np.float64).T,
        np.ones(12, np.bool_),
        incidents=list(incidents),
        opened_at={each.incident_id: int(each.incident_id.partition("/")[2]) - 1 for each in incidents},
        seconds=2.0,
    )


@pytest.fixture
def run():
    """Two sensors, of which b has no anomaly; scores and alarms set by hand."""
    hourly = recording(LABELS, sensors=["a", "b"] * 6, times_s=HOURS, evaluate=EVALUATE)
    stream = Stream([hourly], warmup=None, default_warmup=64)
    protocol = Protocol(delay=Delay(1), seed=3)
    return Backtest(
        stream=stream,
        protocol=protocol,
        options=OPTIONS.model_copy(update={"alarms": AlarmsConfig(per="day")}),
        schedule=Schedule(stream, protocol),
        detector=made(SCORE, [ALARM, WIDER], PUBLISHED),
        unlabelled=made(WITHOUT, [WITHOUT, WITHOUT]),
        baselines={"zscore": np.arange(12.0)},
        baseline_seconds={"zscore": 0.5},
        incidents=IncidentSettings(quiet_events=1),
        budgets=(RATE,),
        done=12,
    )


@pytest.fixture
def result(run):
    return results(run, settings=Settings().model_dump(mode="json"))


def test_every_promised_key_is_there(result):
    """The JSON has every key that is documented, and survives a strict writer."""
    keys = (
        "rows evaluated roc_auc average_precision micro incidents by_row segments per_class sensors without_labels"
        " events_per_second settings version files complete anomalies against labels counts protocol"
    )
    assert set(result) == {*keys.split(), OLD_LABELS_KEY, OLD_BY_ROW_KEY}
    assert result[OLD_LABELS_KEY] == result["labels"]
    assert set(result["by_row"]) == {"precision", "recall", "f1", "false_alarm_rate"}
    assert result[OLD_BY_ROW_KEY] == {**result["by_row"], "alarms_per_day": result["incidents"]["per_day"]}
    assert set(result["incidents"]) == {"opened", "per_day", "kinds", "severities", "reasons", "budgets"}
    assert set(result["segments"]) == {"detected", "total", "delay_events_median"}
    assert set(result["micro"]) == {"roc_auc", "average_precision"}
    assert set(result["without_labels"]) == {
        "roc_auc", "average_precision", "micro", "incidents", "by_row", "segments", OLD_BY_ROW_KEY,
    }  # fmt: skip
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_rows(result):
    """Evaluated are rows with evaluate = 1 that have a label."""
    assert (result["rows"], result["evaluated"], result["anomalies"], result["complete"]) == (12, 9, 3, True)


def test_areas(result):
    """The macro mean is over the sensors with both classes (a alone); micro pools all evaluated rows."""
    # a: normal .5 .1; anomalies .4 .7 .2: pairs won 1+0 of (.4), 2 of (.7), 1 of (.2): 4 of 6
    assert result["roc_auc"] == pytest.approx(4 / 6)
    # ranked .7 L, .5 n, .4 L, .2 L, .1 n
    assert result["average_precision"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    # pooled normals .5 .1 | .2 .8 .3 .1; anomalies .4, .7, .2: won 4 of 6, 5 of 6, 2 of 6 and a tie
    assert result["micro"]["roc_auc"] == pytest.approx((4 + 5 + 2.5) / 18)


def test_rows_that_alarm(result):
    """Of the evaluated rows, one of three anomalies and one of six normal ones alarm at the configured budget."""
    assert result["by_row"] == {
        "precision": 1 / 2,
        "recall": 1 / 3,
        "f1": pytest.approx(2 / 5),
        "false_alarm_rate": 1 / 6,
    }


def test_published_incidents(result):
    """Each incident counts once, as its last message has it, if it opened while rows were evaluated."""
    assert result["incidents"]["opened"] == 2
    assert result["incidents"]["per_day"] == pytest.approx(2 / (9 / 24))  # from 2:00 to 11:00
    assert result["incidents"]["kinds"] == {"spike": 1, "sustained": 1, "stuck": 0}
    assert result["incidents"]["severities"] == {"minor": 1, "major": 0, "critical": 1}
    assert result["incidents"]["reasons"] == {"over": 1, "accepted": 0, "judged": 0, "sensor_gone": 0, "open": 1}


def test_incidents_before_the_evaluated_rows_do_not_count(run):
    """An incident of the warm-up is not among the published ones."""
    run.detector.opened_at["b/6"] = 1
    incidents = results(run, settings={})["incidents"]
    assert (incidents["opened"], incidents["severities"]["critical"]) == (1, 0)


def test_budgets(result):
    """At each budget: what it promises on six normal rows, its false incidents, its faults, and by class."""
    further, configured = result["incidents"]["budgets"]
    assert further == {
        "budget": "1 per 4 events",
        "configured": False,
        "rate": RATE,
        "promised": 1.5,
        "incidents": 3,  # rows 2 to 6 and 10 of a; 5 and 7 of b, of which nobody knows the latter
        "false": 1,
        "found": 2,
        "faults": 2,
        "median_delay_events": 0.0,
        "time_in_alarm": 5 / 9,
        "by_class": {
            "leak": {"found": 1, "faults": 1, "median_delay_events": 0.0},
            "jump": {"found": 1, "faults": 1, "median_delay_events": 0.0},
        },
    }
    assert configured == {
        "budget": "1 per day",
        "configured": True,
        "rate": pytest.approx(2 / 24),  # each sensor is read every two hours
        "promised": pytest.approx(6 * 2 / 24),
        "incidents": 2,
        "false": 1,
        "found": 1,
        "faults": 2,
        "median_delay_events": 1.0,
        "time_in_alarm": 2 / 9,
        "by_class": {
            "jump": {"found": 0, "faults": 1, "median_delay_events": None},
            "leak": {"found": 1, "faults": 1, "median_delay_events": 1.0},
        },
    }
    for row in result["without_labels"]["incidents"]["budgets"]:
        assert (row["incidents"], row["found"], row["faults"]) == (0, 0, 2)


def test_budgets_as_a_table(result):
    """The table has a line for each budget, with the run without labels beside it, or dashes where there was none."""
    assert budgets(result) == [
        ("1 per 4 events", "1.5", "1", "2 of 2", "55.6 %", "0 events", "0", "0"),
        ("1 per day (configured)", "0.5", "1", "1 of 2", "22.2 %", "1 event", "0", "0"),
    ]
    assert [row[-2:] for row in budgets({**result, "without_labels": None})] == [("–", "–")] * 2


def test_faults(result):
    """The leak is found on its second row, the jump is not."""
    assert result["segments"] == {"detected": 1, "total": 2, "delay_events_median": 1.0}
    assert result["per_class"]["leak"]["recall"] == 1 / 2
    assert result["per_class"]["leak"]["segments"] == {"detected": 1, "total": 1, "delay_events_median": 1.0}
    assert result["per_class"]["jump"]["segments"]["detected"] == 0
    # jump .2 against normals .5 .1 .2 .8 .3 .1: above two, tied with one
    assert result["per_class"]["jump"]["roc_auc"] == pytest.approx(2.5 / 6)


def test_sentences_agree_with_the_number_of_faults(result):
    """Of a single fault that was found there is no half."""
    assert "Faults found: 1 of 2, within 2 events of its beginning." in sentences(result)
    several = {**result, "segments": {"detected": 2, "total": 2, "delay_events_median": 1.0}}
    assert "Faults found: 2 of 2, half of them within 2 events of their beginning." in sentences(several)
    silent = {**result, "segments": {"detected": 0, "total": 2, "delay_events_median": None}}
    assert "Faults found: 0 of 2." in sentences(silent)


def test_sentence_on_incidents(result):
    """One sentence says how many incidents opened, of which kinds and severities, and why they closed."""
    assert next(sentences(result)) == (
        "Incidents opened: 2, 5.3 a day: 1 spike, 1 sustained; 1 minor, 1 critical; 1 over, 1 open."
    )
    none = {**result, "incidents": {**result["incidents"], "opened": 0}}
    assert next(sentences(none)) == "Incidents opened: none."


def test_sensors(result):
    """Each sensor has its own figures; one without anomalies has no areas."""
    assert set(result["sensors"]) == {"a", "b"}
    a, b = result["sensors"]["a"], result["sensors"]["b"]
    assert (a["rows"], a["evaluated"], a["anomalies"]) == (6, 5, 3)
    assert a["roc_auc"] == pytest.approx(4 / 6)
    assert (b["rows"], b["evaluated"], b["anomalies"]) == (6, 4, 0)
    assert (b["roc_auc"], b["average_precision"], b["recall"]) == (None, None, None)
    assert b["false_alarm_rate"] == 1 / 4
    assert [(each["incidents"], each["false_incidents"]) for each in (a, b)] == [(1, 0), (1, 1)]


def test_without_labels_and_baselines(result):
    """The same figures for the run without labels; areas for baselines."""
    # without: normal .5 .1; anomalies .4 .3 .05: 1 + 1 + 0 of 6
    assert result["without_labels"]["roc_auc"] == pytest.approx(2 / 6)
    assert result["without_labels"]["by_row"]["recall"] == 0
    assert result["without_labels"]["segments"]["delay_events_median"] is None
    # the row number as a score: normals 2, 8; anomalies 4, 6, 10
    assert result["against"]["zscore"]["roc_auc"] == pytest.approx((1 + 1 + 2) / 6)
    assert result["against"]["zscore"]["events_per_second"] == 24


def test_the_rest(result):
    """Speed, protocol and labels are among the figures."""
    assert result["events_per_second"] == 6
    assert result["protocol"] == {"label_delay": "1 event", "label_coverage": 1.0, "intervals": False, "seed": 3}
    assert result["labels"]["given"] == 9  # eleven labels; those on the last row of each sensor come too late
    assert result["settings"]["threshold"]["window_events"] == 8192


def test_a_part(run):
    """Interrupted, the figures are those of the rows done by then."""
    run.done = 6
    result = results(run, settings={})
    assert (result["rows"], result["evaluated"], result["anomalies"], result["complete"]) == (6, 4, 1, False)
    run.done = 0
    nothing = results(run, settings={})
    assert (nothing["rows"], nothing["roc_auc"], nothing["by_row"]["recall"]) == (0, None, None)
