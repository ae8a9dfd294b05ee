"""``stream-ad simulate``: write a plant with faults into the topics, and labels on it after a delay."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from stream_ad.brokers import open_producer
from stream_ad.brokers.worker_api import InputTopic
from stream_ad.codec.encoders import encode_event, encode_label
from stream_ad.evaluation.simulation.annotator import NAMES, Annotator, AnnotatorConfig
from stream_ad.evaluation.simulation.default_format import require_default_form
from stream_ad.evaluation.simulation.pacing import FULL_SPEED, Pace
from stream_ad.evaluation.simulation.plant import DAY_S, FAULTS, FEATURES, Plant, PlantConfig
from stream_ad.records.columns import Events, Labels, OutRecord, ValueBlock

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ad.brokers.tools_api import Producer
    from stream_ad.evaluation.simulation.annotator import SimulatedLabels
    from stream_ad.evaluation.simulation.pacing import Stop
    from stream_ad.evaluation.simulation.plant import Chunk
    from stream_ad.settings import Settings

_TICK_S = 0.25  # seconds by the wall clock between two writes: few, large writes
_MOST_STEPS = 500  # readings of each machine in one write; bounds memory at full speed


class Simulation:
    """A plant and the people who label it, as events and labels.

    Args:
        plant: The plant.
        annotator: The habits of the people who label.
        name: Beginning of every event id: ``<name>-<row>``, counted from 1.
    """

    def __init__(self, plant: PlantConfig, annotator: AnnotatorConfig, *, name: str) -> None:
        self.plant = Plant(plant)
        self.name = name
        self._annotator = Annotator(annotator, self.plant)
        self._label_count = 0

    def step(self, steps: int) -> Tick:
        """Return the next readings of every machine, and the labels that are due by then."""
        chunk = self.plant.chunk(steps)
        labels = self._annotator.annotate(chunk)
        first_label, self._label_count = self._label_count, self._label_count + len(labels)
        return Tick(self.name, self.plant.sensor_ids, chunk, labels, first_label)


@dataclass(frozen=True, slots=True, eq=False)
class Tick:
    """A piece of a simulation, as columns and as records."""

    name: str
    sensor_ids: list[str]
    chunk: Chunk
    simulated_labels: SimulatedLabels
    first_label: int  # number of labels before these

    def event_id(self, row: int) -> str:
        """Return the event id of a row of the stream, from 0."""
        return f"{self.name}-{row + 1}"

    def events(self) -> Events:
        """Return the columns that the codec would decode, with offsets from the beginning of the simulation."""
        chunk = self.chunk
        rows = np.arange(len(chunk), dtype=np.int64)
        return Events(
            offsets=chunk.first_row + rows,
            record_times_ms=chunk.times_ns // 1_000_000,
            times_ns=chunk.times_ns,
            sensor_ids=[self.sensor_ids[machine] for machine in chunk.machine.tolist()],
            event_ids=[self.event_id(chunk.first_row + row) for row in range(len(chunk))],
            blocks=(ValueBlock(FEATURES, rows, chunk.values),),
        )

    def labels(self) -> Labels:
        """Return the columns that the codec would decode, with offsets from the beginning of the simulation."""
        simulated = self.simulated_labels
        return Labels(
            offsets=self.first_label + np.arange(len(simulated), dtype=np.int64),
            record_times_ms=simulated.due_ns // 1_000_000,
            sensor_ids=[self.sensor_ids[machine] for machine in simulated.machine.tolist()],
            names=[NAMES[name] for name in simulated.name.tolist()],
            event_ids=[self.event_id(row) if row >= 0 else None for row in simulated.row.tolist()],
            starts_ns=simulated.start_ns,
            ends_ns=simulated.end_ns,
        )

    def event_records(self) -> list[OutRecord]:
        """Return the records that go over the wire."""
        events = self.events()
        columns = (events.sensor_ids, events.times_ns.tolist(), self.chunk.values.tolist(), events.event_ids)
        return [
            encode_event(sensor, time_ns, dict(zip(FEATURES, values, strict=True)), event_id=event_id)
            for sensor, time_ns, values, event_id in zip(*columns, strict=True)
        ]

    def label_records(self) -> list[OutRecord]:
        """Return the records that go over the wire."""
        labels = self.labels()
        interval = [event_id is None for event_id in labels.event_ids]
        return [
            encode_label(
                labels.sensor_ids[row],
                labels.names[row],
                record_time_ms=int(labels.record_times_ms[row]),
                event_id=labels.event_ids[row],
                start_ns=int(labels.starts_ns[row]) if interval[row] else None,
                end_ns=int(labels.ends_ns[row]) if interval[row] else None,
            )
            for row in range(len(labels))
        ]


@dataclass(frozen=True, slots=True)
class SimulationSummary:
    """What a simulation has written."""

    events: int
    labels: int
    faults: int
    seconds: float


def simulate(
    settings: Settings,
    plant: PlantConfig | None = None,
    annotator: AnnotatorConfig | None = None,
    *,
    speed: float = 1.0,
    seconds: float | None = None,
    progress: Callable[[int, int], None] | None = None,
    stop: Stop | None = None,
    producer: Producer | None = None,
) -> SimulationSummary:
    """Write a plant's readings and labels into the topics of the settings.

    Event time ends at the present and never runs ahead of it (brokers and workers refuse records from the
    future): in real time it begins now; sped up it begins in the past, so far back that ``seconds`` take
    it to the present, or else a day, and goes on in real time from there.

    Args:
        settings: Settings of broker and topics.
        plant: What to simulate; its ``start_ns`` is set as described above.
        annotator: The habits of the people who label.
        speed: Seconds of event time per second; infinite for as fast as it goes.
        seconds: Seconds by the wall clock; until ``stop`` when None.
        progress: Called with the events and labels written so far.
        stop: Ends the simulation, with everything so far durable.
        producer: Where to write; opened from the settings, and closed, when None.

    Raises:
        SettingsError: The settings expect events in another form than the default one.
        BrokerError: The broker cannot be reached or refuses.
    """
    require_default_form(settings)
    past_s = 0.0 if speed <= 1 else DAY_S if seconds is None or speed == FULL_SPEED else seconds * (speed - 1)
    start_ns = time.time_ns() - int(past_s * 1e9)
    config = replace(plant or PlantConfig(), start_ns=start_ns)
    simulation = Simulation(config, annotator or AnnotatorConfig(), name=f"sim-{start_ns // 1_000_000}")
    pace = Pace(speed, ahead_s=past_s, limit_s=math.inf if seconds is None else seconds, stop=stop)
    out = producer or open_producer(settings)
    events = labels = 0
    try:
        while pace.wait_until(simulation.plant.steps * config.interval_s):
            ready = min(int(pace.passed_s() / config.interval_s) + 1 - simulation.plant.steps, _MOST_STEPS)
            tick = simulation.step(max(1, ready))
            out.send(InputTopic.EVENTS, tick.event_records())
            if len(tick.simulated_labels):
                out.send(InputTopic.LABELS, tick.label_records())
            events, labels = events + len(tick.chunk), labels + len(tick.simulated_labels)
            if progress is not None:
                progress(events, labels)
            if ready < _MOST_STEPS:
                out.flush()
                pace.rest(_TICK_S)  # so that sped-up writes are few and large
        out.flush()
    finally:
        if producer is None:
            out.close()
    faults = sum(episode.kind in FAULTS for episode in simulation.plant.episodes)
    return SimulationSummary(events, labels, faults, pace.elapsed_s())
