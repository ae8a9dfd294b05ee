"""The promise on noise: as many false incidents as the budget says, whatever the noise is like.

Each kind of noise is one detector of sensors that have three readings each and no faults; two budgets are decided side
by side.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.channels import Fed, openings, together

SENSORS, EVENTS, FEATURES = 32, 8000, 3
WARMUP = 256
RATES = 1e-3, 1e-4
SECTIONS = {"alarms": {"false_incidents": 1, "per": "1000 events"}}
SEEDS = 2


def with_memory(rng, memory, shape):
    """Normal noise, along the first axis, of which each is that share of the one before."""
    fresh = rng.normal(size=shape) * np.sqrt(1 - memory**2)
    fresh[0] /= np.sqrt(1 - memory**2)
    for event in range(1, shape[0]):
        fresh[event] += memory * fresh[event - 1]
    return fresh


NOISE = {
    "independent": lambda rng, shape: rng.normal(size=shape),
    "heavy-tailed": lambda rng, shape: rng.standard_t(3, shape),
    "memory .9": lambda rng, shape: with_memory(rng, 0.9, shape),
    "memory .99": lambda rng, shape: with_memory(rng, 0.99, shape),
}


@cache
def opened(kind, events=EVENTS, seeds=SEEDS):
    """Event numbers of the incidents that open, by budget, over some seeds."""
    numbers = [[], []]
    for seed in range(seeds):
        values = NOISE[kind](np.random.default_rng([seed, 1]), (events, SENSORS, FEATURES))
        alarms = together(values, SECTIONS, rates=RATES[1:]).alarms
        for budget in range(2):
            numbers[budget] += openings(alarms[:, :, budget])[:, 0].tolist()
    return [np.array(each) for each in numbers]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("kind", NOISE)
def test_noise_rings_at_most_three_times_as_often_as_promised(kind, rate):
    """After the warm-up, over seeds, no noise costs more than three times the false incidents that are tolerated."""
    numbers = opened(kind)[RATES.index(rate)]
    assert (numbers >= WARMUP).sum() <= 3 * rate * SEEDS * SENSORS * (EVENTS - WARMUP)


@pytest.mark.parametrize(
    ("kind", "rate"),
    [
        ("independent", 1e-3),
        ("independent", 1e-4),
        ("heavy-tailed", 1e-3),
        ("memory .9", 1e-4),
        ("memory .99", 1e-4),
    ],
)
def test_noise_uses_a_third_of_the_budget(kind, rate):
    """On these kinds of noise at least a third of what is tolerated is used: levels are not far too high."""
    numbers = opened(kind)[RATES.index(rate)]
    assert (numbers >= WARMUP).sum() >= rate * SEEDS * SENSORS * (EVENTS - WARMUP) / 3


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("kind", NOISE)
def test_sensors_that_begin_together_do_not_ring_together(kind, rate):
    """Before the end of the warm-up, too, young sensors are not over three times the promise, and three incidents."""
    numbers = opened(kind)[RATES.index(rate)]
    assert (numbers < WARMUP).sum() / SEEDS <= 3 + 3 * rate * SENSORS * WARMUP


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 10_000), st.sampled_from([1e-2, 1e-3, 1e-4]))
def test_evidence_of_independent_events_keeps_its_budget(seed, rate):
    """Evidence without a model, whose channels are independent noise, stays within three times its budget."""
    fed, rng = Fed(64, rates=(rate,), horizon=1024, warmup=WARMUP), np.random.default_rng(seed)
    alarms, _ = fed.feed(rng.normal(size=(3, 6016, 64)))
    assert len(openings(alarms[:, :, 0])) <= 3 * rate * 64 * (6016 - WARMUP)
