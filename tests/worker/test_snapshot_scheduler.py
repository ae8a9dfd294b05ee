"""When a shard is saved next, by what the last snapshot has cost."""

from __future__ import annotations

import pytest

from stream_ad.brokers.worker_api import Commit, InputOffsets
from stream_ad.testing import ManualClock
from stream_ad.worker.snapshot_scheduler import SNAPSHOT_SHARE, SnapshotScheduler

AT = InputOffsets(1, 0)


def saved(saving, clock, *, size, made_s, commit_s, usual_s):
    """Go through a snapshot; seconds from when it was made to when the next one is due."""
    saving.on_committed(Commit(0, AT), usual_s)
    began = clock()
    saving.start_build()
    clock.advance(made_s)
    saving.finish_build()
    saving.begin(AT, b"x" * size)
    while saving.under_way:
        commit = saving.attach_next_chunk(Commit(0, AT))
        assert not saving.due(10**6), "one at a time"
        clock.advance(commit_s)
        saving.on_committed(commit, commit_s)
    while not saving.due(0):
        clock.advance(1)
    return clock() - began


@pytest.mark.parametrize(
    ("size", "made_s", "commit_s", "usual_s", "due_s"),
    [
        (10, 0.1, 0.3, 0.1, 60),  # in one commit, and cheap
        (10, 4.0, 1.0, 0.0, 5 / SNAPSHOT_SHARE),
        (1_000, 0.2, 0.3, 0.1, 60),  # ten parts cost 2 s beside what the commits take anyway
        (10_000, 1.0, 0.3, 0.2, 11 / SNAPSHOT_SHARE),
    ],
)
def test_snapshots_cost_a_share_of_the_time_at_most(size, made_s, commit_s, usual_s, due_s):
    """The next one is due an interval after this one was made, or later: what making it took, and what its commits took
    longer than others, is a fixed share of the time until then.
    """
    clock = ManualClock()
    saving = SnapshotScheduler(0, 60.0, 100, clock)
    found = saved(saving, clock, size=size, made_s=made_s, commit_s=commit_s, usual_s=usual_s)
    assert due_s <= found <= due_s + 1


def test_one_is_made_at_a_time():
    """While parts are to be written, no other snapshot is due, however full the journal; a whole one gives them up."""
    saving = SnapshotScheduler(0, 60.0, 100, ManualClock())
    saving.start_build()
    saving.finish_build()
    saving.begin(AT, b"x" * 250)
    assert [saving.attach_next_chunk(Commit(0, AT)).chunk.start for _ in range(2)] == [0, 100]
    assert not saving.due(10**6)
    saving.start_build()
    assert not saving.under_way
    saving.on_committed(Commit(0, AT, snapshot=b"x"), 0.1)
    assert saving.due(10**6)
