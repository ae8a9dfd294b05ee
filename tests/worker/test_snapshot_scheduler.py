"""When the next snapshot of a shard is due, by the time that the last one took."""

from __future__ import annotations

import pytest

from stream_ad.brokers.worker_api import Commit, InputOffsets
from stream_ad.testing import ManualClock
from stream_ad.worker.snapshot_scheduler import SNAPSHOT_SHARE, SnapshotScheduler

AT = InputOffsets(1, 0)


def next_due(scheduler, clock, *, size, made_s, commit_s, usual_s):
    """Build and write a snapshot; return the seconds from the beginning until the next one is due."""
    scheduler.on_committed(Commit(0, AT), usual_s)
    began = clock()
    scheduler.start_build()
    clock.advance(made_s)
    scheduler.finish_build()
    scheduler.begin(AT, b"x" * size)
    while scheduler.under_way:
        commit = scheduler.attach_next_chunk(Commit(0, AT))
        assert not scheduler.due(10**6), "one at a time"
        clock.advance(commit_s)
        scheduler.on_committed(commit, commit_s)
    while not scheduler.due(0):
        clock.advance(1)
    return clock() - began


@pytest.mark.parametrize(
    ("size", "made_s", "commit_s", "usual_s", "due_s"),
    [
        (10, 0.1, 0.3, 0.1, 60),  # in one commit, and cheap
        (10, 4.0, 1.0, 0.0, 5 / SNAPSHOT_SHARE),
        (1_000, 0.2, 0.3, 0.1, 60),  # ten chunks take 2 s beside what the commits take anyway
        (10_000, 1.0, 0.3, 0.2, 11 / SNAPSHOT_SHARE),
    ],
)
def test_snapshots_take_a_share_of_the_time_at_most(size, made_s, commit_s, usual_s, due_s):
    """The next snapshot is due after the interval, or later, so that the time to build the last one and the additional
    time of its commits are at most a fixed share.
    """
    clock = ManualClock()
    scheduler = SnapshotScheduler(0, 60.0, 100, clock)
    due_after_s = next_due(scheduler, clock, size=size, made_s=made_s, commit_s=commit_s, usual_s=usual_s)
    assert due_s <= due_after_s <= due_s + 1


def test_snapshots_are_built_one_at_a_time():
    """While chunks are left, no other snapshot is due, however full the journal; building one abandons them."""
    scheduler = SnapshotScheduler(0, 60.0, 100, ManualClock())
    scheduler.start_build()
    scheduler.finish_build()
    scheduler.begin(AT, b"x" * 250)
    assert [scheduler.attach_next_chunk(Commit(0, AT)).chunk.start for _ in range(2)] == [0, 100]
    assert not scheduler.due(10**6)
    scheduler.start_build()
    assert not scheduler.under_way
    scheduler.on_committed(Commit(0, AT, snapshot=b"x"), 0.1)
    assert scheduler.due(10**6)
