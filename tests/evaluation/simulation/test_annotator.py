"""Labels on a simulated plant: late, incomplete, sometimes wrong, as configured, and never out of order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ad.evaluation.simulation.annotator import NAMES, Annotator, AnnotatorConfig
from stream_ad.evaluation.simulation.plant import FAULTS, NORMAL, Plant, PlantConfig

PLANT = PlantConfig(machines=4, interval_s=60.0, healthy_s=3600.0, fault_every_s=4 * 3600.0)
COLUMNS = ("due_ns", "machine", "name", "row", "start_ns", "end_ns")


def run(steps=3000, cuts=None, **config):
    """A plant, what happened, and what was said about it."""
    plant = Plant(PLANT)
    annotator = Annotator(AnnotatorConfig(**config), plant)
    chunks, given = [], []
    for size in cuts or [steps]:
        chunks.append(plant.chunk(size))
        given.append(annotator.annotate(chunks[-1]))
    joined = {name: np.concatenate([getattr(part, name) for part in given]) for name in COLUMNS}
    labels = [plant.episodes[i].label if i >= 0 else NORMAL for chunk in chunks for i in chunk.episode]
    return plant, chunks, joined, np.array([NAMES.index(label) for label in labels])


@given(
    cuts=st.lists(st.integers(1, 400), min_size=2, max_size=6),
    form=st.sampled_from(["events", "intervals"]),
    wrong=st.sampled_from([0.0, 0.3]),
)
@settings(max_examples=20, deadline=None)
def test_cuts_change_nothing(cuts, form, wrong):
    """The labels are the same, in the same order, however the stream is cut."""
    config = {"form": form, "wrong": wrong, "normal_coverage": 0.5}
    *_, pieces, _ = run(cuts=cuts, **config)
    *_, whole, _ = run(steps=sum(cuts), **config)
    for name in COLUMNS:
        np.testing.assert_array_equal(pieces[name], whole[name])


@pytest.mark.parametrize("form", ["events", "intervals"])
def test_delay(form):
    """A label is given between half and one and a half of the delay after the end of its target, in order of time."""
    _, chunks, given, _ = run(form=form, delay_s=1800.0)
    late = (given["due_ns"] - given["end_ns"]) / 1e9
    assert len(late) > 20
    assert late.min() >= 900
    assert late.max() <= 2700
    assert (np.diff(given["due_ns"]) >= 0).all()
    assert given["due_ns"].max() <= chunks[-1].times_ns[-1]


def test_events_tell_the_truth():
    """Labels on events name the event, its machine, its time and the truth; each event gets one at most."""
    _, (chunk,), given, truth = run(coverage=1.0, normal_coverage=1.0)
    rows = given["row"]
    assert len(np.unique(rows)) == len(rows)
    np.testing.assert_array_equal(given["name"], truth[rows])
    np.testing.assert_array_equal(given["machine"], chunk.machine[rows])
    np.testing.assert_array_equal(given["start_ns"], chunk.times_ns[rows])
    settled = np.flatnonzero(chunk.times_ns < chunk.times_ns[-1] - 2700e9)
    assert np.isin(settled, rows).all()


def test_coverage():
    """Coverage is the share of unusual and of plain events that ever get a label."""
    _, (chunk,), given, _ = run(steps=6000, coverage=0.5, normal_coverage=0.1)
    settled = chunk.times_ns < chunk.times_ns[-1] - 2700e9
    labelled = np.isin(np.arange(len(chunk)), given["row"])
    for unusual, share in ((True, 0.5), (False, 0.1)):
        among = settled & ((chunk.episode >= 0) == unusual)
        assert abs(labelled[among].mean() - share) < 5 * np.sqrt(share * (1 - share) / among.sum())  # five sigma


def test_intervals_are_episodes():
    """Labels on intervals cover whole episodes, and inspections of stretches in which nothing happened."""
    plant, *_, given, _ = run(form="intervals", coverage=1.0, normal_coverage=0.5)
    episodes = {(episode.machine, episode.start_ns, episode.end_ns): episode.label for episode in plant.episodes}
    labelled = set()
    for machine, name, start, end in zip(*(given[c] for c in ("machine", "name", "start_ns", "end_ns")), strict=True):
        label = episodes.get((machine, start, end))
        if label is None:
            assert name == 0
            assert all(o.machine != machine or o.end_ns < start or o.start_ns > end for o in plant.episodes)
        else:
            labelled.add((machine, start, end))
            assert NAMES[name] == label
    now = plant.config.start_ns + 2999 * 60e9
    assert labelled >= {key for key in episodes if key[2] < now - 2700e9}
    assert len(given["row"]) > len(labelled)
    assert (given["row"] == -1).all()


@pytest.mark.parametrize("form", ["events", "intervals"])
def test_wrong(form):
    """The share ``wrong`` names something else than the truth, any of the other names."""
    config = {"steps": 6000, "form": form, "coverage": 1.0, "normal_coverage": 1.0}
    *_, right, _ = run(**config)
    *_, given, _ = run(**config, wrong=0.3)
    np.testing.assert_array_equal(given["due_ns"], right["due_ns"])
    wrong = given["name"] != right["name"]
    assert abs(wrong.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / len(wrong))
    assert set(given["name"][wrong & (right["name"] == 0)]) == set(range(1, len(FAULTS) + 1))
