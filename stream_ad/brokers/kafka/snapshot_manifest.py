"""What closes a snapshot in the state topic, and tells of those before it."""

from __future__ import annotations

from typing import Annotated

import msgspec

Offset = Annotated[int, msgspec.Meta(ge=0)]
Chunks = Annotated[int, msgspec.Meta(ge=0, le=2**20)]


class Older(msgspec.Struct, frozen=True, array_like=True):
    """A snapshot that is kept beside a newer one."""

    number: Offset
    events: Offset
    labels: Offset
    line: Offset
    lineage_reason: Annotated[str, msgspec.Meta(max_length=200)]
    saved_ms: Offset
    size_bytes: Offset
    chunks: Chunks


class Manifest(msgspec.Struct, frozen=True):
    """Closes a snapshot."""

    events: Offset
    labels: Offset
    chunks: Offset
    sha256: str
    partitions: int
    """Of the events topic at the time: with another number sensors live in other shards."""
    line: Offset = 0
    lineage_reason: Annotated[str, msgspec.Meta(max_length=200)] = ""
    saved_ms: Offset = 0
    older: Annotated[tuple[Older, ...], msgspec.Meta(max_length=1000)] = ()
    """All that were kept when this one was written: whoever loads the shard reads none of their data."""


def read_manifest(value: bytes) -> Manifest | None:
    """None where it is not one."""
    try:
        return msgspec.json.decode(value, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
