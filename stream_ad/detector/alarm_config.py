"""Settings of the alarm: the budget of false incidents, other ones for some sensors, rules for features, windows."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from stream_ad.detector.alarms.quantities import parse_deviation, parse_duration, parse_per
from stream_ad.detector.section import MOST, Seconds, Section


def _checked(parse: Any) -> Any:
    """Return a validator that keeps the value as it was written once ``parse`` can read it."""

    def check(value: Any) -> Any:
        if value is not None:
            parse(value)
        return value

    return check


def _attainable(false_incidents: float | None, per: str | None) -> None:
    """Refuse more false incidents than there are events."""
    if false_incidents is not None and per is not None and false_incidents > (parse_per(per).events or MOST):
        raise ValueError(f"false_incidents {false_incidents:g} in {per} are more than one an event; lower it")


def _has_zone(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("has no time zone; end it with Z for UTC, or with an offset such as +01:00")
    return moment


def _no_of_yaml(value: Any) -> Any:
    """Return "no" where YAML has read the word as false."""
    return "no" if value is False else value


Pattern = Annotated[str, Field(min_length=1)]
FalseIncidents = Annotated[float, Field(ge=1e-9, le=1e6)]
PerText = Annotated[str, AfterValidator(_checked(parse_per))]
Deviation = Annotated[float | str | None, BeforeValidator(_checked(parse_deviation))]
Duration = Annotated[float | str | None, BeforeValidator(_checked(parse_duration))]
Moment = Annotated[datetime, AfterValidator(_has_zone)]


class FeatureRule(Section):
    """What counts as unusual in a feature; null leaves it to the next rule that matches."""

    ignore: bool | None = Field(None, description="Let the feature raise no alarm.")
    direction: Literal["above", "below", "both"] | None = Field(
        None, description="Count only readings above, or below, what is expected."
    )
    min_deviation: Deviation = Field(
        None, description="Least distance from the expected value that counts: a number, or a share such as '5 %'."
    )


class AlarmOverride(Section):
    """Another budget, or rules for features, for the sensors that a pattern names."""

    sensors: Pattern = Field(description="Pattern of sensor ids, case-sensitive: press-*, pump-[0-9].")
    false_incidents: FalseIncidents | None = Field(None, description="As alarms.false_incidents, for these sensors.")
    per: PerText | None = Field(None, description="As alarms.per, for these sensors.")
    features: dict[Pattern, FeatureRule] = Field({}, description="Rules by pattern of the feature's name.")

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        _attainable(self.false_incidents, self.per)
        return self


class AlarmPeriod(Section):
    """A stretch of event time, without its end."""

    start: Moment = Field(description="Its first instant, with time zone.")
    end: Moment = Field(description="The first instant after it, with time zone.")

    @model_validator(mode="after")
    def _lasts(self) -> Self:
        if self.end <= self.start:
            raise ValueError(f"the end {self.end.isoformat()} is not after the start {self.start.isoformat()}")
        return self


class AlarmWindow(Section):
    """A planned time without alarms: a rule, a calendar file or a list of periods."""

    sensors: Pattern = Field("*", description="Pattern of sensor ids, case-sensitive.")
    rrule: str | None = Field(None, description="RFC 5545: DTSTART with time zone and RRULE, perhaps RDATE, EXDATE.")
    duration: Duration = Field(None, description="How long each window of the rule lasts: seconds, or '2 hours'.")
    ics: str | None = Field(None, min_length=1, description="Calendar file (iCalendar, .ics); its events are windows.")
    periods: tuple[AlarmPeriod, ...] = Field((), description="Windows by their start and end.")
    learn: Annotated[Literal["apart", "no"], BeforeValidator(_no_of_yaml)] = Field(
        "apart", description="apart: the model learns its events, the levels of the alarm do not; no: nothing does."
    )

    @model_validator(mode="after")
    def _has_times(self) -> Self:
        given = [name for name in ("rrule", "ics", "periods") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"needs one of rrule, ics and periods, and has {' and '.join(given) or 'none'}")
        if self.rrule is not None and self.duration is None:
            raise ValueError("an rrule needs a duration, such as duration: 2 hours; without one it would never end")
        if self.rrule is None and self.duration is not None:
            raise ValueError(f"duration belongs to an rrule; {given[0]} says itself how long its windows last")
        if self.rrule is not None and self.duration is not None:
            # Imported only where somebody has planned windows: the settings are read by every command.
            from stream_ad.detector.alarms.event_times import read_rule  # noqa: PLC0415

            read_rule(self.rrule, parse_duration(self.duration))
        return self


class AlarmsConfig(Section):
    """How many false incidents are tolerated, of which sensors and features, and when none is wanted."""

    false_incidents: FalseIncidents = Field(1.0, description="False incidents of a sensor that are tolerated.")
    per: PerText = Field(
        "week",
        description="Event time, or number of events of the sensor, that false_incidents is for: hour, day, week, "
        "month, year, '3 days', '10000 events'.",
    )
    accept_after: Seconds = Field(
        86_400.0,
        description="Seconds of event time after which a lasting change that nobody labels counts as the new normal.",
    )
    overrides: tuple[AlarmOverride, ...] = Field(
        (),
        description="Other budgets and rules for features, by pattern of the sensor: the first that matches and sets a "
        "thing decides it (keys: sensors, false_incidents, per, features with ignore, direction, min_deviation).",
    )
    windows: tuple[AlarmWindow, ...] = Field(
        (),
        description="Planned times in which no incident opens (keys: sensors, learn, and one of rrule with duration, "
        "ics, periods with start and end).",
    )

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        _attainable(self.false_incidents, self.per)
        return self


class SeveritySettings(Section):
    """From where on an incident is major or critical: by its highest alarm, or by its number of alarming events."""

    major_alarm: float = Field(1.5, ge=1, le=1e6, description="Highest alarm from which an incident is major.")
    critical_alarm: float = Field(3.0, ge=1, le=1e6, description="Highest alarm from which an incident is critical.")
    major_events: int = Field(64, ge=1, le=MOST, description="Alarming events from which an incident is major.")
    critical_events: int = Field(512, ge=1, le=MOST, description="Alarming events from which an incident is critical.")

    @model_validator(mode="after")
    def _rise(self) -> Self:
        if self.critical_alarm < self.major_alarm:
            raise ValueError("critical_alarm is below major_alarm")
        if self.critical_events < self.major_events:
            raise ValueError("critical_events is below major_events")
        return self


class IncidentSettings(Section):
    """When incidents close, and how severe they are."""

    quiet_events: int = Field(
        16,
        ge=1,
        le=MOST,
        description="Consecutive events of a sensor without an alarm that close its incident.",
    )
    severity: SeveritySettings = SeveritySettings()


USUAL_INCIDENTS = IncidentSettings()
"""The settings of incidents where none are given."""
