"""Convert raw records to columns and back. A bad record never affects its neighbours.

The wire formats are the pydantic models of ``stream_ad.records.schemas``. This package reads them many times faster
and agrees with them on what is valid, with these exceptions:

- Times are between 1970 and 2262, those of events not far ahead of their record time, and keep nine digits of
  fraction (datetime has six). Settings bound the size of records and the number of features.
- NaN and Infinity are not JSON: they make a message invalid in any field, in pydantic only in fields of the model.
- Objects and lists may nest 500 levels deep; pydantic stops at 200.

As in pydantic, the last of several equal keys counts, and an integer is accepted where a number is expected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ad.codec.encoders import encode_event, encode_incident, encode_label, encode_scores
from stream_ad.codec.event_decoder import EventDecoder
from stream_ad.codec.label_decoder import LabelDecoder
from stream_ad.records.schemas import OLD_FORMAT

if TYPE_CHECKING:
    from stream_ad.records.columns import Events, Labels, OutRecord, RawRecords, Scores
    from stream_ad.records.schemas import Incident
    from stream_ad.settings import Settings

__all__ = ["Codec"]


class Codec:
    """Reads and writes the records of any shard; keeps caches, but no state.

    Args:
        settings: Uses ``events``, ``scores.publish``, ``scores.format`` and ``detector.max_features``.
    """

    def __init__(self, settings: Settings) -> None:
        self._events = EventDecoder(settings)
        self._labels = LabelDecoder(settings.events.max_record_bytes)
        self._only_anomalies = settings.scores.publish == "anomalies"
        self._old_format = settings.scores.format == OLD_FORMAT

    def decode_events(self, raw: RawRecords) -> tuple[Events, list[OutRecord]]:
        """Return the valid events, and a dead letter for every other record (reasons: ``schemas.REASONS``)."""
        return self._events.decode(raw)

    def decode_labels(self, raw: RawRecords) -> tuple[Labels, list[OutRecord]]:
        """Return the valid labels, and a dead letter for every other record (reasons: ``schemas.REASONS``)."""
        return self._labels.decode(raw)

    def encode_scores(self, events: Events, scores: Scores, model: str) -> list[OutRecord]:
        """Return the score messages of the events that ``scores.publish`` selects, in order.

        Args:
            events: The scored events, N of them.
            scores: Their scores, aligned with ``events`` (N,) and finite.
            model: Version of the scoring model.

        Raises:
            ValueError: A score, an alarm or a contribution is not finite.
        """
        return encode_scores(events, scores, model, only_anomalies=self._only_anomalies, old_format=self._old_format)

    def encode_incidents(self, incidents: list[Incident]) -> list[OutRecord]:
        """Return incident messages, in order; their record time is that of the latest anomaly.

        The form of the releases 0.1 has two for each incident: readers of it do not expect one when severity rises.
        """
        if self._old_format:
            incidents = [incident for incident in incidents if incident.opens or incident.state == "closed"]
        return [encode_incident(incident, old_format=self._old_format) for incident in incidents]

    encode_event = staticmethod(encode_event)
    encode_label = staticmethod(encode_label)
