"""The manifest, which completes a snapshot in the state topic and lists the snapshots before it.

Its JSON keys ``line`` and ``origin`` are those that earlier versions wrote.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

Offset = Annotated[int, msgspec.Meta(ge=0)]
Chunks = Annotated[int, msgspec.Meta(ge=0, le=2**20)]


class Older(msgspec.Struct, frozen=True, array_like=True):
    """An older snapshot that is still kept, as a newer one's manifest lists it."""

    number: Offset
    events: Offset
    labels: Offset
    lineage: Offset
    lineage_reason: Annotated[str, msgspec.Meta(max_length=200)]
    saved_ms: Offset
    size_bytes: Offset
    chunks: Chunks


class Manifest(msgspec.Struct, frozen=True):
    """The record that completes a snapshot."""

    events: Offset
    labels: Offset
    chunks: Offset
    sha256: str
    partitions: int
    """Of the events topic when the snapshot was written: with another number, sensors belong to other shards."""
    lineage: Offset = msgspec.field(default=0, name="line")
    lineage_reason: Annotated[str, msgspec.Meta(max_length=200)] = msgspec.field(default="", name="origin")
    saved_ms: Offset = 0
    older: Annotated[tuple[Older, ...], msgspec.Meta(max_length=1000)] = ()
    """All snapshots that were kept when this one was written: a load of the shard reads none of their data."""


def read_manifest(value: bytes) -> Manifest | None:
    """Decode a manifest; return None where the value is not one."""
    try:
        return msgspec.json.decode(value, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
