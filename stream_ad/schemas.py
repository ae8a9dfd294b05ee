"""The wire formats, as pydantic models: the public contract of every topic.

The hot path decodes with msgspec (see codec.py); a property test holds it to these models.
JSON Schema: ``SensorEvent.model_json_schema()`` and so on.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(min_length=1, max_length=256)]
Reading = Annotated[float, Field(allow_inf_nan=False, strict=True)]


class Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class SensorEvent(Wire):
    """One reading of one sensor. Unknown fields are ignored."""

    sensor_id: Name
    timestamp: AwareDatetime
    values: Annotated[dict[Name, Reading | None], Field(min_length=1)]
    event_id: Name | None = None
    """Missing: ``<topic>-<partition>-<offset>``."""


class Label(Wire):
    """A verdict on one event, or on an interval of one sensor (both ends included)."""

    sensor_id: Name
    label: Name | None
    """``normal``, the name of an anomaly class, or null to retract."""
    event_id: Name | None = None
    start: AwareDatetime | None = None
    end: AwareDatetime | None = None

    @model_validator(mode="after")
    def _one_target(self) -> Label:
        interval = self.start is not None and self.end is not None
        if (self.event_id is not None) == interval or (self.start is None) != (self.end is None):
            raise ValueError("a label names either event_id, or start and end")
        if self.start is not None and self.end is not None and self.end < self.start:
            raise ValueError("end lies before start")
        return self


class ContributionOut(Wire):
    feature: str
    value: float
    expected: float
    share: Annotated[float, Field(ge=0, le=1)]


class AnomalyScore(Wire):
    """One per event. ``score`` is the error divided by the threshold in force."""

    event_id: Name
    sensor_id: Name
    timestamp: AwareDatetime
    score: Annotated[float, Field(ge=0)]
    is_anomaly: bool
    phase: Literal["warm-up", "live"]
    contributions: tuple[ContributionOut, ...] = ()
    model: str


class Incident(Wire):
    """A run of anomalies of one sensor: published when it opens and again when it closes."""

    incident_id: Name
    sensor_id: Name
    state: Literal["open", "closed"]
    start: AwareDatetime
    end: AwareDatetime
    """Time of the latest anomaly so far."""
    events: Annotated[int, Field(ge=1)]
    """Anomalies in it so far."""
    peak_score: float
    peak_event_id: Name
    features: tuple[str, ...] = ()
    """Of the peak, the largest contribution first."""


REASONS = (
    "empty",
    "too_large",
    "not_utf8",
    "not_json",
    "schema",
    "not_finite",
    "too_many_features",
    "timestamp",
)
"""Why a record goes to the dead-letter topic (header ``stream_ad.reason``)."""
