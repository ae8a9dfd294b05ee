"""Run the demo: start two workers, feed both the same plant and one of them the labels, watch, sum up."""

from __future__ import annotations

import math
import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec
from rich.console import Console
from rich.live import Live

from stream_ad.brokers import open_producer, open_reader
from stream_ad.brokers.worker_api import InputTopic
from stream_ad.demo import scene
from stream_ad.demo.feed import Feed
from stream_ad.demo.scene import MACHINES, SIDES, WITH
from stream_ad.demo.tally import Figures, Tally
from stream_ad.demo.view import Moment, budget, progress_line, screen, summary
from stream_ad.demo.workers import WorkerProcess
from stream_ad.evaluation.simulation.simulate import Simulation
from stream_ad.records.schemas import Incident
from stream_ad.util.signals import stop_on_signals

if TYPE_CHECKING:
    from stream_ad.evaluation.simulation.pacing import Stop

_FRAME_S = 0.12  # between two frames of the screen
_FIGURES_S = 1.0  # between two computations of the figures, which change more slowly than the screen
_LINE_S = 5.0  # between progress lines where there is no terminal
_LAST_SCORES_S = 20.0  # wait for scores that were still to come
_DRAIN_S = 40.0  # from a signal until the process is ended by force; both workers save their state meanwhile


@dataclass(frozen=True, slots=True)
class DemoSummary:
    """Outcome of the demo; every figure is measured."""

    events: int
    labels: int
    seconds: float
    with_labels: Figures
    without: Figures


class _Score(msgspec.Struct):
    """The part of ``schemas.AnomalyScore`` that is shown."""

    score: float
    is_anomaly: bool
    phase: str


def demo(
    *, seconds: float = 60.0, seed: int = 0, stop: Stop | None = None, console: Console | None = None
) -> DemoSummary:
    """Run the demo on the embedded broker, in a temporary folder.

    Args:
        seconds: Duration from when both workers are ready.
        seed: Seed of the plant and of the labels.
        stop: Ends the demo early, with a summary so far; SIGINT and SIGTERM if None.
        console: Where to show the demo; standard output if None.

    Raises:
        StreamADError: A worker could not be started, or ended.
    """
    with ExitStack() as stack:
        stop = stop or stack.enter_context(stop_on_signals(_DRAIN_S))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stream-ad-demo-")))
        return _Demo(seconds, seed, folder, stop, console or Console()).run(stack)


