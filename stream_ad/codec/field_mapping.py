"""Extract the parts of an event from a message (setting ``events.fields``).

Dots lead into nested objects; a key that contains the dots itself takes precedence, so ``a.b`` finds ``{"a.b": 1}``
and ``{"a": {"b": 1}}``. With a mapping other than the default, an id may be an integer and counts as its text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from stream_ad.codec.dead_letters import Rejected
from stream_ad.records.schemas import MAX_EVENT_ID, MAX_NAME
from stream_ad.settings import FieldMapping

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ad.settings import EventSettings

KEY = "@key"
RECORD = "@record"
ALL_NUMBERS = "*"

_MISSING: Any = object()
_READINGS = {float, int, type(None)}
_KINDS = {str: "text", bool: "a boolean", dict: "an object", list: "a list", type(None): "null"}


class Message(msgspec.Struct, gc=False):
    """The parts of an event as read from a message; times and names of features are not checked yet."""

    sensor_id: str
    timestamp: Any  # text, or a number; None: the record time
    values: dict[str, float | None]
    event_id: str | None = None


def message_type(events: EventSettings, values: Any = dict[str, float | None]) -> type | None:
    """Return the struct that msgspec reads messages into, with the attributes of Message.

    None where the mapping needs more than other names for the four fields.

    Args:
        events: The settings with the mapping.
        values: Type of the attribute ``values``.
    """
    fields = events.fields
    parts = (fields.sensor_id, fields.timestamp, fields.values, fields.event_id)
    names = [
        part for part in parts if isinstance(part, str) and "." not in part and part not in (KEY, RECORD, ALL_NUMBERS)
    ]
    if len(set(names)) < len(parts):
        return None
    return msgspec.defstruct(
        "Message",
        [
            ("sensor_id", Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]),
            ("timestamp", str if events.timestamp_format == "rfc3339" else int | float),
            ("values", values),
            ("event_id", Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_EVENT_ID)] | None, None),
        ],
        rename=dict(zip(("sensor_id", "timestamp", "values", "event_id"), names, strict=True)),
        gc=False,
    )


class Extractor:
    """Extracts the parts of an event from a decoded message."""

    def __init__(self, events: EventSettings) -> None:
        self._fields = events.fields
        self._text_time = events.timestamp_format == "rfc3339"
        self._format = events.timestamp_format
        self._integer_ids = events.fields != FieldMapping()
        self._readings: Callable[[dict[str, Any]], dict[str, Any]]
        if isinstance(self._fields.values, tuple):
            self._readings = self._listed
        elif self._fields.values == ALL_NUMBERS:
            self._readings = self._other_numbers
        else:
            self._readings = self._object
        self._used = {self._fields.sensor_id, self._fields.timestamp, self._fields.event_id}

    def extract(self, document: object, key: bytes | None) -> Message:
        """Return the parts of a message.

        Raises:
            Rejected: A part is missing or has the wrong type.
        """
        if type(document) is not dict:
            raise Rejected("schema", f"expected an object, got {_kind(document)}")
        fields = self._fields
        return Message(
            _key_text(key) if fields.sensor_id == KEY else self._text(document, fields.sensor_id, MAX_NAME),
            None if fields.timestamp == RECORD else self._time(document, fields.timestamp),
            self._readings(document),
            None if fields.event_id is None else self._event_id(document, fields.event_id),
        )

    def _text(self, document: dict[str, Any], path: str, longest: int) -> str:
        value = _lookup(document, path)
        if type(value) is int and self._integer_ids:
            value = str(value)
        if type(value) is not str:
            raise _unexpected(path, "text", value)
        return _checked_length(path, value, longest)

    def _event_id(self, document: dict[str, Any], path: str) -> str | None:
        value = _lookup(document, path)
        if value is None or value is _MISSING:
            return None
        return self._text(document, path, MAX_EVENT_ID)

    def _time(self, document: dict[str, Any], path: str) -> str | float:
        value: Any = _lookup(document, path)
        if self._text_time:
            if type(value) is not str:
                hint = " (see events.timestamp_format)" if type(value) in (int, float) else ""
                raise _unexpected(path, "an RFC 3339 time as text", value, hint)
        elif type(value) not in (int, float):
            raise _unexpected(path, f"a number ({self._format} since the epoch)", value)
        return value

    def _object(self, document: dict[str, Any]) -> dict[str, Any]:
        path = self._fields.values
        assert isinstance(path, str)
        readings = _lookup(document, path)
        if type(readings) is not dict:
            raise _unexpected(path, "an object of readings", readings)
        return _numbers(readings, f"{path}.")

    def _listed(self, document: dict[str, Any]) -> dict[str, Any]:
        readings = {path: _lookup(document, path) for path in self._fields.values}
        if all(reading is _MISSING for reading in readings.values()):
            raise Rejected("schema", f"none of {', '.join(readings)} is in the message")
        return _numbers({path: None if value is _MISSING else value for path, value in readings.items()}, "")

    def _other_numbers(self, document: dict[str, Any]) -> dict[str, Any]:
        used = self._used
        return _numbers(
            {name: value for name, value in document.items() if type(value) in _READINGS and name not in used}, ""
        )


def _lookup(document: dict[str, Any], path: str) -> Any:
    """Return the value at a path, or _MISSING."""
    value = document.get(path, _MISSING)
    if value is not _MISSING or "." not in path:
        return value
    value = document
    for name in path.split("."):
        if type(value) is not dict:
            return _MISSING
        value = value.get(name, _MISSING)
    return value


def _numbers(readings: dict[str, Any], prefix: str) -> dict[str, Any]:
    kinds = set(map(type, readings.values()))
    if not kinds <= _READINGS:
        name, value = next((name, value) for name, value in readings.items() if type(value) not in _READINGS)
        raise _unexpected(f"{prefix}{name}", "a number or null", value)
    if int in kinds:
        return {name: _as_float(prefix, name, value) for name, value in readings.items()}
    return readings


def _as_float(prefix: str, name: str, value: float | None) -> float | None:
    try:
        return None if value is None else float(value)
    except OverflowError:
        raise Rejected("not_finite", f"{prefix}{name}: an integer beyond float64") from None


def _key_text(key: bytes | None) -> str:
    if key is None:
        raise Rejected("schema", "the record has no key, and events.fields.sensor_id is @key")
    try:
        return _checked_length("the record key", key.decode(), MAX_NAME)
    except UnicodeDecodeError as error:
        raise Rejected("not_utf8", f"the record key, byte {error.start}: {error.reason}") from None


def _checked_length(path: str, text: str, longest: int) -> str:
    if not 1 <= len(text) <= longest:
        raise Rejected("schema", f"{path}: {len(text)} characters, expected 1 to {longest}")
    return text


def _unexpected(path: str, expected: str, value: Any, hint: str = "") -> Rejected:
    return Rejected(
        "schema", f"{path}: missing" if value is _MISSING else f"{path}: expected {expected}, got {_kind(value)}{hint}"
    )


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "a number")
