"""Commits of steps, and snapshots in chunks, for tests of what a broker keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stream_ad.brokers.worker_api import InputOffsets, SnapshotChunk

if TYPE_CHECKING:
    from collections.abc import Iterator


def steps(sizes: list[tuple[int, int]]) -> Iterator[tuple[InputOffsets, tuple[InputOffsets, ...]]]:
    """Yield the commits of steps that read so many events and labels: input offsets, and step boundaries."""
    at, first, last = InputOffsets(), True, None
    for events, labels in sizes:
        after = InputOffsets(at.events + events, at.labels + labels)
        step_boundaries: tuple[InputOffsets, ...] = (at,) if first else ()
        if labels:
            step_boundaries = (after,) if at == last else (at, after)
        at, first, last = after, False, step_boundaries[-1] if step_boundaries else last
        yield after, step_boundaries


def part_after(part: SnapshotChunk | None, positions: InputOffsets, data: bytes, size: int) -> SnapshotChunk:
    """Return the chunk after another one, or the first chunk of other data."""
    if part is None:
        return SnapshotChunk(positions, data, 0, min(len(data), size))
    return replace(part, start=part.stop, stop=min(len(part.data), part.stop + size))
