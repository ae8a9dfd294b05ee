"""How benchmarks/alarms.py judges the classes that incidents name."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from stream_ad.evaluation.backtest.stream import NORMAL, Stream
from stream_ad.evaluation.recordings.recording import Recording
from stream_ad.records.schemas import Incident, SuspectedClass

START = datetime(2026, 1, 1, tzinfo=UTC)
FAULTS = {10: "leak", 30: "leak", 50: "wear"}
LASTS = 5


@pytest.fixture(scope="module")
def section():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        yield importlib.import_module("alarm_classes")


def stream():
    labels = [NORMAL] * 60
    for first, name in FAULTS.items():
        labels[first : first + LASTS] = [name] * LASTS
    times = int(START.timestamp()) * 10**9 + np.arange(60) * 10**9
    recording = Recording("r", times, ["a"] * 60, labels, np.ones(60, np.bool_), ("f",), np.zeros((60, 1)))
    return Stream([recording], warmup=None, default_warmup=0)


def messages(truth, first, peak, **classes):
    """The opening of an incident on a fault, and its closing with the peak at another row."""
    named = tuple(SuspectedClass(name=name, probability=probability) for name, probability in classes.items())
    rows = np.arange(60)
    return [
        Incident(
            incident_id=f"a/{first}", sensor_id="a", state=state, kind="spike", severity="minor", reason=reason,
            start=START + timedelta(seconds=first), end=START + timedelta(seconds=end), events=1, peak_alarm=2,
            peak_score=0.9, peak_event_id=truth.event_ids(rows[[at]])[0], classes=named,
        )
        for state, reason, end, at in (("open", None, first, first), ("closed", "over", first + LASTS - 1, peak))
    ]  # fmt: skip


def run(truth, incidents, labels):
    """A run with these incidents and labels: the row that each is on, and the row after which it arrives."""
    rows, after = (np.array(column) for column in zip(*labels, strict=True))
    return SimpleNamespace(
        detector=SimpleNamespace(incidents=incidents), schedule=SimpleNamespace(rows=rows, after=after)
    )


def test_an_incident_is_judged_beside_the_faults_labelled_by_then(section):
    """Right is the class of the fault; the base rate knows what was labelled, and leaves a share to other classes."""
    truth = stream()
    incidents = [*messages(truth, 30, 32, leak=0.8), *messages(truth, 50, 52, leak=0.6, wear=0.4)]
    for named in section.judged(run(truth, incidents, [(10, 20)]), truth):
        assert [(each.right, each.base_right) for each in named] == [(True, True), (False, False)]
        np.testing.assert_allclose([each.brier for each in named], [0.2**2, 0.6**2 + 0.6**2])
        np.testing.assert_allclose([each.base_brier for each in named], [0.5**2, 0.5**2 + 1])


def test_what_is_labelled_or_unknowable_does_not_count(section):
    """An incident does not count while no class is known, nor once its own fault has a label."""
    truth = stream()
    incidents = [*messages(truth, 10, 12), *messages(truth, 30, 33, leak=0.8)]
    opening, peak = section.judged(run(truth, incidents, [(10, 20), (30, 31)]), truth)
    assert (len(opening), len(peak)) == (1, 0)


@pytest.mark.parametrize(("probabilities", "score"), [({"leak": 1.0}, 0), ({}, 1), ({"wear": 1.0}, 2)])
def test_the_brier_score_runs_from_certainty_to_error(section, probabilities, score):
    """Certain and right scores 0, nothing said 1, certain and wrong 2."""
    assert section.brier(probabilities, "leak") == score
