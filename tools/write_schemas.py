"""Write the JSON Schemas of the messages into schemas/, from stream_ad/records/schemas.py (`make schemas`).

    python -m tools.write_schemas              the present schemas, in schemas/v1
    python -m tools.write_schemas --release    also a copy of them for this version of the program

A test compares schemas/v1 with the code and with the copy of the last release.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from stream_ad import __version__
from stream_ad.records.schemas import AnomalyScore, DeadLetterHeaders, Incident, Label, SensorEvent
from tools.wire_compatibility import Direction

if TYPE_CHECKING:
    from pydantic import BaseModel

SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"
VERSION = "v1"
RELEASED = SCHEMAS / "released"


class Message(NamedTuple):
    """A kind of message, and who writes it."""

    model: type[BaseModel]
    direction: Direction


MESSAGES = {
    "sensor-event": Message(SensorEvent, Direction.INPUT),
    "label": Message(Label, Direction.INPUT),
    "anomaly-score": Message(AnomalyScore, Direction.OUTPUT),
    "incident": Message(Incident, Direction.OUTPUT),
    "dead-letter-headers": Message(DeadLetterHeaders, Direction.OUTPUT),
}


def schema(name: str) -> dict[str, Any]:
    """Return the present JSON Schema of a kind of message."""
    model, direction = MESSAGES[name]
    mode: Literal["validation", "serialization"] = "validation" if direction is Direction.INPUT else "serialization"
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:stream-ad:{VERSION}:{name}",
    }
    return head | model.model_json_schema(mode=mode)


def files() -> dict[Path, str]:
    """Return every file of schemas/v1, as it should be, by its path."""
    return {SCHEMAS / VERSION / f"{name}.json": json.dumps(schema(name), indent=2) + "\n" for name in MESSAGES}


def last_release() -> Path:
    """Return the folder with the schemas of the newest release."""
    return max(RELEASED.iterdir(), key=lambda folder: tuple(map(int, folder.name.split("."))))


def main(*, release: bool) -> None:
    """Write the present schemas, and with ``release`` a copy."""
    for path, text in files().items():
        copies = [path, RELEASED / __version__ / path.name] if release else [path]
        for target in copies:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(release="--release" in sys.argv[1:])
