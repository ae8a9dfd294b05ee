"""Commits of steps with snapshots in parts, for stories of what a broker keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stream_ad.brokers.worker_api import InputOffsets, SnapshotChunk

if TYPE_CHECKING:
    from collections.abc import Iterator


def steps(sizes: list[tuple[int, int]]) -> Iterator[tuple[InputOffsets, tuple[InputOffsets, ...]]]:
    """Commits of steps: positions, and the step boundaries of those that read labels."""
    at, first, last = InputOffsets(), True, None
    for events, labels in sizes:
        after = InputOffsets(at.events + events, at.labels + labels)
        step_boundaries: tuple[InputOffsets, ...] = (at,) if first else ()
        if labels:
            step_boundaries = (after,) if at == last else (at, after)
        at, first, last = after, False, step_boundaries[-1] if step_boundaries else last
        yield after, step_boundaries


def part_after(part: SnapshotChunk | None, positions: InputOffsets, data: bytes, size: int) -> SnapshotChunk:
    """The part after another one, or the first one of other data."""
    if part is None:
        return SnapshotChunk(positions, data, 0, min(len(data), size))
    return replace(part, start=part.stop, stop=min(len(part.data), part.stop + size))
