"""The journal of step boundaries: how events and labels of a shard were interleaved, so that a replay repeats it.

See ``brokers.worker_api.Commit.step_boundaries`` for the rule. E is a run of events, S a step that read labels too::

    snapshot ──E──E──S──E──S──S──E── committed offsets
    boundaries       ▲ ▲  ▲ ▲ ▲          both ends of every S; shared ends are kept once

A replay goes from boundary to boundary. A section without labels is a run of events, which may be cut anywhere. A
section with labels is a step and is replayed whole, because the record times decide the order inside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ad.brokers.worker_api import InputOffsets
from stream_ad.errors import StateError

if TYPE_CHECKING:
    from stream_ad.brokers.worker_api import Commit, ShardCheckpoint


class ReplayJournal:
    """The journal of a shard, kept by the worker that owns it.

    Args:
        stored: What the broker has stored.

    Raises:
        StateError: The boundaries contradict one another.
    """

    def __init__(self, stored: ShardCheckpoint) -> None:
        self.start = _start(stored)
        self.end = stored.positions
        boundaries = sorted({*stored.journal, stored.positions})
        self._ahead = [boundary for boundary in boundaries if boundary > self.start]  # of the replay
        for before, after in zip([self.start, *self._ahead], self._ahead, strict=False):
            if after.labels < before.labels or after.events < before.events or after > self.end:
                raise StateError(
                    f"The journal leads from events {before.events}, labels {before.labels} to events "
                    f"{after.events}, labels {after.labels}, with events {self.end.events}, labels "
                    f"{self.end.labels} committed: no order of records does that.",
                    hint="The stored state is damaged: `stream-ad snapshots reset` starts with a new model.",
                )
        self._last = stored.journal[-1] if stored.journal else None
        self._began = bool(stored.journal) or stored.snapshot is not None  # what a replay starts from is stored
        self.boundaries_since_snapshot = len(stored.journal)
        self._covered = 0  # of these, by the snapshot that is being written

    def target(self, at: InputOffsets, most_events: int) -> InputOffsets | None:
        """Return the offsets at which the next step of a replay ends, None once the replay is complete.

        Args:
            at: Offsets that the replay has reached.
            most_events: Most offsets of a run of events to take in one step.
        """
        while self._ahead and self._ahead[0] <= at:
            del self._ahead[0]
        if not self._ahead:
            return None
        boundary = self._ahead[0]
        if boundary.labels == at.labels:
            return InputOffsets(min(boundary.events, at.events + most_events), at.labels)
        return boundary

    def step_boundaries(self, before: InputOffsets, after: InputOffsets) -> tuple[InputOffsets, ...]:
        """Return the boundaries that the commit of a step from ``before`` to ``after`` adds to the journal."""
        if after.labels != before.labels:
            return (after,) if before == self._last else (before, after)
        return () if self._began else (before,)

    def committed(self, commit: Commit) -> None:
        """Update the journal for a commit."""
        self._began = True
        if commit.step_boundaries:
            self._last = commit.step_boundaries[-1]
        self.boundaries_since_snapshot += len(commit.step_boundaries)
        chunk = commit.chunk_to_write
        if chunk is not None and chunk.start == 0:
            self._covered = self.boundaries_since_snapshot
        if chunk is not None and chunk.last:
            self.boundaries_since_snapshot -= self._covered


def _start(stored: ShardCheckpoint) -> InputOffsets:
    if stored.snapshot is not None:
        return stored.snapshot.positions
    return stored.journal[0] if stored.journal else stored.positions
