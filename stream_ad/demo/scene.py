"""What the demo shows: the plant, the people who label it, and the settings of the two workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ad.detector.alarm_config import AlarmsConfig, IncidentSettings
from stream_ad.detector.alarms.rules import AlarmRules
from stream_ad.evaluation.simulation.annotator import AnnotatorConfig
from stream_ad.evaluation.simulation.plant import PlantConfig
from stream_ad.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

SIDES = ("with labels", "without")
WITH, WITHOUT = range(2)
MACHINES = 6
INTERVAL_S = 60.0
STEPS_PER_S = 200.0
"""Readings of each machine in a second of the demo."""
DAY_STEPS = 1440
RECOVERY_STEPS = 45
"""Readings after an episode that are not evaluated: the machine recovers, and nobody could say when it has."""
BUDGET = AlarmRules(AlarmsConfig()).budget_of("")
"""Of both workers: what the settings have by default."""
PROMISED_PER_READING = BUDGET.false_incidents * INTERVAL_S * 1e9 / (BUDGET.nanoseconds or 1)
"""False incidents that it allows for each reading of a machine."""
QUIET_READINGS = IncidentSettings().quiet_events
MOST_WAITING = 3000
"""Most events without a score; beyond it the plant waits for the workers."""


def plant(seed: int) -> PlantConfig:
    """Return a plant with a day without faults to warm up on, then two faults and three cleaning cycles a day."""
    return PlantConfig(
        machines=MACHINES,
        seed=seed,
        interval_s=INTERVAL_S,
        healthy_s=DAY_STEPS * INTERVAL_S,
        fault_every_s=12 * 3600.0,
        cleaning_every_s=8 * 3600.0,
    )


def annotator(seed: int) -> AnnotatorConfig:
    """Return people who label most of what is unusual and half of the rest, an hour late."""
    return AnnotatorConfig(delay_s=3600.0, coverage=0.9, normal_coverage=0.5, seed=seed)


def settings(folder: Path, side: int) -> Settings:
    """Return the settings of a worker; both differ in their broker alone, and only one of these gets labels."""
    return Settings.model_validate(
        {
            "application_id": f"demo-{SIDES[side].replace(' ', '-')}",
            "broker": {"kind": "sqlite", "path": str(folder / f"{side}.db"), "synchronous": "normal"},
            "topics": {"partitions": 1},
            "http": {"enabled": False},
            "logs": {"level": "warning", "format": "console"},
            # a machine sees its whole day before it is evaluated; a label comes after 30 to 90 readings
            "learning": {"warmup_events": DAY_STEPS, "label_horizon_events": 256},
        }
    )
