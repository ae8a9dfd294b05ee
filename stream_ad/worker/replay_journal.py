"""How events and labels of a shard were interleaved, so that a replay interleaves them alike.

See ``brokers.base.Commit.step_boundaries`` for the rule. In pictures, E a run of events and S a step that read
labels too::

    snapshot ──E──E──S──E──S──S──E── committed positions
    marks            ▲ ▲  ▲ ▲ ▲          both ends of every S; shared ends are kept once

A replay goes from cut to cut. A piece without labels is a run of events, which may be cut anywhere;
a piece with labels is one step, and is taken whole, because inside it the record times decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ad.brokers.worker_api import InputOffsets
from stream_ad.errors import StateError

if TYPE_CHECKING:
    from stream_ad.brokers.worker_api import Commit, ShardCheckpoint


class ReplayJournal:
    """The journal of one shard as its owner knows it.

    Args:
        stored: What the broker gave back.

    Raises:
        StateError: The marks contradict one another.
    """

    def __init__(self, stored: ShardCheckpoint) -> None:
        self.start = _start(stored)
        self.end = stored.positions
        cuts = sorted({*stored.journal, stored.positions})
        self._cuts = [cut for cut in cuts if cut > self.start]
        for before, after in zip([self.start, *self._cuts], self._cuts, strict=False):
            if after.labels < before.labels or after.events < before.events or after > self.end:
                raise StateError(
                    f"The journal leads from events {before.events}, labels {before.labels} to events "
                    f"{after.events}, labels {after.labels}, with events {self.end.events}, labels "
                    f"{self.end.labels} committed: no order of records does that.",
                    hint="The stored state is damaged: `stream-ad snapshots reset` starts with a new model.",
                )
        self._last = stored.journal[-1] if stored.journal else None
        self._began = bool(stored.journal) or stored.snapshot is not None
        self.boundaries_since_snapshot = len(stored.journal)
        self._marks_covered = 0  # of these, by the snapshot under way

    def target(self, at: InputOffsets, most_events: int) -> InputOffsets | None:
        """How far the next step of a replay goes; None once it has arrived.

        Args:
            at: Where the replay stands.
            most_events: Most offsets of a run of events to take in one step.
        """
        while self._cuts and self._cuts[0] <= at:
            del self._cuts[0]
        if not self._cuts:
            return None
        cut = self._cuts[0]
        if cut.labels == at.labels:
            return InputOffsets(min(cut.events, at.events + most_events), at.labels)
        return cut

    def step_boundaries(self, before: InputOffsets, after: InputOffsets) -> tuple[InputOffsets, ...]:
        """What the commit of a step from ``before`` to ``after`` must add to the journal."""
        if after.labels != before.labels:
            return (after,) if before == self._last else (before, after)
        return () if self._began else (before,)

    def committed(self, commit: Commit) -> None:
        """Take note of a commit that is through."""
        self._began = True
        if commit.step_boundaries:
            self._last = commit.step_boundaries[-1]
        self.boundaries_since_snapshot += len(commit.step_boundaries)
        piece = commit.chunk_to_write
        if piece is not None and piece.start == 0:
            self._marks_covered = self.boundaries_since_snapshot
        if piece is not None and piece.last:
            self.boundaries_since_snapshot -= self._marks_covered


def _start(stored: ShardCheckpoint) -> InputOffsets:
    if stored.snapshot is not None:
        return stored.snapshot.positions
    return stored.journal[0] if stored.journal else stored.positions
