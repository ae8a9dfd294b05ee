"""Draw an alarm for docs/explanation/alarms.md: a reading, its score, its evidence and the incident of a real run."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad import Settings, Worker
from stream_ad.evaluation.simulation.plant import PlantConfig
from stream_ad.testing import ManualClock, MemoryBroker, PlantStream, plant_stream
from stream_ad.util.signals import StopFlag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "explanation" / "alarms.svg"
PLANT = PlantConfig(machines=6, seed=1, interval_s=60.0)
STEPS = 3000
KIND = "leak"
AROUND = timedelta(minutes=75)  # shown before and after the incident
READING, USUAL, FAULT, INCIDENT = "#1f6f8b", "#9a9a9a", "#e0a458", "#c8553d"


def draw() -> None:
    """Run a worker over a simulated plant, and draw the first incident that a leak opened."""
    plant = plant_stream(plant=PLANT, steps=STEPS)
    fault_of = dict(zip(plant.events.event_ids, plant.faults, strict=True))
    messages = _published(plant)
    incident = next(
        message
        for message in messages["incidents"]
        if message["state"] == "closed" and fault_of[message["peak_event_id"]] == KIND
    )
    start, end = _time(incident["start"]), _time(incident["end"])
    scores = [
        message
        for message in messages["scores"]
        if message["sensor_id"] == incident["sensor_id"]
        and start - AROUND <= _time(message["timestamp"]) <= end + AROUND
    ]
    times = [_time(message["timestamp"]) for message in scores]
    feature = incident["contributions"][0]["feature"]
    readings = _readings(plant, feature)
    faulty = [time for time, message in zip(times, scores, strict=True) if fault_of[message["event_id"]] == KIND]

    import matplotlib as mpl  # noqa: PLC0415 -- of the extra `bench`, only where a picture is drawn

    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": "stream-ad", "svg.fonttype": "none", "font.size": 9}
    from matplotlib import dates  # noqa: PLC0415
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, panels = plt.subplots(3, 1, figsize=(8, 5), sharex=True, layout="constrained")
    for panel in panels:
        panel.axvspan(start, end, color=INCIDENT, alpha=0.15, linewidth=0)
        panel.axvspan(faulty[0], faulty[-1], ymax=0.04, color=FAULT, linewidth=0)
        panel.grid(alpha=0.3)
    _line(panels[0], times, [message["expected"][feature] for message in scores], "expected", USUAL)
    _line(panels[0], times, [readings[message["event_id"]] for message in scores], feature, READING)
    _line(panels[1], times, [message["score"] for message in scores], "score", READING)
    _line(panels[2], times, [max(message["alarm"], 0.01) for message in scores], "alarm: evidence over level", READING)
    panels[1].set(ylim=(0, 1.04))
    panels[2].axhline(1, color=INCIDENT, linewidth=1, label="level")
    panels[2].set(yscale="log")
    panels[2].legend(loc="upper right")
    formatter: Any = dates.DateFormatter
    panels[2].xaxis.set_major_formatter(formatter("%H:%M"))
    panels[0].set_title(
        f"A {KIND} at {incident['sensor_id']} (bar below), and its incident (shaded): {incident['kind']},"
        f" {incident['severity']}, {incident['events']} alarming events"
    )
    figure.savefig(PICTURE, metadata={"Date": None})


def _published(plant: PlantStream) -> dict[str, list[dict[str, Any]]]:
    """Return the scores and the incidents that a worker publishes for a plant, at the default budget."""
    settings = Settings.model_validate(
        {"topics": {"partitions": 1}, "http": {"enabled": False}, "scores": {"expected": "all"}}
    )
    memory = MemoryBroker(clock=ManualClock())
    plant.send(memory.producer(settings))
    Worker(settings, memory.worker(settings), stop=StopFlag()).run(until_idle_s=0.5)
    topics = {"scores": settings.topics.scores, "incidents": settings.topics.incidents}
    return {
        role: [json.loads(record.value or b"null") for record in memory.records(topic)]
        for role, topic in topics.items()
    }


def _readings(plant: PlantStream, feature: str) -> dict[str, float]:
    """Return the readings of a feature by event id."""
    (block,) = plant.events.blocks
    column = block.values[:, block.features.index(feature)].tolist()
    return {plant.events.event_ids[row]: value for row, value in zip(block.rows.tolist(), column, strict=True)}


def _line(panel: Axes, times: Sequence[datetime], values: Sequence[float], name: str, color: str) -> None:
    panel.plot(np.array(times), values, color=color, linewidth=1.2, label=name)
    panel.legend(loc="upper right")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
