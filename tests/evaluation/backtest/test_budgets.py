"""Budgets as rates an event, whatever the settings count in."""

from __future__ import annotations

import numpy as np
import pytest

from stream_ad.detector.alarm_config import AlarmOverride, AlarmsConfig
from stream_ad.evaluation.backtest.budgets import RATES, configured_rates, in_events
from stream_ad.evaluation.backtest.label_schedule import Protocol, Schedule
from stream_ad.evaluation.backtest.runner import Backtest, RunResult
from stream_ad.evaluation.backtest.stream import Stream
from tests.support.recordings import OPTIONS, recording

DAY_S = 86_400


def replayed(times_s, sensors, alarms):
    """A backtest over rows at these times, with nothing decided yet."""
    stream = Stream(
        [recording(["normal"] * len(sensors), sensors=sensors, times_s=times_s)], warmup=0, default_warmup=0
    )
    blank = np.zeros(len(stream))
    return Backtest(
        stream=stream,
        protocol=Protocol(),
        options=OPTIONS.model_copy(update={"alarms": alarms}),
        schedule=Schedule(stream, Protocol()),
        detector=RunResult(blank, blank[:, None], np.ones(len(stream), np.bool_)),
        unlabelled=None,
        baselines={},
        baseline_seconds={},
        done=len(stream),
    )


@pytest.mark.parametrize("rate", RATES)
def test_a_rate_in_events_is_the_very_rate(rate):
    """A rate written as false incidents in events is no other rate once it is divided."""
    false_incidents, events = in_events(rate)
    assert false_incidents / events == rate


def test_a_budget_in_time_is_a_rate_by_the_interval_of_the_sensor():
    """One a day is one in so many events as a sensor sends a day, and a long silence is no interval."""
    minutely = np.arange(200) * 60.0
    minutely[100:] += 5 * DAY_S
    times, sensors = np.append(minutely, np.arange(24) * 3600.0), ["fast"] * 200 + ["slow"] * 24
    rates = configured_rates(replayed(times, sensors, AlarmsConfig(per="day")))
    assert dict(zip(("fast", "slow"), rates, strict=True)) == pytest.approx({"fast": 1 / 1440, "slow": 1 / 24})


def test_overrides_count():
    """A sensor with a budget of its own has the rate of that one."""
    alarms = AlarmsConfig(
        false_incidents=2, per="1000 events", overrides=(AlarmOverride(sensors="b*", false_incidents=5),)
    )
    rates = configured_rates(replayed(np.arange(4), ["a", "b1", "a", "b1"], alarms))
    assert rates.tolist() == [2 / 1000, 5 / 1000]
