"""Compare two JSON Schemas of a wire format, and find the changes that break its users.

The formats are open: readers ignore fields that they do not know. So an input may only widen (what was accepted stays
accepted), and an output may only add fields (readers of the old form can read the new one).
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Schema = dict[str, Any]

_LOWER = ("minLength", "minimum", "exclusiveMinimum", "minProperties", "minItems")
_UPPER = ("maxLength", "maximum", "exclusiveMaximum", "maxProperties", "maxItems")
_EXACT = ("pattern", "format", "multipleOf", "uniqueItems")
_INNER = ("additionalProperties", "propertyNames", "items")


class Direction(StrEnum):
    """Who writes a message."""

    INPUT = "input"  # others write it, stream-ad reads it
    OUTPUT = "output"  # stream-ad writes it, others read it


def breaking_changes(old: Schema, new: Schema, direction: Direction) -> list[str]:
    """Return every change from one schema to another that breaks a user of the old one.

    Understands what pydantic writes: objects, arrays, scalars with bounds, ``enum``, ``const``, ``anyOf``, ``$ref``.
    Titles, descriptions and defaults do not count.
    """
    removed = [f"{path}: the field is gone" for path in _removed(old, new, old, new, "")]
    if direction is Direction.INPUT:
        narrowed = [f"{path}: {what}, and was not" for path, what in _refused(old, new, old, new, "")]
    else:
        narrowed = [f"{path}: no longer {what}" for path, what in _refused(new, old, new, old, "")]
    return removed + narrowed


def _removed(old: Schema, new: Schema, old_root: Schema, new_root: Schema, path: str) -> Iterator[str]:
    old, new = _resolved(old, old_root), _resolved(new, new_root)
    fields = new.get("properties", {})
    for name, field in old.get("properties", {}).items():
        if name not in fields:
            yield _join(path, name)
        else:
            yield from _removed(field, fields[name], old_root, new_root, _join(path, name))
    for key in _INNER:
        if isinstance(old.get(key), dict) and isinstance(new.get(key), dict):
            yield from _removed(old[key], new[key], old_root, new_root, f"{path}[]")


def _refused(written: Schema, read: Schema, writer: Schema, reader: Schema, path: str) -> Iterator[tuple[str, str]]:
    """Yield the paths where a message that fits ``written`` may not fit ``read``, and what ``read`` requires there."""
    written, read = _resolved(written, writer), _resolved(read, reader)
    if "anyOf" in written or "anyOf" in read:
        for option in _options(written):
            problems = [list(_refused(option, choice, writer, reader, path)) for choice in _options(read)]
            yield from min(problems, key=len)  # the closest choice; no problems where one fits
    elif not _takes_type(written.get("type"), read.get("type")):
        yield path or "the message", f"of type {read.get('type')}"
    else:
        yield from ((path or "the message", what) for what in _tighter(written, read))
        yield from _refused_inside(written, read, writer, reader, path)


def _refused_inside(
    written: Schema, read: Schema, writer: Schema, reader: Schema, path: str
) -> Iterator[tuple[str, str]]:
    for name in read.get("required", ()):
        if name not in written.get("required", ()):
            yield _join(path, name), "required"
    fields = written.get("properties", {})
    for name, field in read.get("properties", {}).items():
        if name in fields:
            yield from _refused(fields[name], field, writer, reader, _join(path, name))
    for key in _INNER:
        if isinstance(inner := read.get(key), dict):
            outer = written.get(key)
            yield from _refused(outer if isinstance(outer, dict) else {}, inner, writer, reader, f"{path}[]")
        elif inner is False and written.get(key) is not False:
            yield path or "the message", "closed to other fields"


def _tighter(written: Schema, read: Schema) -> Iterator[str]:
    """Yield what ``read`` requires of a scalar or a size that ``written`` does not guarantee."""
    if (allowed := _values(read)) is not None:
        given = _values(written)
        if given is None or not given <= allowed:
            yield f"one of {', '.join(sorted(map(str, allowed)))}"
    for key in _LOWER:
        if key in read and not written.get(key, float("-inf")) >= read[key]:
            yield f"bounded by {key} {read[key]}"
    for key in _UPPER:
        if key in read and not written.get(key, float("inf")) <= read[key]:
            yield f"bounded by {key} {read[key]}"
    for key in _EXACT:
        if key in read and written.get(key) != read[key]:
            yield f"bounded by {key} {read[key]}"


def _takes_type(written: str | None, read: str | None) -> bool:
    return read is None or written == read or (written == "integer" and read == "number")


def _values(schema: Schema) -> set[Any] | None:
    if "const" in schema:
        return {schema["const"]}
    return set(schema["enum"]) if "enum" in schema else None


def _options(schema: Schema) -> list[Schema]:
    return list(schema.get("anyOf", [schema]))


def _resolved(schema: Schema, root: Mapping[str, Any]) -> Schema:
    reference = schema.get("$ref")
    return {**root["$defs"][reference.rpartition("/")[2]], **schema} if reference else schema


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
