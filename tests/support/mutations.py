"""Valid messages with bytes inserted, removed and replaced."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.support.wire_records import NOW, NOW_MS, event

if TYPE_CHECKING:
    import random

SEEDS = [
    event(event_id="e1"),
    event(values={"temp": None, "vibration": -1.5e300, "ü": 0}),
    json.dumps({"sensor_id": "p", "label": "leak", "event_id": "e1"}).encode(),
    json.dumps({"sensor_id": "p", "label": None, "start": NOW, "end": NOW}).encode(),
    json.dumps({"d": "p", "t": NOW_MS, "v": {"x": 1}, "a": {"b": "q", "y": 2}, "timestamp": NOW, "x": 3}).encode(),
]
SNIPPETS = [
    b"NaN",
    b"1e999",
    b"null",
    b'""',
    b"{}",
    b"[",
    b"}",
    b"\xff",
    b"\\ud800",
    b"\x00",
    b"9" * 400,
    b",",
    b'"',
    b"-",
]


def mutated(rng: random.Random, seeds: list[bytes] = SEEDS) -> bytes:
    """Generate one of the seeds with up to three mutations; sometimes it is still valid."""
    value = bytearray(rng.choice(seeds))
    for _ in range(rng.randrange(1, 4)):
        start = rng.randrange(len(value) + 1)
        stop = min(len(value), start + rng.randrange(6))
        kind = rng.randrange(4)
        if kind == 0:
            value[start:stop] = rng.choice(SNIPPETS)
        elif kind == 1:
            value[start:stop] = rng.randbytes(rng.randrange(4))
        elif kind == 2:
            value[start:start] = value[stop : stop + 12]
        else:
            del value[start:stop]
    return bytes(value)
