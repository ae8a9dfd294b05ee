"""Scores and incidents as the commands read them, which show what earlier versions wrote as well.

The contract of what is written is ``stream_ad.records.schemas``. Here a field may be missing that version 0.1.0 did not
have, and topics hold records of others: what cannot be read is counted and left out.
"""

from __future__ import annotations

from datetime import datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Generic, TypeVar

import msgspec
import typer

from stream_ad.codec.dead_letters import READ_ERRORS, Rejected, check_bytes
from stream_ad.records.columns import Contribution  # noqa: TC001 -- msgspec reads the annotation
from stream_ad.util.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ad.brokers.tools_api import Reader

BATCH_RECORDS = 10_000
_MAX_BYTES = 1 << 30  # a topic's own limit is lower

Time = Annotated[datetime, msgspec.Meta(tz=True)]


class SuspectedClass(msgspec.Struct, frozen=True, gc=False):
    """See ``schemas.SuspectedClass``."""

    name: str
    probability: float


class ScoreMessage(msgspec.Struct, frozen=True):
    """The part of ``schemas.AnomalyScore`` that is shown."""

    event_id: str
    sensor_id: str
    timestamp: Time
    score: float
    is_anomaly: bool
    phase: str
    alarm: float | None = None
    incident_id: str | None = None


class IncidentMessage(msgspec.Struct, frozen=True):
    """The part of ``schemas.Incident`` that is shown."""

    incident_id: str
    sensor_id: str
    state: str
    start: Time
    end: Time
    events: int
    peak_score: float
    kind: str | None = None
    severity: str | None = None
    reason: str | None = None
    peak_alarm: float | None = None
    contributions: tuple[Contribution, ...] = ()
    classes: tuple[SuspectedClass, ...] = ()
    features: tuple[str, ...] = ()


Message = TypeVar("Message", ScoreMessage, IncidentMessage)


def decode(kind: type[Message], value: bytes | None) -> Message:
    """Return a record's value as a message.

    Raises:
        Rejected: It is none.
    """
    try:
        return msgspec.json.decode(check_bytes(value, _MAX_BYTES), type=kind)
    except READ_ERRORS as error:
        raise Rejected("schema", str(error)) from None


class OutputTopic(Generic[Message]):
    """The messages of an output topic that are wanted, batch by batch.

    Args:
        reader: Reads the topic, from where it stands.
        topic: The topic's name.
        kind: Kind of its messages.
        sensors: Patterns of sensor ids, of which one must fit, capital letters distinguished; empty for all sensors.
        since_ms: Least record time, milliseconds since the epoch.
    """

    def __init__(
        self, reader: Reader, topic: str, kind: type[Message], *, sensors: Sequence[str] = (), since_ms: int = 0
    ) -> None:
        self._reader, self.topic = reader, topic
        self._kind: type[Message] = kind
        self._sensors, self._since_ms = sensors, since_ms
        self._wanted: dict[str, bool] = {}  # by sensor id
        self._problems: list[str] = []  # of records that are no such messages and were not told of yet
        self.records = 0
        """Records read so far."""

    def read(self, *, timeout_s: float = 0.0) -> list[tuple[Message, bytes]] | None:
        """Return the wanted messages among the next records, with their bytes, the oldest record first.

        Args:
            timeout_s: Seconds to wait for the first record when there is none.

        Returns:
            None where there is no further record.
        """
        records = self._reader.read_records(self.topic, timeout_s=timeout_s, limit=BATCH_RECORDS)
        if not records:
            return None
        self.records += len(records)
        messages = []
        for record in sorted(records, key=lambda record: record.time_ms):  # records of a sensor keep their order
            if record.time_ms < self._since_ms:
                continue
            try:
                message = decode(self._kind, record.value)
            except Rejected as error:
                self._problems.append(error.why.detail)
                continue
            if record.value is not None and self._is_wanted(message.sensor_id):
                messages.append((message, record.value))
        return messages

    def tell_broken(self) -> None:
        """Say on standard error how many records could not be read since the last call, if any."""
        problems, self._problems = self._problems, []
        if problems:
            what = (
                "record is no such message and was" if len(problems) == 1 else "records are no such messages and were"
            )
            typer.echo(
                f"{self.topic}: {len(problems):,} {what} left out; the first: {printable(problems[0])}.", err=True
            )

    def _is_wanted(self, sensor_id: str) -> bool:
        if not self._sensors:
            return True
        if (wanted := self._wanted.get(sensor_id)) is None:
            wanted = any(fnmatchcase(sensor_id, pattern) for pattern in self._sensors)
            self._wanted[sensor_id] = wanted
        return wanted
