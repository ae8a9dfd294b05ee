"""Which changes of a message break its users: inputs may only widen, outputs may only add."""

from __future__ import annotations

from copy import deepcopy

import pytest

from tools.wire_compatibility import Direction, breaking_changes

MESSAGE = {
    "$defs": {"Part": {"type": "object", "properties": {"share": {"type": "number"}}, "required": ["share"]}},
    "type": "object",
    "properties": {
        "id": {"type": "string", "minLength": 1, "maxLength": 256},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "phase": {"enum": ["warm-up", "live"], "type": "string"},
        "values": {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/Part"}},
    },
    "required": ["id", "phase", "values"],
}


def changed(*path, to=None, **fields):
    """Return MESSAGE with one node replaced (``to``) or given further keys."""
    message = deepcopy(MESSAGE)
    node = message
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = to if to is not None else node[path[-1]] | fields
    return message


def without(*path):
    message = deepcopy(MESSAGE)
    node = message
    for step in path[:-1]:
        node = node[step]
    del node[path[-1]]
    return message


NEITHER = [
    ("a field is gone", without("properties", "note"), "note: the field is gone"),
    ("a nested field is gone", without("$defs", "Part", "properties", "share"), "parts[].share: the field is gone"),
    ("another type", changed("properties", "id", to={"type": "integer"}), "id: "),
]
WIDER = [
    ("a longer text", changed("properties", "id", maxLength=512), "id: no longer bounded by maxLength 256"),
    ("no bound", changed("properties", "id", to={"type": "string"}), "id: no longer bounded by minLength 1"),
    ("null as well", changed("properties", "id", to={"anyOf": [{"type": "string"}, {"type": "null"}]}), "id: "),
    ("one value more", changed("properties", "phase", enum=["warm-up", "live", "off"]), "phase: no longer one of"),
    ("numbers for integers", changed("properties", "values", additionalProperties={"type": "number"}), "values[]: "),
    ("no longer required", changed("required", to=["id", "values"]), "phase: no longer required"),
    ("an empty object", changed("properties", "values", minProperties=0), "values: no longer bounded"),
]
NARROWER = [
    ("a shorter text", changed("properties", "id", maxLength=8), "id: bounded by maxLength 8, and was not"),
    ("a pattern", changed("properties", "id", pattern="^a"), "id: bounded by pattern ^a, and was not"),
    ("no null", changed("properties", "note", to={"type": "string"}), "note: of type string, and was not"),
    ("one value less", changed("properties", "phase", enum=["live"]), "phase: one of live, and was not"),
    ("now required", changed("required", to=["id", "phase", "values", "note"]), "note: required, and was not"),
    ("closed", {**MESSAGE, "additionalProperties": False}, "the message: closed to other fields, and was not"),
]
EITHER = [
    ("nothing", MESSAGE),
    ("words", {**MESSAGE, "title": "A message", "description": "Of a test."}),
    ("a field that may be missing", changed("properties", unit={"type": "string"})),
    ("a definition in its place", changed("properties", "parts", items=MESSAGE["$defs"]["Part"])),
]


@pytest.mark.parametrize(("_", "new"), EITHER, ids=[name for name, *_ in EITHER])
@pytest.mark.parametrize("direction", Direction)
def test_compatible_changes(_, new, direction):
    """Descriptions and new optional fields may change in either direction."""
    assert breaking_changes(MESSAGE, new, direction) == []


@pytest.mark.parametrize(("_", "new", "said"), NEITHER, ids=[name for name, *_ in NEITHER])
@pytest.mark.parametrize("direction", Direction)
def test_incompatible_changes(_, new, said, direction):
    """A removed field or another type breaks writers and readers."""
    assert any(change.startswith(said) for change in breaking_changes(MESSAGE, new, direction))


@pytest.mark.parametrize(("_", "new", "said"), WIDER, ids=[name for name, *_ in WIDER])
def test_inputs_may_widen_and_outputs_may_not(_, new, said):
    """A message that accepts more suits its writers and breaks its readers."""
    assert breaking_changes(MESSAGE, new, Direction.INPUT) == []
    assert any(change.startswith(said) for change in breaking_changes(MESSAGE, new, Direction.OUTPUT))


@pytest.mark.parametrize(("_", "new", "said"), NARROWER, ids=[name for name, *_ in NARROWER])
def test_outputs_may_narrow_and_inputs_may_not(_, new, said):
    """A message that accepts less suits its readers and breaks its writers."""
    assert breaking_changes(MESSAGE, new, Direction.OUTPUT) == []
    assert said in breaking_changes(MESSAGE, new, Direction.INPUT)


def test_a_new_required_field():
    """A new required field breaks writers, but not readers."""
    new = changed("properties", unit={"type": "string"})
    new["required"] = [*new["required"], "unit"]
    assert breaking_changes(MESSAGE, new, Direction.INPUT) == ["unit: required, and was not"]
    assert breaking_changes(MESSAGE, new, Direction.OUTPUT) == []
