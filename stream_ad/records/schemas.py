"""The wire formats as pydantic models: the public contract of every topic.

The hot path decodes with msgspec (see ``stream_ad.codec``); a property test holds it to these models.
Their JSON Schemas are in schemas/, written by `make schemas`, with the rules for changing them.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

FORMAT = "1"
OLD_FORMAT = "0.1"
"""The form of the releases 0.1, which had no such header: a score of 1 or above is an anomaly."""
FORMAT_HEADER = "stream_ad.format"
"""Header of every score, incident and dead letter: the version of its form, ``FORMAT`` or ``OLD_FORMAT``."""

MAX_NAME = 256
MAX_EVENT_ID = 320
"""Characters. The longest default id, with a topic name of 249 characters, has 275."""

_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def _only_rfc3339(value: Any) -> Any:
    # pydantic alone would also accept numbers, numbers as text and looser forms of ISO 8601.
    if isinstance(value, datetime) or (isinstance(value, str) and _RFC3339.fullmatch(value)):
        return value
    raise ValueError("expected an RFC 3339 time with an offset, such as 2026-11-22T01:02:03.5Z")


Timestamp = Annotated[AwareDatetime, BeforeValidator(_only_rfc3339)]
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
EventId = Annotated[str, Field(min_length=1, max_length=MAX_EVENT_ID)]
Reading = Annotated[float, Field(allow_inf_nan=False, strict=True)]


class Wire(BaseModel):
    """Base of all wire formats."""

    # Published records contain every field, also those with a default: readers may rely on them.
    model_config = ConfigDict(frozen=True, extra="ignore", json_schema_serialization_defaults_required=True)


class SensorEvent(Wire):
    """The readings of a sensor at one time. Unknown fields are ignored."""

    sensor_id: Name
    timestamp: Timestamp
    values: Annotated[dict[Name, Reading | None], Field(min_length=1)]
    event_id: EventId | None = None
    """Missing: ``<topic>-<partition>-<offset>``."""


class Label(Wire):
    """A label of an event, or of an interval of one sensor (both ends included)."""

    sensor_id: Name
    label: Name | None
    """``normal``, the name of an anomaly class, or null to retract."""
    event_id: EventId | None = None
    start: Timestamp | None = None
    end: Timestamp | None = None

    @model_validator(mode="after")
    def _one_target(self) -> Label:
        interval = self.start is not None and self.end is not None
        if (self.event_id is not None) == interval or (self.start is None) != (self.end is None):
            raise ValueError("a label names either event_id, or start and end")
        if self.start is not None and self.end is not None and self.end < self.start:
            raise ValueError("end lies before start")
        return self


class ContributionOut(Wire):
    """The part of a single feature in an anomaly."""

    feature: str
    value: float
    expected: float
    share: Annotated[float, Field(ge=0, le=1)]


class AnomalyScore(Wire):
    """The score of an event, and whether it alarms. The score orders events; the alarm decides."""

    event_id: EventId
    sensor_id: Name
    timestamp: Timestamp
    score: Annotated[float, Field(ge=0)]
    """How unusual the event is, below 1: the same scale for all sensors, which no level moves."""
    alarm: Annotated[float, Field(ge=0)]
    """Evidence over the level that the tolerated false incidents allow: 1 or above while alarming."""
    is_anomaly: bool
    """Whether ``alarm`` is 1 or above, and the sensor is not in warm-up."""
    incident_id: str | None = None
    """The incident of the sensor that is open at this event, or null."""
    phase: Literal["warm-up", "live"]
    contributions: tuple[ContributionOut, ...] = ()
    expected: dict[str, float] | None = None
    """The value that the model expected of each feature, or null where that is not published."""
    model: str


class SuspectedClass(Wire):
    """A class that an incident may belong to, by what was labelled before."""

    name: Name
    probability: Annotated[float, Field(ge=0, le=1)]


class Incident(Wire):
    """A stretch of one sensor that is worth a person's look.

    Published when it opens, again when its severity rises, and when it closes.
    """

    incident_id: Annotated[str, Field(min_length=1)]
    sensor_id: Name
    state: Literal["open", "closed"]
    kind: Literal["spike", "sustained", "stuck"]
    """What alarmed: single events, a long run of slightly unusual ones, or readings that no longer change."""
    severity: Literal["minor", "major", "critical"]
    reason: Literal["over", "accepted", "judged", "sensor_gone"] | None = None
    """Why it closed: the alarm ended, it was accepted as a new normal, a label said so, or the sensor is gone."""
    start: Timestamp
    end: Timestamp
    """Time of the latest alarming event so far."""
    events: Annotated[int, Field(ge=1)]
    """Number of alarming events so far; 1 in the message of its opening, and only there while it is open."""
    peak_alarm: Annotated[float, Field(ge=0)]
    peak_score: float
    peak_event_id: EventId
    contributions: tuple[ContributionOut, ...] = ()
    """Features that contributed to the peak, the largest share first."""
    classes: tuple[SuspectedClass, ...] = ()
    """Suspected classes, the most probable first."""
    similar: tuple[str, ...] = ()
    """Ids of earlier incidents of the sensor that were alike."""
    features: tuple[str, ...] = ()
    """Names of the features in ``contributions``, as in version 0.1.0."""

    @property
    def opens(self) -> bool:
        """Whether this is the message of its opening."""
        return self.state == "open" and self.events == 1


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


class DeadLetterHeaders(Wire):
    """Headers of a record in the dead-letter topic; its key and value are those of the rejected record."""

    reason: Annotated[str, Field(alias="stream_ad.reason", examples=list(REASONS))]
    """Later versions may add reasons."""
    detail: Annotated[str, Field(alias="stream_ad.detail")]
    """What is wrong and where, in words."""
    topic: Annotated[str, Field(alias="stream_ad.topic")]
    partition: Annotated[str, Field(alias="stream_ad.partition", pattern="^[0-9]+$")]
    offset: Annotated[str, Field(alias="stream_ad.offset", pattern="^[0-9]+$")]
    format: Annotated[str, Field(alias=FORMAT_HEADER, examples=[FORMAT])]
    """Version of the form of dead letters; version 0.1.0 did not write it."""
