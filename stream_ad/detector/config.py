"""Settings of the detector: frozen value objects, with defaults that need no tuning.

They are part of the settings tree (stream_ad/settings/model.py) and import nothing heavy.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from stream_ad.detector.alarm_config import AlarmsConfig
from stream_ad.detector.section import MOST, Fraction, Seconds, Section

REPLACED = {
    "threshold.false_alarm_rate": "was replaced: state the promise as alarms.false_incidents and alarms.per, for "
    "example alarms.false_incidents=1 and alarms.per=week; or alarms.per='1000 events' for a rate per event",
    "drift": "was removed with the test for drift: delete it, nothing takes its place",
}
"""Settings and sections of earlier versions, with what to write instead."""


class DetectorConfig(Section):
    """Device, models and limits of the state of a shard."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto",
        description="Device of the autoencoder; auto uses a GPU if there is one and it computes what the CPU does.",
    )
    models: Literal["per-sensor", "shared"] = Field(
        "per-sensor",
        description="One model for each sensor, or one for all sensors that have the same features.",
    )
    seed: int = Field(0, ge=0, lt=2**64, description="Seeds initial weights and replay; same seed, same scores.")
    max_sensors: int = Field(
        10_000, ge=1, le=MOST, description="Sensors of a shard that have state; the longest silent one makes room."
    )
    max_features: int = Field(
        512,
        ge=1,
        le=10_000,
        description="Features of one sensor: the one it has not shown for longest makes room for a new one; an event "
        "with more goes to the dead letters.",
    )
    forget_features_after_events: int = Field(
        1024,
        ge=1,
        le=MOST,
        description="Events of a sensor without a feature, and four times its longest pause, after which a new feature "
        "takes its place.",
    )
    contributions: int = Field(5, ge=0, le=10_000, description="Features named in the score of an anomaly.")


class LossConfig(Section):
    """The loss that the autoencoder minimises (see ``model/losses.py``)."""

    guide: Literal["away", "f0", "f1", "f2"] = Field(
        "away",
        description="Target of labelled anomalies: away from their reconstruction, or AE-SAD's F0, F1, F2.",
    )
    alpha: float = Field(
        1.0,
        ge=0,
        le=1e6,
        description="Weight of labelled anomalies: lambda = alpha / odds of an anomaly; 0 ignores them.",
    )
    amplify: bool = Field(False, description="Amplify the loss of normal events, -log(1 - loss) (LAMP).")
    score_penalty: float = Field(
        0.0, ge=0, le=1e6, description="Weight of the mean squared anomaly score of normal events."
    )


class ImportanceConfig(Section):
    """Weights of the label classes in the loss (see ``feedback/class_importance.py``)."""

    rule: Literal["counts", "ema", "off"] = Field(
        "counts",
        description="Class importance: decayed counts with a floor, the plain EMA of the false-negative rate, or none.",
    )
    decay: Fraction = Field(0.999, description="Decay of the counts per label (rule counts).")
    floor: float = Field(0.2, ge=0, le=1, description="Least importance of a mastered class (rule counts).")
    rate: Fraction = Field(0.01, description="Rate of the moving average (rule ema).")
    max_classes: int = Field(
        64, ge=2, le=10_000, description="Anomaly classes told apart; further ones share the class 'other'."
    )


class LearningConfig(Section):
    """When events are learned, and how long they wait for a label."""

    enabled: bool = Field(True, description="False freezes the model: it scores and learns nothing.")
    batch_events: int = Field(
        32,
        ge=8,
        le=1024,
        multiple_of=8,
        description="Events of one learn batch; a model learns once per so many events.",
    )
    label_horizon_events: int = Field(
        1024, ge=1, le=1_000_000, description="Later events of its sensor that an event waits for a label."
    )
    label_horizon_seconds: Seconds | None = Field(
        None, description="Event time that an event waits for a label; whichever horizon passes first counts."
    )
    warmup_events: int = Field(
        256, ge=64, le=MOST, description="First events of a sensor, learned at once; their scores say phase warm-up."
    )
    outage_intervals: int = Field(
        256,
        ge=0,
        le=MOST,
        description="After a silence of so many of its usual intervals, at least an hour, a sensor learns the next "
        "events at once, as in the warm-up; 0: never.",
    )
    max_early_labels: int = Field(
        10_000,
        ge=0,
        le=MOST,
        description="Labels of a shard kept for events that have not arrived yet; the oldest makes room.",
    )
    max_intervals: int = Field(
        10_000, ge=1, le=MOST, description="Intervals of a shard kept for events to come; the oldest makes room."
    )
    rate: float = Field(3e-3, gt=0, le=1, description="Learning rate (Adam).")
    replay_events: int = Field(512, ge=32, le=1_000_000, description="Recent normal events of a model kept for replay.")
    loss: LossConfig = LossConfig()
    importance: ImportanceConfig = ImportanceConfig()

    @property
    def label_reach_events(self) -> int:
        """Events of its sensor that a label reaches back: the horizon plus four learn batches, in whole batches."""
        return -(-(self.label_horizon_events + 4 * self.batch_events) // self.batch_events) * self.batch_events


class ThresholdConfig(Section):
    """The window that the row level is calibrated on."""

    window_events: int = Field(
        8192, ge=64, le=1_000_000, description="Recent normal scores of a sensor that the threshold is calibrated on."
    )

    @model_validator(mode="before")
    @classmethod
    def _say_what_replaced(cls, values: Any) -> Any:
        if isinstance(values, dict) and "false_alarm_rate" in values:
            raise ValueError(f"threshold.false_alarm_rate {REPLACED['threshold.false_alarm_rate']}")
        return values


class DetectorOptions(Section):
    """All settings of the detector."""

    detector: DetectorConfig = DetectorConfig()
    learning: LearningConfig = LearningConfig()
    threshold: ThresholdConfig = ThresholdConfig()
    alarms: AlarmsConfig = AlarmsConfig()

    @model_validator(mode="before")
    @classmethod
    def _say_what_is_gone(cls, values: Any) -> Any:
        if isinstance(values, dict) and "drift" in values:
            raise ValueError(f"drift {REPLACED['drift']}")
        return values
