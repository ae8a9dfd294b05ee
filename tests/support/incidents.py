"""An incident of a sensor as it is published: when it opens, when it gets worse, when it closes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from stream_ad.records.schemas import ContributionOut, Incident

START = datetime(2026, 11, 30, 1, 3, 51, 926503, tzinfo=UTC)
TOP = ContributionOut(feature="vibration", value=3.5571, expected=1.13346, share=0.8)


def incident(**fields):
    """Return the message of an opening, or what the fields make of it."""
    given_fields = {
        "incident_id": "press-1/7", "sensor_id": "press-1", "state": "open", "kind": "sustained", "severity": "minor",
        "start": START, "end": START, "events": 1, "peak_alarm": 1.2345, "peak_score": 0.9, "peak_event_id": "7",
        "contributions": (TOP,),
    }  # fmt: skip
    return Incident.model_validate(given_fields | fields)


OPENED = incident()
WORSE = incident(severity="major", events=70, end=START + timedelta(minutes=8))
CLOSED = incident(state="closed", reason="over", events=80, end=START + timedelta(minutes=9), peak_alarm=2.5)
