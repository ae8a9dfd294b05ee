"""When the state of a shard is saved, and how much of a snapshot goes along with which commit."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from stream_ad.brokers.worker_api import SnapshotChunk

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ad.brokers.worker_api import Commit, InputOffsets

MAX_MARKS = 1_000  # of the journal; then a snapshot comes before its time
SNAPSHOT_SHARE = 0.04  # of the time, at most, goes into making and writing snapshots, however large they are
SCORES_FIRST_SECONDS = 3.0  # what has waited for the recovery goes out before the snapshot
SAVE_AFTER_SECONDS = 10.0  # of recovery: so long a replay shall not be repeated, and grow, if this worker dies soon
_SMOOTHED = 8  # commits over which the usual time of one is smoothed


def journal_is_full(step_boundaries: int) -> bool:
    """Whether a journal of so many marks since the last snapshot wants another one."""
    return step_boundaries >= MAX_MARKS


class SnapshotScheduler:
    """Snapshots of one shard: when the next one is due, and what of the last one is still to be written.

    One that is larger than ``chunk_bytes`` would hold the scores of a step up. It is written piece by piece, along with
    the next commits, and counts once its last piece is committed; until then the one before does.

    Args:
        number: Of the shard; not all of them are saved at once.
        interval_s: From one snapshot to the next.
        part_bytes: See ``brokers.base.Broker``.
        clock: Monotonic seconds.
    """

    def __init__(self, number: int, interval_s: float, chunk_bytes: int, clock: Callable[[], float]) -> None:
        self._interval_s, self._part_bytes, self._clock = interval_s, chunk_bytes, clock
        self._due = clock() + interval_s * (1 + number * 0.618 % 1) / 2
        self._began = 0.0
        self._took_s = 0.0
        self._usual_s: float | None = None  # a commit with nothing of a snapshot
        self._next: SnapshotChunk | None = None
        self.built_at = 0.0
        """Seconds since the epoch: what was committed later is not in the last snapshot."""

    @property
    def under_way(self) -> bool:
        """Whether a part is still to go along with a commit."""
        return self._next is not None

    def due(self, step_boundaries: int) -> bool:
        """Whether a snapshot is to be made, now that the journal has so many marks since the last one."""
        return self._clock() >= self._due or (journal_is_full(step_boundaries) and self._due < math.inf)

    def recovered(self, seconds: float) -> None:
        """Save soon what took long to recover."""
        if seconds > SAVE_AFTER_SECONDS:
            self._due = self._clock() + SCORES_FIRST_SECONDS

    def start_build(self) -> None:
        """A snapshot is made from here on; one of which parts are still to be written is given up."""
        self._began, self._due, self._next = self._clock(), math.inf, None
        self.built_at = time.time()

    def finish_build(self) -> None:
        """It is there."""
        self._took_s = self._clock() - self._began

    def begin(self, positions: InputOffsets, data: bytes) -> None:
        """Let it go along with the next commits, of which the first is that of its own positions."""
        self._next = self._part(positions, data, 0)

    def _part(self, positions: InputOffsets, data: bytes, start: int) -> SnapshotChunk:
        return SnapshotChunk(positions, data, start, min(len(data), start + self._part_bytes))

    def attach_next_chunk(self, commit: Commit) -> Commit:
        """The commit with what is to be written next."""
        part = self._next
        if part is None:
            return commit
        if part.last:
            self._next = None
            if part.start == 0:
                return replace(commit, snapshot=part.data)
        else:
            self._next = self._part(part.positions, part.data, part.stop)
        return replace(commit, chunk=part)

    def on_committed(self, commit: Commit, seconds: float) -> None:
        """Take note of a commit that is through, and took so long."""
        piece = commit.chunk_to_write
        if piece is None:
            usual_s = seconds if self._usual_s is None else self._usual_s
            self._usual_s = usual_s + (seconds - usual_s) / _SMOOTHED
            return
        self._took_s += max(0.0, seconds - (self._usual_s or 0.0))
        if piece.last:
            self._due = self._began + max(self._interval_s, self._took_s / SNAPSHOT_SHARE)
