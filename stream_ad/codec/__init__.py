"""Raw records <-> columns. One bad record never harms its neighbours.

The wire formats are the pydantic models of ``schemas``; this module reads them many times as fast
and agrees with them on what is valid, but for these:

- Times lie between 1970 and 2262, an event's not far ahead of its record time, and keep nine digits of
  fraction (datetime has six). Sizes of records and the number of features are bounded by settings.
- NaN and Infinity are no JSON: they spoil a message wherever they stand, in pydantic only in fields it knows.
- Objects and lists may nest 500 levels deep; pydantic gives up at 200.

As in pydantic, the last of several equal keys counts, and an integer may stand where a number is expected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ad.codec.encoders import encode_event, encode_incident, encode_label, encode_scores
from stream_ad.codec.event_decoder import EventDecoder
from stream_ad.codec.label_decoder import LabelDecoder

if TYPE_CHECKING:
    from stream_ad.records.columns import Events, Labels, OutRecord, RawRecords, Scores
    from stream_ad.records.schemas import Incident
    from stream_ad.settings import Settings

__all__ = ["Codec"]


class Codec:
    """Reads and writes the records of any shard; keeps no state but caches.

    Args:
        settings: ``events``, ``scores.publish`` and ``detector.max_features`` are read.
    """

    def __init__(self, settings: Settings) -> None:
        self._events = EventDecoder(settings)
        self._labels = LabelDecoder(settings.events.max_record_bytes)
        self._only_anomalies = settings.scores.publish == "anomalies"

    def decode_events(self, raw: RawRecords) -> tuple[Events, list[OutRecord]]:
        """The valid events, and a dead letter for every other record (reasons: ``schemas.REASONS``)."""
        return self._events.decode(raw)

    def decode_labels(self, raw: RawRecords) -> tuple[Labels, list[OutRecord]]:
        """The valid labels, and a dead letter for every other record (reasons: ``schemas.REASONS``)."""
        return self._labels.decode(raw)

    def encode_scores(self, events: Events, scores: Scores, model: str) -> list[OutRecord]:
        """Score messages of the events that ``scores.publish`` asks for, in order.

        Args:
            events: What was scored.
            scores: Aligned with ``events``; finite.
            model: Version of the model that scored.
        """
        return encode_scores(events, scores, model, only_anomalies=self._only_anomalies)

    def encode_incidents(self, incidents: list[Incident]) -> list[OutRecord]:
        """Incident messages, in order; their record time is that of the latest anomaly."""
        return [encode_incident(incident) for incident in incidents]

    encode_event = staticmethod(encode_event)
    encode_label = staticmethod(encode_label)
