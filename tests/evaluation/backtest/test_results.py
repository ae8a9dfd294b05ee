"""The figures of a backtest, number by number on a recording made by hand, and every key that is promised."""

from __future__ import annotations

import json

import numpy as np
import pytest

from stream_ad.evaluation.backtest.command import sentences
from stream_ad.evaluation.backtest.label_schedule import Delay, Protocol, Schedule
from stream_ad.evaluation.backtest.results import OLD_LABELS_KEY, results
from stream_ad.evaluation.backtest.runner import Backtest, RunResult
from stream_ad.evaluation.backtest.stream import Stream
from stream_ad.settings import Settings
from tests.support.recordings import OPTIONS, recording

N, L, J = "normal", "leak", "jump"
#           a  b  a  b  a  b  a  b  a  b  a  b
LABELS = [N, N, N, N, L, N, L, None, N, N, J, N]
EVALUATE = [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
SCORE = [5, 5, 0.5, 0.2, 0.4, 2.0, 1.5, 9.0, 0.1, 0.3, 0.2, 0.1]
WITHOUT = [0, 0, 0.5, 0.2, 0.4, 0.2, 0.3, 0.2, 0.1, 0.3, 0.05, 0.1]
HOURS = np.arange(12) * 3600


@pytest.fixture
def run():
    """Two sensors, of which b has no anomaly; scores set by hand."""
    made = recording(LABELS, sensors=["a", "b"] * 6, times_s=HOURS, evaluate=EVALUATE)
    stream = Stream([made], warmup=None, default_warmup=64)
    protocol = Protocol(delay=Delay(1), seed=3)

    def replayed(score):
        return RunResult(np.array(score, np.float64), np.ones(12, np.bool_), incidents=[0, 5, 6], seconds=2.0)

    return Backtest(
        stream=stream,
        protocol=protocol,
        options=OPTIONS,
        schedule=Schedule(stream, protocol),
        detector=replayed(SCORE),
        unlabelled=replayed(WITHOUT),
        baselines={"zscore": np.arange(12.0)},
        baseline_seconds={"zscore": 0.5},
        done=12,
    )


@pytest.fixture
def result(run):
    return results(run, settings=Settings().model_dump(mode="json"))


def test_every_promised_key_is_there(result):
    """The JSON has every key that is documented, and survives a strict writer."""
    keys = (
        "rows evaluated roc_auc average_precision micro at_threshold segments per_class sensors without_labels"
        " events_per_second settings version files complete anomalies against labels counts protocol"
    )
    assert set(result) == {*keys.split(), OLD_LABELS_KEY}
    assert result[OLD_LABELS_KEY] == result["labels"]
    assert set(result["at_threshold"]) == {"precision", "recall", "f1", "false_alarm_rate", "alarms_per_day"}
    assert set(result["segments"]) == {"detected", "total", "delay_events_median"}
    assert set(result["micro"]) == {"roc_auc", "average_precision"}
    assert set(result["without_labels"]) == {
        "roc_auc", "average_precision", "micro", "at_threshold", "segments",
    }  # fmt: skip
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_rows(result):
    """Evaluated are rows with evaluate = 1 that have a label."""
    assert (result["rows"], result["evaluated"], result["anomalies"], result["complete"]) == (12, 9, 3, True)


def test_areas(result):
    """The macro mean is over the sensors with both classes (a alone); micro pools all evaluated rows."""
    # a: normal .5 .1; anomalies .4 1.5 .2: pairs won 1+0 of (.4), 2 of (1.5), 1 of (.2): 4 of 6
    assert result["roc_auc"] == pytest.approx(4 / 6)
    # ranked 1.5 L, .5 n, .4 L, .2 L, .1 n
    assert result["average_precision"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    # pooled normals .5 .1 | .2 2.0 .3 .1; anomalies .4, 1.5, .2: won 4 of 6, 5 of 6, 2 of 6 and a tie
    assert result["micro"]["roc_auc"] == pytest.approx((4 + 5 + 2.5) / 18)


def test_at_the_threshold(result):
    """At a score of 1, one of three anomalies and one of six normal rows are flagged; two incidents in nine hours."""
    assert result["at_threshold"] == {
        "precision": 1 / 2,
        "recall": 1 / 3,
        "f1": pytest.approx(2 / 5),
        "false_alarm_rate": 1 / 6,
        "alarms_per_day": pytest.approx(2 / (9 / 24)),  # from 2:00 to 11:00; that in the warm-up does not count
    }


def test_faults(result):
    """The leak is noticed on its second row, the jump is not."""
    assert result["segments"] == {"detected": 1, "total": 2, "delay_events_median": 1.0}
    assert result["per_class"]["leak"]["recall"] == 1 / 2
    assert result["per_class"]["leak"]["segments"] == {"detected": 1, "total": 1, "delay_events_median": 1.0}
    assert result["per_class"]["jump"]["segments"]["detected"] == 0
    # jump .2 against normals .5 .1 .2 2.0 .3 .1: above two, tied with one
    assert result["per_class"]["jump"]["roc_auc"] == pytest.approx(2.5 / 6)


def test_sentences_agree_with_the_number_of_faults(result):
    """Of a single noticed fault there is no half."""
    assert "Faults noticed: 1 of 2, within 2 events of its beginning." in sentences(result)
    several = {**result, "segments": {"detected": 2, "total": 2, "delay_events_median": 1.0}}
    assert "Faults noticed: 2 of 2, half of them within 2 events of their beginning." in sentences(several)
    silent = {**result, "segments": {"detected": 0, "total": 2, "delay_events_median": None}}
    assert "Faults noticed: 0 of 2." in sentences(silent)


def test_sensors(result):
    """Each sensor has its own figures; one without anomalies has no areas."""
    assert set(result["sensors"]) == {"a", "b"}
    a, b = result["sensors"]["a"], result["sensors"]["b"]
    assert (a["rows"], a["evaluated"], a["anomalies"]) == (6, 5, 3)
    assert a["roc_auc"] == pytest.approx(4 / 6)
    assert (b["rows"], b["evaluated"], b["anomalies"]) == (6, 4, 0)
    assert (b["roc_auc"], b["average_precision"], b["recall"]) == (None, None, None)
    assert b["false_alarm_rate"] == 1 / 4


def test_without_labels_and_baselines(result):
    """The same figures for the run without labels; areas for baselines."""
    # without: normal .5 .1; anomalies .4 .3 .05: 1 + 1 + 0 of 6
    assert result["without_labels"]["roc_auc"] == pytest.approx(2 / 6)
    assert result["without_labels"]["at_threshold"]["recall"] == 0
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
    assert (nothing["rows"], nothing["roc_auc"], nothing["at_threshold"]["recall"]) == (0, None, None)
