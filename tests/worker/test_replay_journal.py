"""The journal has what a replay needs to take the records in the same order again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_ad.brokers.worker_api import Commit, InputOffsets, ShardCheckpoint, Snapshot, SnapshotChunk
from stream_ad.errors import StateError
from stream_ad.worker.replay_journal import ReplayJournal

STEPS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)).filter(any), max_size=30)


def live(steps, *, snapshot_after=None):
    """Commit steps one after the other; return what a broker has stored then, and the offsets after each step."""
    at, stored, ends = InputOffsets(7, 2), ShardCheckpoint(InputOffsets(7, 2)), []
    journal = ReplayJournal(stored)
    step_boundaries, snapshot = [], None
    for number, (events, labels) in enumerate(steps):
        after = InputOffsets(at.events + events, at.labels + labels)
        commit = Commit(
            0,
            after,
            step_boundaries=journal.step_boundaries(at, after),
            snapshot=b"" if number == snapshot_after else None,
        )
        journal.committed(commit)
        step_boundaries += commit.step_boundaries
        if commit.snapshot is not None:
            snapshot, step_boundaries = Snapshot(after, b""), []
        at = after
        ends.append(at)
    return ShardCheckpoint(at, snapshot, tuple(step_boundaries)), ends


def replay(stored, most_events):
    """The start of a replay, and the offsets at which its steps end."""
    journal = ReplayJournal(stored)
    at, ends = journal.start, []
    while (target := journal.target(at, most_events)) is not None:
        assert target > at
        ends.append(at := target)
    return journal.start, ends


@given(STEPS, st.integers(1, 4), st.none() | st.integers(0, 29))
def test_a_replay_repeats_every_step_that_read_labels(steps, most, snapshot_after):
    """Each live step with labels is a step of the replay, with the same bounds; all others have events only."""
    stored, ends = live(steps, snapshot_after=snapshot_after)
    start, replayed = replay(stored, most)
    assert start == (stored.snapshot.positions if stored.snapshot else InputOffsets(7, 2))
    assert [start, *replayed][-1] == stored.positions
    original = {
        (before, after)
        for before, after in zip([InputOffsets(7, 2), *ends], ends, strict=False)
        if before.labels != after.labels and before >= start
    }
    repeated = set(zip([start, *replayed], replayed, strict=False))
    assert original <= repeated
    for before, after in repeated - original:
        assert before.labels == after.labels
        assert after.events - before.events <= most


@given(STEPS)
def test_a_step_adds_two_boundaries_at_most_and_none_for_events(steps):
    """The journal grows with steps that read labels only, and neighbouring steps share a boundary."""
    journal, at, previous = ReplayJournal(ShardCheckpoint(InputOffsets())), InputOffsets(), None
    for number, (events, labels) in enumerate(steps):
        after = InputOffsets(at.events + events, at.labels + labels)
        step_boundaries = journal.step_boundaries(at, after)
        if number == 0 and not labels:
            assert step_boundaries == (at,)  # where the shard started
        elif labels:
            assert step_boundaries == ((after,) if previous == at else (at, after))
        else:
            assert step_boundaries == ()
        previous = step_boundaries[-1] if step_boundaries else previous
        journal.committed(Commit(0, after, step_boundaries=step_boundaries))
        at = after


def test_a_snapshot_empties_the_journal():
    """A snapshot resets the count of boundaries, which limits the journal."""
    journal = ReplayJournal(ShardCheckpoint(InputOffsets()))
    step = InputOffsets(5, 1)
    journal.committed(Commit(0, step, step_boundaries=journal.step_boundaries(InputOffsets(), step)))
    assert journal.boundaries_since_snapshot == 2
    journal.committed(Commit(0, step, snapshot=b"x"))
    assert journal.boundaries_since_snapshot == 0


def test_a_snapshot_in_chunks_empties_the_journal_up_to_its_offsets():
    """Boundaries of commits that came while its chunks were written still count: a replay needs them."""
    journal, at = ReplayJournal(ShardCheckpoint(InputOffsets())), InputOffsets(5, 1)
    journal.committed(
        Commit(
            0, at, step_boundaries=journal.step_boundaries(InputOffsets(), at), chunk=SnapshotChunk(at, b"xyz", 0, 1)
        )
    )
    for start, after in ((1, InputOffsets(6, 2)), (2, InputOffsets(7, 3))):
        step_boundaries = journal.step_boundaries(at, after)
        journal.committed(
            Commit(
                0,
                after,
                step_boundaries=step_boundaries,
                chunk=SnapshotChunk(InputOffsets(5, 1), b"xyz", start, start + 1),
            )
        )
        at = after
    assert journal.boundaries_since_snapshot == 2


def test_the_boundary_at_a_snapshot_is_kept_for_the_previous_snapshot():
    """A step right after a snapshot adds its start to the journal, for a replay from the previous snapshot."""
    journal = ReplayJournal(ShardCheckpoint(InputOffsets(9, 4), Snapshot(InputOffsets(9, 4), b"")))
    assert journal.step_boundaries(InputOffsets(9, 4), InputOffsets(12, 5)) == (InputOffsets(9, 4), InputOffsets(12, 5))


@pytest.mark.parametrize(
    "step_boundaries",
    [(InputOffsets(5, 3), InputOffsets(6, 2)), (InputOffsets(5, 3), InputOffsets(50, 3))],
    ids=["labels run backwards", "beyond what was committed"],
)
def test_a_journal_that_contradicts_itself_is_refused(step_boundaries):
    """A damaged journal is reported, never replayed."""
    with pytest.raises(StateError, match="no order of records does that"):
        ReplayJournal(ShardCheckpoint(InputOffsets(10, 5), None, step_boundaries))
