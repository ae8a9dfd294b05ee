"""Promises of the summary at the end of a run."""

from __future__ import annotations

import numpy as np
import pytest
from structlog.testing import capture_logs

from stream_ad.records.columns import Scores, StepResult
from stream_ad.settings import Settings, TopicSettings
from stream_ad.telemetry.run_summary import RunSummary
from stream_ad.testing import ManualClock
from tests.support.incidents import CLOSED, OPENED, WORSE


def result(events=0, incidents=(), counts=None, outcomes=None, promised=0.0):
    nothing = np.empty(0)
    return StepResult(
        Scores(
            *(np.zeros(events), np.zeros((events, 1))),
            *(np.zeros(events, np.int8), np.zeros(events, np.int8), np.ones(events, np.bool_)),
        ),
        list(incidents),
        counts or {},
        outcomes or {},
        nothing,
        nothing,
        promised,
    )


def summed_up(*steps, incidents_open=0):
    """Return the summary of steps, each with labels and rejected records."""
    clock = ManualClock()
    summary = RunSummary(Settings(topics=TopicSettings(dead_letters="letters", events="readings")), clock)
    clock.advance(2.5)
    for step, labels, rejected in steps:
        summary.add(step, labels=labels, rejected=rejected)
    with capture_logs() as logs:
        summary.log(incidents_open=incidents_open)
    (line,) = logs
    return line


def test_a_run_is_summed_up():
    """The summary adds up what all steps did. A rise of severity is no further incident, and labels that reach no event
    do not count as joined.
    """
    first = result(
        100, [OPENED, WORSE], {"learned_normal": 60, "learned_anomaly": 2, "dropped_gate": 9},
        {"applied": 3, "late": 1, "early": 5, "repeated": 4, "corrected": 1, "interval": 1},
    )  # fmt: skip
    second = result(50, [CLOSED, OPENED], {"learned_normal": 20}, promised=1.25)
    line = summed_up((first, 15, 2), (second, 0, 1), incidents_open=1)
    assert line.items() >= {
        "event": "summary", "seconds": 2.5, "events_scored": 150, "labels": 15, "labels_joined": 6,
        "events_learned": 82, "incidents_opened": 2, "incidents_closed": 1, "incidents_open": 1, "rejected_records": 3,
        "false_incidents_promised": 1.25,
    }.items()  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "incidents_open", "said", "unsaid"),
    [
        ([], 0, ["readings", "doctor"], ["incidents", "scores", "letters"]),
        ([(result(5), 0, 0)], 0, ["stream-ad scores"], ["incidents", "doctor", "letters"]),
        ([(result(5, [OPENED]), 0, 0)], 1, ["stream-ad incidents", "stream-ad scores"], ["doctor", "letters"]),
        ([(result(5), 0, 0)], 2, ["stream-ad incidents"], ["doctor"]),
        ([(result(0), 0, 7)], 0, ["letters"], ["doctor", "incidents", "scores"]),
    ],
)
def test_it_says_where_to_look_next(steps, incidents_open, said, unsaid):
    """The summary names the commands and topics that have something to show, or what to check where nothing came."""
    text = summed_up(*steps, incidents_open=incidents_open)["next"]
    assert all(word in text for word in said)
    assert not any(word in text for word in unsaid)
