"""When to build a snapshot of a shard, and which chunk of it to write with which commit."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from stream_ad.brokers.worker_api import SnapshotChunk

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ad.brokers.worker_api import Commit, InputOffsets

MAX_BOUNDARIES = 1_000  # in the journal; then a snapshot is due early, so that journal and replay stay bounded
SNAPSHOT_SHARE = 0.04  # largest share of time to build and write snapshots, however large these are
SCORES_FIRST_SECONDS = 3.0  # after a recovery: scores that have waited for it are published before the snapshot
SAVE_AFTER_SECONDS = 10.0  # of recovery: save soon, so that a replay so long is not repeated if this worker dies
_SMOOTHED = 8  # commits: time constant of the average time of a commit without a snapshot


def journal_is_full(step_boundaries: int) -> bool:
    """Return whether a journal with so many boundaries since the last snapshot needs another snapshot."""
    return step_boundaries >= MAX_BOUNDARIES


class SnapshotScheduler:
    """The schedule of a shard's snapshots, and the chunks of the present one that are still to be written.

    A snapshot larger than ``chunk_bytes`` would delay the scores of a step, so it is written in chunks with several
    commits:

    1. ``due``: the interval has passed, or the journal is full.
    2. ``start_build`` and ``finish_build``: the time to build it counts towards SNAPSHOT_SHARE. An earlier snapshot
       that is not fully written is abandoned.
    3. ``begin``: the first chunk is written with the commit of the state that the snapshot has.
    4. ``attach_next_chunk``: each commit takes the next chunk.
    5. ``on_committed``: with the last chunk the snapshot becomes current. Until then the previous one is.

    Args:
        number: Number of the shard; it shifts the first snapshot, so that shards are not all saved at once.
        interval_s: Seconds from one snapshot to the next.
        chunk_bytes: See ``brokers.worker_api.Broker``.
        clock: Monotonic seconds.
    """

    def __init__(self, number: int, interval_s: float, chunk_bytes: int, clock: Callable[[], float]) -> None:
        self._interval_s, self._chunk_bytes, self._clock = interval_s, chunk_bytes, clock
        self._due = clock() + interval_s * (1 + number * 0.618 % 1) / 2  # multiples of the golden ratio spread evenly
        self._began = 0.0
        self._took_s = 0.0
        self._usual_s: float | None = None  # average of a commit without a chunk
        self._next: SnapshotChunk | None = None
        self.built_at = 0.0
        """Seconds since the epoch at which the last snapshot was built: it lacks what was committed later."""

    @property
    def under_way(self) -> bool:
        """Whether a chunk is still to be written."""
        return self._next is not None

    def due(self, step_boundaries: int) -> bool:
        """Return whether to build a snapshot now.

        Args:
            step_boundaries: Boundaries in the journal since the last snapshot.
        """
        return self._clock() >= self._due or (journal_is_full(step_boundaries) and self._due < math.inf)

    def recovered(self, seconds: float) -> None:
        """Make a snapshot due soon if the recovery took long.

        Args:
            seconds: Duration of the recovery.
        """
        if seconds > SAVE_AFTER_SECONDS:
            self._due = self._clock() + SCORES_FIRST_SECONDS

    def start_build(self) -> None:
        """Start building a snapshot, and abandon an earlier one that is not fully written."""
        self._began, self._due, self._next = self._clock(), math.inf, None
        self.built_at = time.time()

    def finish_build(self) -> None:
        """Finish building a snapshot."""
        self._took_s = self._clock() - self._began

    def begin(self, positions: InputOffsets, data: bytes) -> None:
        """Write a snapshot with the next commits.

        Args:
            positions: Offsets of its state, which the next commit must have too.
            data: The snapshot.
        """
        self._next = self._chunk(positions, data, 0)

    def _chunk(self, positions: InputOffsets, data: bytes, start: int) -> SnapshotChunk:
        return SnapshotChunk(positions, data, start, min(len(data), start + self._chunk_bytes))

    def attach_next_chunk(self, commit: Commit) -> Commit:
        """Return a commit with the next chunk, if any is still to be written."""
        chunk = self._next
        if chunk is None:
            return commit
        if chunk.last:
            self._next = None
            if chunk.start == 0:
                return replace(commit, snapshot=chunk.data)
        else:
            self._next = self._chunk(chunk.positions, chunk.data, chunk.stop)
        return replace(commit, chunk=chunk)

    def on_committed(self, commit: Commit, seconds: float) -> None:
        """Update the schedule for a completed commit.

        Args:
            commit: The commit.
            seconds: Its duration.
        """
        chunk = commit.chunk_to_write
        if chunk is None:
            usual_s = seconds if self._usual_s is None else self._usual_s
            self._usual_s = usual_s + (seconds - usual_s) / _SMOOTHED
            return
        self._took_s += max(0.0, seconds - (self._usual_s or 0.0))
        if chunk.last:
            self._due = self._began + max(self._interval_s, self._took_s / SNAPSHOT_SHARE)
