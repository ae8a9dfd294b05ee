"""What the demo shows: which plant, who judges it, and the settings of the two workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ad.evaluation.simulation.annotator import AnnotatorConfig
from stream_ad.evaluation.simulation.plant import PlantConfig
from stream_ad.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

SIDES = ("with verdicts", "without")
WITH, WITHOUT = range(2)
MACHINES = 6
INTERVAL_S = 60.0
STEPS_PER_S = 200.0
"""Readings of each machine in a second of the demo."""
DAY_STEPS = 1440
RECOVERY_STEPS = 45
"""Readings after an episode that are not judged: the machine comes back to itself, nobody could say when it has."""
MOST_WAITING = 3000
"""Events on their way to a score; then the plant waits for the workers."""


def plant(seed: int) -> PlantConfig:
    """A day without faults to warm up on, then two faults a day and three cleaning cycles."""
    return PlantConfig(
        machines=MACHINES,
        seed=seed,
        interval_s=INTERVAL_S,
        healthy_s=DAY_STEPS * INTERVAL_S,
        fault_every_s=12 * 3600.0,
        cleaning_every_s=8 * 3600.0,
    )


def verdicts(seed: int) -> AnnotatorConfig:
    """An hour late, on most of what is unusual and on half of the rest."""
    return AnnotatorConfig(delay_s=3600.0, coverage=0.9, normal_coverage=0.5, seed=seed)


def settings(folder: Path, side: int) -> Settings:
    """The same for both workers but for their broker: one has the verdicts, the other has none."""
    return Settings.model_validate(
        {
            "application_id": f"demo-{SIDES[side].replace(' ', '-')}",
            "broker": {"kind": "sqlite", "path": str(folder / f"{side}.db"), "synchronous": "normal"},
            "topics": {"partitions": 1},
            "http": {"enabled": False},
            "logs": {"level": "warning", "format": "console"},
            # a machine sees its whole day before it is judged; a verdict comes after 30 to 90 readings
            "learning": {"warmup_events": DAY_STEPS, "label_horizon_events": 256},
            "threshold": {"false_alarm_rate": 0.005},
        }
    )
