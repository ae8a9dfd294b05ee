"""Snapshots on the embedded broker: written and deleted in chunks, however large they are."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ad.brokers.sqlite import state_tables as sqlite_state
from stream_ad.brokers.worker_api import Commit, InputOffsets, InputTopic
from stream_ad.records.columns import OutRecord
from tests.support.broker_fixtures import memory_place, sqlite_place
from tests.support.snapshot_commits import part_after, steps

PART = 10
HISTORY = {"snapshot_history": 1, "snapshot_history_interval_seconds": 0.0}
ACTIONS = st.sampled_from([*["part"] * 8, "plain", "whole", "give up", "take over", "delete"])
STORY = st.lists(st.tuples(st.tuples(st.integers(1, 3), st.integers(0, 2)), ACTIONS), max_size=25)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(sqlite_state, "CHUNK_BYTES", PART)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "broker.db"


@pytest.fixture
def place(path):
    """An embedded broker with one shard."""
    with ExitStack() as stack:
        yield sqlite_place(path, stack, "app", partitions=1)


def rows(path, sql):
    with closing(sqlite3.connect(path)) as database:
        return database.execute(sql).fetchall()


def parts_of(path):
    """Return the number of chunks by snapshot."""
    return dict(rows(path, "SELECT seq, count(*) FROM snapshot_parts GROUP BY seq"))


@settings(max_examples=200, deadline=None)
@given(STORY, st.integers(0, 12))
def test_what_is_kept_is_what_a_broker_in_memory_keeps(story, size):
    """After any commits, with whole snapshots or chunks over several commits, new owners and deletions: offsets,
    journal, snapshots and their data equal those of the broker in memory.
    """
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "broker.db")
        places = [sqlite_place(path, stack, "app", partitions=1), memory_place(stack, "app", partitions=1)]
        for place in places:
            place.settings = place.altered(worker=HISTORY)
            for side in InputTopic:
                place.producer().send(side, [OutRecord(b"a", b"", n) for n in range(100)])
        workers = [place.worker() for place in places]
        chunk = None  # the last one of a snapshot that is under way
        for number, ((after, step_boundaries), (_, action)) in enumerate(
            zip(steps([count for count, _ in story]), story, strict=True)
        ):
            data, commit = (b"%d " % number) * size, Commit(0, after, step_boundaries=step_boundaries)
            if action == "take over":
                workers, chunk = [place.takeover(old) for place, old in zip(places, workers, strict=True)], None
            elif action == "delete":
                workers, chunk = [delete_oldest(place, old) for place, old in zip(places, workers, strict=True)], None
            elif action == "whole":
                commit, chunk = replace(commit, snapshot=data), None
            elif action in {"part", "give up"}:
                chunk = part_after(chunk if action == "part" else None, after, data, PART)
                commit = replace(commit, chunk=chunk)
            for worker in workers:
                worker.commit(commit)
            if chunk is not None and chunk.last:
                chunk = None
            assert kept(places[0]) == kept(places[1])
        loaded = [worker.load(0) for worker in workers]
        assert len({(checkpoint.positions, checkpoint.journal, checkpoint.rebuild) for checkpoint in loaded}) == 1
        snapshots = {
            checkpoint.snapshot
            and (checkpoint.snapshot.positions, checkpoint.snapshot.number, checkpoint.snapshot.data)
            for checkpoint in loaded
        }
        assert len(snapshots) == 1
        assert all(length <= PART for (length,) in rows(path, "SELECT length(data) FROM snapshot_parts"))


def kept(place):
    """Return all snapshots and their data, without the time at which they were saved."""
    snapshots = place.snapshots()
    return [(replace(snapshot, saved_ms=0), snapshots.read(0, snapshot.number)) for snapshot in snapshots.kept(0)]


def delete_oldest(place, worker):
    """Delete the oldest snapshot while no worker runs."""
    worker.close()
    snapshots = place.snapshots()
    if len(kept := snapshots.kept(0)) > 1:
        snapshots.delete(0, kept[-1].number)
    return place.worker()


def test_what_is_dropped_gives_its_room_back(place, path):
    """Chunks of dropped snapshots are deleted as new ones are written, at most two with each commit."""
    worker = place.worker(place.altered(worker={"snapshot_history": 0}))
    for number in range(1, 12):
        chunk, removed = None, []
        while chunk is None or not chunk.last:
            chunk = part_after(chunk, InputOffsets(), os.urandom(50 * PART), PART)
            before = sum(parts_of(path).values())
            worker.commit(Commit(0, InputOffsets(), chunk=chunk))
            removed.append(before + 1 - sum(parts_of(path).values()))
        assert max(removed) <= 2
        remaining = parts_of(path)
        assert set(remaining) <= {number, number - 1, number - 2}
        assert remaining.get(number - 2, 50) == 50, "dropped just now, after two that are kept were there"
    worker.commit(Commit(0, InputOffsets(), snapshot=b"x" * 50 * PART))
    assert set(parts_of(path)) == {10, 11, 12}


def test_what_was_given_up_gives_its_room_back(place, path):
    """The next snapshot removes everything of one that was abandoned, with or without its worker."""
    worker = place.worker()
    worker.commit(Commit(0, InputOffsets(), chunk=part_after(None, InputOffsets(), b"a" * 50, PART)))
    worker.commit(Commit(0, InputOffsets(), snapshot=b"small"))
    assert parts_of(path) == {1: 1}
    large = part_after(None, InputOffsets(), b"a" * 50, PART)
    worker.commit(Commit(0, InputOffsets(), chunk=large))
    worker.commit(Commit(0, InputOffsets(), chunk=part_after(large, InputOffsets(), b"", PART)))
    assert parts_of(path) == {1: 1, 2: 2}
    place.takeover(worker).commit(Commit(0, InputOffsets(), snapshot=b"small"))
    assert parts_of(path) == {1: 1, 2: 1}


def test_a_part_that_is_missing_is_damage(place, path):
    """A snapshot with a missing or changed chunk is not returned; the previous one is."""
    worker = place.worker()
    for data in (b"first " * 10, b"second " * 10, b"third " * 10):
        worker.commit(Commit(0, InputOffsets(), snapshot=data))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DELETE FROM snapshot_parts WHERE seq = 3 AND start = 50")
    stored = worker.load(0)
    assert stored.snapshot is not None
    assert stored.snapshot.data == b"second " * 10
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE snapshot_parts SET data = x'00' WHERE seq = 2 AND start = 20")
    assert worker.load(0).rebuild
