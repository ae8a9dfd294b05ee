"""The simulated plant: equal seeds, equal streams; physics holds together; faults do what their names say."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ad.evaluation.simulation.plant import (
    CLEANING,
    CURRENT,
    FAULTS,
    FEATURES,
    LOAD,
    NORMAL,
    TEMPERATURE,
    VIBRATION,
    Plant,
    PlantConfig,
)

DAYS = 6
STEPS = DAYS * 24 * 60


def run(**changes):
    plant = Plant(PlantConfig(machines=6, interval_s=60.0, **changes))
    return plant, plant.chunk(STEPS)


@pytest.fixture(scope="module")
def broken_plant():
    return run(severity=1.0)


@pytest.fixture(scope="module")
def healthy_twin():
    """The same machines, noise and cleaning, with faults of size 0 (a stuck sensor is stuck all the same)."""
    return run(severity=0.0)


@given(cuts=st.lists(st.integers(1, 400), min_size=1, max_size=8), seed=st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_cuts_change_nothing(cuts, seed):
    """The stream and its truth are the same bit for bit, however it is cut into chunks."""
    config = PlantConfig(machines=3, seed=seed, interval_s=60.0, healthy_s=600.0, fault_every_s=3600.0)
    whole, pieces = Plant(config), Plant(config)
    uncut = whole.chunk(sum(cuts))
    many = [pieces.chunk(steps) for steps in cuts]
    for name in ("times_ns", "machine", "values", "episode"):
        np.testing.assert_array_equal(np.concatenate([getattr(chunk, name) for chunk in many]), getattr(uncut, name))
    assert pieces.episodes == whole.episodes
    assert [chunk.first_row for chunk in many] == [3 * steps for steps in itertools.accumulate([0, *cuts[:-1]])]


def test_seed():
    """Another seed gives another plant."""
    first, second = (Plant(PlantConfig(seed=seed)).chunk(5).values for seed in (1, 2))
    assert not np.isclose(first, second).any()


def test_physics(healthy_twin):
    """Healthy readings are positive; current, flow and pressure follow the load; the load follows the day."""
    plant, chunk = healthy_twin
    values = chunk.values.reshape(STEPS, 6, len(FEATURES))
    quiet = (chunk.episode < 0).reshape(STEPS, 6)
    assert np.isfinite(values).all()
    assert (values > 0).all()
    hours = (chunk.times_ns // (3600 * 10**9) % 24).reshape(STEPS, 6)[:, 0]
    for machine in range(6):
        readings = values[quiet[:, machine], machine]
        correlation = np.corrcoef(readings.T)[LOAD]
        assert correlation[CURRENT] > 0.8
        assert (correlation[[FEATURES.index("flow"), FEATURES.index("pressure")]] > 0.8).all()
        load = values[:, machine, LOAD]
        assert load[(hours >= 11) & (hours < 16)].mean() > load[(hours >= 0) & (hours < 5)].mean() + 5
    assert plant.sensor_ids == [f"pump-{n:02d}" for n in range(1, 7)]


def test_nothing_before_healthy_s(broken_plant):
    """Until ``healthy_s`` nothing unusual happens, so that a detector can warm up."""
    plant, chunk = broken_plant
    early = chunk.times_ns < plant.config.start_ns + plant.config.healthy_s * 1e9
    assert (chunk.episode[early] == -1).all()
    assert early.any()


def test_every_kind_happens(broken_plant):
    """Days of a plant hold every fault and cleaning, and the truth names what a person would call them."""
    plant, chunk = broken_plant
    seen = {plant.episodes[index].kind for index in np.unique(chunk.episode) if index >= 0}
    assert seen == {*FAULTS, CLEANING}
    assert {episode.label for episode in plant.episodes} == {*FAULTS, NORMAL}


@pytest.mark.parametrize("kind", [kind for kind in FAULTS if kind != "stuck-sensor"])
def test_faults_break_what_they_say(broken_plant, healthy_twin, kind):
    """Against the healthy twin, the features of the truth move the most, in units of their usual variation."""
    plant, chunk = broken_plant
    twin, healthy = healthy_twin
    usual = np.array([healthy.values[healthy.machine == machine].std(axis=0) for machine in range(6)])  # (M, F)
    moved = np.abs(chunk.values - healthy.values) / usual[chunk.machine]
    truth = plant.broken(chunk)
    matching = 0
    for index, episode in enumerate(plant.episodes):
        rows = np.flatnonzero(chunk.episode == index)
        if episode.kind != kind or rows.size < 3 or episode.end_ns > chunk.times_ns[-1]:
            continue
        matching += 1
        late = rows[rows.size // 2 :]
        assert (truth[rows] == truth[rows[0]]).all()
        assert set(np.flatnonzero(truth[rows[0]])) == set(episode.broken)
        assert int(moved[late].mean(axis=0).argmax()) in episode.broken
        assert moved[late][:, list(episode.broken)].max(axis=1).mean() > 1
    assert matching >= 3
    assert len(twin.episodes) == len(plant.episodes)


def test_stuck_sensor(broken_plant):
    """A stuck sensor repeats the reading it got stuck at; the machine's other sensors go on."""
    plant, chunk = broken_plant
    stuck = [index for index, episode in enumerate(plant.episodes) if episode.kind == "stuck-sensor"]
    for index in stuck:
        readings = chunk.values[chunk.episode == index]
        feature = plant.episodes[index].broken[0]
        assert len(np.unique(readings[:, feature])) <= 1
        assert all(len(np.unique(readings[:, f])) >= len(readings) / 2 for f in range(len(FEATURES)) if f != feature)


def test_bearing_wear_order(broken_plant, healthy_twin):
    """A worn bearing shakes first and heats later."""
    plant, chunk = broken_plant
    _, healthy = healthy_twin
    change = chunk.values / healthy.values - 1
    for index, episode in enumerate(plant.episodes):
        rows = np.flatnonzero(chunk.episode == index)
        if episode.kind == "bearing-wear" and episode.end_ns <= chunk.times_ns[-1]:
            half = {f: int((change[rows, f] > change[rows, f].max() / 2).argmax()) for f in (VIBRATION, TEMPERATURE)}
            assert half[VIBRATION] < half[TEMPERATURE]


def test_cleaning_is_unusual_but_breaks_nothing(broken_plant):
    """Cleaning moves pressure far out of its relation to flow, and the truth blames no feature."""
    plant, chunk = broken_plant
    cleaning = np.array([*(episode.kind == CLEANING for episode in plant.episodes), False])[chunk.episode]
    ratio = chunk.values[:, FEATURES.index("pressure")] / chunk.values[:, FEATURES.index("flow")]
    for machine in range(6):
        of_machine = chunk.machine == machine
        assert np.median(ratio[of_machine & cleaning]) < np.quantile(ratio[of_machine & (chunk.episode < 0)], 0.01)
    assert not plant.broken(chunk)[cleaning].any()