class _Demo:
    def __init__(self, seconds: float, seed: int, folder: Path, stop: Stop, console: Console) -> None:
        self.seconds, self.stop, self.console = seconds, stop, console
        self.simulation = Simulation(scene.plant(seed), scene.annotator(seed), name="demo")
        self.plant = self.simulation.plant
        self.steps = math.ceil(seconds * scene.STEPS_PER_S)
        self.tally = Tally(self.steps * MACHINES, self.plant.episodes)
        self.feed = Feed(self.plant, self.tally)
        self.folder = folder
        self.settings = [scene.settings(folder, side) for side in range(len(SIDES))]
        self.workers: list[WorkerProcess] = []
        self.decoder = msgspec.json.Decoder(_Score)
        self.began = math.nan
        self.state = "starting two workers"

    @property
    def elapsed_s(self) -> float:
        """Seconds since both workers were ready; 0 before."""
        return 0.0 if math.isnan(self.began) else time.monotonic() - self.began

    def run(self, stack: ExitStack) -> DemoSummary:
        self.producers = [stack.enter_context(closing(open_producer(settings))) for settings in self.settings]
        self.readers = [stack.enter_context(closing(open_reader(settings))) for settings in self.settings]
        for side, settings in enumerate(self.settings):
            self.workers.append(WorkerProcess(settings, self.folder / f"{side}.log"))
            stack.callback(self.workers[-1].stop)
        with _Screen(self) if self.console.is_terminal else _Lines(self) as show:
            while not all(worker.ready for worker in self.workers) and self._go_on(show):
                pass
            self.began, self.state = time.monotonic(), "running"
            while self.elapsed_s < self.seconds and self._go_on(show):
                self._feed()
            self.state = "waiting for the last scores"
            while self.tally.both < self.tally.rows and self._go_on(show):
                if self.elapsed_s > self.seconds + _LAST_SCORES_S:
                    break
            took = self.elapsed_s
        return self._sum_up(took)

    def _go_on(self, show: _Screen | _Lines) -> bool:
        """Read new scores, show them, wait for a frame; return False if stopped."""
        for worker in self.workers:
            worker.check()
        for side, reader in enumerate(self.readers):
            self._add_scores(side, [value for _, value in reader.read(self.settings[side].topics.scores) if value])
        for _, value in self.readers[WITH].read(self.settings[WITH].topics.incidents):
            if value:
                self.feed.on_incident(Incident.model_validate_json(value))
        show.update()
        return not self.stop.wait(_FRAME_S)

    def _feed(self) -> None:
        """Send the readings that are due to both workers, and the labels to one of them."""
        due = min(int(self.elapsed_s * scene.STEPS_PER_S), self.steps) - self.plant.steps
        room = (scene.MOST_WAITING - (self.tally.rows - self.tally.both)) // MACHINES
        if min(due, room) <= 0:
            return
        tick = self.simulation.step(min(due, room))
        self.tally.add_truth(tick.chunk)
        records = tick.event_records()
        for producer in self.producers:
            producer.send(InputTopic.EVENTS, records)
        if len(tick.simulated_labels):
            self.producers[WITH].send(InputTopic.LABELS, tick.label_records())
            self.feed.on_labels(tick.simulated_labels, self.tally.rows - 1)

    def _add_scores(self, side: int, values: list[bytes]) -> None:
        """Decode scores of a worker, which come in the order of the readings."""
        scores = [self.decoder.decode(value) for value in values]
        columns = zip(*((score.score, score.is_anomaly, score.phase == "live") for score in scores), strict=True)
        if scores:
            self.tally.add_scores(side, *columns)

    def _sum_up(self, took: float) -> DemoSummary:
        figures, second_half = self.tally.figures(), self.tally.figures(since=self.tally.both // 2)
        labels = sum(self.feed.label_counts.values())
        if figures[WITH].evaluated:
            self.console.print(summary(figures, second_half, labels, took))
        else:
            self.console.print("The demo ended before the machines had warmed up; there is nothing to compare.")
        return DemoSummary(self.tally.both, labels, took, *figures)


class _Screen:
    """The live view of a terminal."""

    def __init__(self, demo: _Demo) -> None:
        self._demo = demo
        self._live = Live(console=demo.console, screen=True, auto_refresh=False)
        self._figures = demo.tally.figures()
        self._due = 0.0

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.__exit__(None, None, None)

    def update(self) -> None:
        demo = self._demo
        if demo.elapsed_s >= self._due:
            self._due = demo.elapsed_s + _FIGURES_S
            self._figures = demo.tally.figures()
        moment = Moment(
            state=demo.state,
            share=min(1.0, demo.elapsed_s / demo.seconds),
            rate=demo.tally.both / demo.elapsed_s if demo.elapsed_s else 0.0,
            importance=demo.workers[WITH].importance,
            figures=self._figures,
        )
        view = screen(demo.console, demo.tally, demo.feed, demo.plant.sensor_ids, moment)
        self._live.update(view, refresh=True)


class _Lines:
    """A line every few seconds, where the output is no terminal."""

    def __init__(self, demo: _Demo) -> None:
        self._demo = demo
        self._due = 0.0

    def __enter__(self) -> Self:
        self._demo.console.print(
            "Starting two workers: one will get late labels, the other none. "
            f"Both have the default budget: {budget()}. "
            "The very first start compiles the detector, which takes about half a minute."
        )
        return self

    def __exit__(self, *error: object) -> None: ...

    def update(self) -> None:
        demo = self._demo
        if demo.elapsed_s < self._due:
            return
        self._due = demo.elapsed_s + _LINE_S
        if demo.tally.rows:
            labels = sum(demo.feed.label_counts.values())
            demo.console.print(progress_line(demo.tally, demo.elapsed_s, labels), soft_wrap=True)
