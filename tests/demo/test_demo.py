"""The demo: figures that are counted, a screen that fits, and a run that ends well, also when interrupted."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from stream_ad.demo import scene, view
from stream_ad.demo.feed import Feed
from stream_ad.demo.scene import MACHINES, RECOVERY_STEPS, WITH, WITHOUT
from stream_ad.demo.tally import Tally
from stream_ad.detector.alarms.rules import AlarmRules
from stream_ad.evaluation.simulation.plant import CLEANING, FAULTS, Chunk, Episode
from stream_ad.evaluation.simulation.simulate import Simulation
from tests.support.incidents import incident

RUN = "import sys; from stream_ad.demo import demo; print(demo(seconds=float(sys.argv[1])))"


def chunk(first_row, episode):
    """Rows of ``episode`` (steps, machines), with nothing else of interest in them."""
    flat = np.asarray(episode).reshape(-1)
    rows = np.arange(len(flat))
    return Chunk(first_row, rows, rows % MACHINES, np.zeros((len(flat), 6)), flat)


def episode(kind, machine=0):
    return Episode(machine, kind, 0, 0, (), 1.0)


@pytest.fixture
def tally():
    """A leak of machine 0 at steps 2 to 5 and cleaning of machine 1 at steps 0 and 1, in 100 steps."""
    truth = np.full((100, MACHINES), -1)
    truth[2:6, 0] = 0
    truth[:2, 1] = 1
    tally = Tally(100 * MACHINES, [episode("leak"), episode(CLEANING, 1)])
    tally.add_truth(chunk(0, truth[:30]))
    tally.add_truth(chunk(30 * MACHINES, truth[30:]))
    return tally


def score(tally, alarms, *, side, live_from=0):
    """Scores of one side: .9 and an alarm at the (step, machine) pairs, else .1."""
    alarming = np.zeros((100, MACHINES), np.bool_)
    for step, machine in alarms:
        alarming[step, machine] = True
    live = np.arange(100 * MACHINES) >= live_from * MACHINES
    alarming = alarming.reshape(-1)
    tally.add_scores(side, np.where(alarming, 0.9, 0.1).tolist(), alarming.tolist(), live.tolist())


def test_figures_are_counted(tally):
    """Incidents, those that are false, found faults and delays are what one counts by hand."""
    score(tally, [(4, 0), (0, 1), (50, 2), (52, 2), (52, 3)], side=WITH)
    score(tally, [], side=WITHOUT)
    figures, without = tally.figures()
    recovering = 2 * (RECOVERY_STEPS - 1)
    assert figures.evaluated == 100 * MACHINES - recovering
    assert (figures.incidents, figures.false) == (4, 3)  # the two alarms of machine 2 are one; cleaning is no fault
    assert figures.promised == pytest.approx((figures.evaluated - 4) / (7 * 1440))  # one a machine and week, at 60 s
    assert figures.share_in_alarm == pytest.approx(6 / figures.evaluated)
    assert (figures.detected, figures.faults) == (1, 1)
    leak, cleaning = figures.classes["leak"], figures.classes[CLEANING]
    assert (leak.detected, leak.episodes, leak.delay_steps) == (1, 1, 2.0)
    assert (cleaning.detected, cleaning.episodes) == (1, 1)
    assert figures.classes["overload"].episodes == 0
    # by hand: five rows score .9, one of them a fault, then 3 faults among all the rest
    assert figures.average_precision == pytest.approx(1 / 4 * 1 / 5 + 3 / 4 * 4 / figures.evaluated)
    assert (without.detected, without.incidents, without.false) == (0, 0, 0)
    assert math.isnan(without.classes["leak"].delay_steps)


def test_recovery_is_not_evaluated(tally):
    """Alarms while a machine recovers count neither for nor against."""
    score(tally, [(6, 0), (5 + RECOVERY_STEPS - 1, 0), (2, 1)], side=WITH)
    score(tally, [(5 + RECOVERY_STEPS, 0)], side=WITHOUT)
    figures, without = tally.figures()
    assert figures.false == figures.incidents == 0
    assert without.false == 1


def test_both_are_evaluated_on_the_same_rows(tally):
    """Rows that one worker has not scored yet, or not live, are evaluated for neither."""
    score(tally, [(3, 0)], side=WITH)
    tally.add_scores(WITHOUT, [0.5] * 60, [False] * 60, [False] * 12 + [True] * 48)
    figures, without = tally.figures()
    assert figures.evaluated == without.evaluated
    assert tally.both == 60
    assert figures.evaluated <= 48
    assert tally.figures(since=60)[WITH].evaluated == 0


def test_nothing_evaluated_yet(tally):
    """Before there is anything to evaluate, figures are unknown, not zero."""
    figures, _ = tally.figures()
    assert figures.evaluated == 0
    assert math.isnan(figures.average_precision)
    assert math.isnan(figures.share_in_alarm)


def test_the_promise_is_that_of_the_settings():
    """What the figures call promised is the budget that both workers run with."""
    for side in (WITH, WITHOUT):
        alarms = scene.settings(Path(), side).alarms
        budget = AlarmRules(alarms).budget_of("pump-01")
        readings = budget.nanoseconds / (scene.INTERVAL_S * 1e9)
        assert budget.false_incidents / readings == pytest.approx(scene.PROMISED_PER_READING)
        assert scene.settings(Path(), side).incidents.quiet_events == scene.QUIET_READINGS


def of(simulation, row, **fields):
    """Return the message of an incident at a row of the demo."""
    step, machine = divmod(row, MACHINES)
    at = datetime.fromtimestamp(simulation.plant.config.start_ns / 1e9 + step * scene.INTERVAL_S, UTC)
    return incident(sensor_id=simulation.plant.sensor_ids[machine], start=at, end=at, **fields)


def simulated(steps=2500):
    """A piece of the demo's own plant, scored by its truth: faults alarm with labels, cleaning without."""
    simulation = Simulation(scene.plant(0), scene.annotator(0), name="demo")
    tally = Tally(steps * MACHINES, simulation.plant.episodes)
    feed = Feed(simulation.plant, tally)
    for _ in range(steps // 50):
        tick = simulation.step(50)
        tally.add_truth(tick.chunk)
        kinds = [simulation.plant.episodes[i].kind if i >= 0 else "" for i in tick.chunk.episode.tolist()]
        first = tally.scored[WITH]
        live = [first + row >= scene.DAY_STEPS * MACHINES for row in range(len(kinds))]
        faulty = [kind in FAULTS and alive for kind, alive in zip(kinds, live, strict=True)]
        if any(faulty):
            feed.on_incident(of(simulation, first + faulty.index(True)))
        tally.add_scores(WITH, [0.9 if kind in FAULTS else 0.01 for kind in kinds], faulty, live)
        cleaning = [kind == CLEANING and alive for kind, alive in zip(kinds, live, strict=True)]
        tally.add_scores(WITHOUT, [0.8 if kind == CLEANING else 0.2 for kind in kinds], cleaning, live)
        feed.on_labels(tick.simulated_labels, tally.rows - 1)
    return simulation, tally, feed


def moment(tally):
    return view.Moment("running", 0.5, 1000.0, {"normal": 0.5, "leak": 2.0}, tally.figures())


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 36), (200, 60), (60, 15)])
def test_screen_fits(width, height):
    """The screen fits the terminal's width, shows every machine, and never breaks, from first row to last."""
    simulation, tally, feed = simulated()
    console = Console(width=width, height=height, record=True, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115, PTH123
    for shown in (Tally(MACHINES, []), tally):
        lines = console.render_lines(view.screen(console, shown, feed, simulation.plant.sensor_ids, moment(shown)))
        text = ["".join(segment.text for segment in line).rstrip() for line in lines]
        assert max(map(len, text)) <= width
        assert all(any(name in line for line in text) for name in simulation.plant.sensor_ids)
    if width >= 80:
        assert len(text) <= height


def test_screen_tells_the_story():
    """Incidents name the feature that explains them, labels come later, and the comparison is on the screen."""
    simulation, tally, feed = simulated()
    console = Console(width=160, height=50, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(view.screen(console, tally, feed, simulation.plant.sensor_ids, moment(tally)))
    text = console.export_text()
    assert "▲ sustained incident, minor: vibration 3.56, not 1.13" in text
    assert "● label: normal, it was cleaning" in text
    figures = tally.figures()[WITH]
    assert f"with labels: {figures.detected}/{figures.faults} faults found, 0 false incidents of" in text
    assert feed.label_counts["normal"] > 0


def test_an_incident_is_told_from_its_opening_to_its_end():
    """The log says when an incident opened, when it got worse, and why it closed, each at the time of the plant."""
    simulation = Simulation(scene.plant(0), scene.annotator(0), name="demo")
    feed = Feed(simulation.plant, Tally(MACHINES, []))
    row = 100 * MACHINES + 3
    feed.on_incident(of(simulation, row))
    feed.on_incident(of(simulation, row + 64 * MACHINES, severity="major", events=65, peak_alarm=1.62))
    feed.on_incident(of(simulation, row + 90 * MACHINES, state="closed", reason="accepted", events=80))
    assert [line.row for line in feed.lines] == [row, row + 64 * MACHINES, row + 90 * MACHINES]
    assert {line.machine for line in feed.lines} == {3}
    assert [line.text for line in feed.lines] == [
        "▲ sustained incident, minor: vibration 3.56, not 1.13",
        "▲ incident is major now, alarm 1.6",
        "▼ incident closed after 80 readings: accepted as the new normal",
    ]


def test_summary_compares():
    """The summary has both workers side by side, in incidents found, false and promised, and fault by fault."""
    _, tally, feed = simulated()
    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(
        view.summary(tally.figures(), tally.figures(since=tally.both // 2), sum(feed.label_counts.values()), 12.0)
    )
    text = console.export_text()
    figures, without = tally.figures()
    assert re.search(rf"faults found +{figures.detected} of {figures.faults} +0 of {figures.faults} ", text)
    assert re.search(rf"false incidents +0 +{without.false} ", text)
    assert re.search(rf"promised, at most +{figures.promised:.1f} +{figures.promised:.1f} ", text)
    assert without.false > 0
    assert all(kind in text for kind in FAULTS)
    assert max(map(len, text.splitlines())) <= 80


def test_without_a_terminal():
    """Without a terminal the demo prints plain lines, ends by itself, and leaves nothing running."""
    done = subprocess.run([sys.executable, "-c", RUN, "10"], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert "Starting two workers" in done.stdout
    assert "at most 1 false incident of each machine in a week" in done.stdout
    assert "readings scored" in done.stdout
    assert "DemoSummary(events=" in done.stdout
    assert "DemoSummary(events=0" not in done.stdout


@pytest.mark.parametrize("wait_for", ["Starting", "readings scored"])
def test_interrupted(wait_for):
    """Ctrl-C, while starting or in the middle, ends with a summary of what there was and without a traceback."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", RUN, "600"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    output = ""
    for line in process.stdout:
        output += line
        if wait_for in line:
            break
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=200)
    assert process.returncode == 0
    assert errors == ""
    assert "DemoSummary(" in rest
