"""Commits of steps with snapshots in parts, for stories of what a broker keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stream_ad.brokers.worker_api import Positions, SnapshotPart

if TYPE_CHECKING:
    from collections.abc import Iterator


def steps(sizes: list[tuple[int, int]]) -> Iterator[tuple[Positions, tuple[Positions, ...]]]:
    """Commits of steps: positions, and the marks of those that read labels."""
    at, first, last = Positions(), True, None
    for events, labels in sizes:
        after = Positions(at.events + events, at.labels + labels)
        marks: tuple[Positions, ...] = (at,) if first else ()
        if labels:
            marks = (after,) if at == last else (at, after)
        at, first, last = after, False, marks[-1] if marks else last
        yield after, marks


def part_after(part: SnapshotPart | None, positions: Positions, data: bytes, size: int) -> SnapshotPart:
    """The part after another one, or the first one of other data."""
    if part is None:
        return SnapshotPart(positions, data, 0, min(len(data), size))
    return replace(part, start=part.stop, stop=min(len(part.data), part.stop + size))
