"""Snapshots on the embedded broker: written and given back piece by piece, however large they are."""

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
from tests.support.detector_fixtures import chunk_after, steps

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
    """How many there are, by snapshot."""
    return dict(rows(path, "SELECT seq, count(*) FROM snapshot_parts GROUP BY seq"))


@settings(max_examples=200, deadline=None)
@given(STORY, st.integers(0, 12))
def test_what_is_kept_is_what_a_broker_in_memory_keeps(story, size):
    """Whatever was committed, whole snapshots or parts over several commits, with new owners and deletions in between:
    positions, journal, snapshots and their data are those of a broker that keeps them in plain variables.
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
            zip(steps([one for one, _ in story]), story, strict=True)
        ):
            data, commit = (b"%d " % number) * size, Commit(0, after, step_boundaries=step_boundaries)
            if action == "take over":
                workers, chunk = [place.takeover(old) for place, old in zip(places, workers, strict=True)], None
            elif action == "delete":
                workers, chunk = [delete_oldest(place, old) for place, old in zip(places, workers, strict=True)], None
            elif action == "whole":
                commit, chunk = replace(commit, snapshot=data), None
            elif action in {"part", "give up"}:
                chunk = chunk_after(chunk if action == "part" else None, after, data, PART)
                commit = replace(commit, chunk=chunk)
            for worker in workers:
                worker.commit(commit)
            if chunk is not None and chunk.last:
                chunk = None
            assert kept(places[0]) == kept(places[1])
        loaded = [worker.load(0) for worker in workers]
        assert len({(one.positions, one.journal, one.rebuild) for one in loaded}) == 1
        found = {one.snapshot and (one.snapshot.positions, one.snapshot.number, one.snapshot.data) for one in loaded}
        assert len(found) == 1
        assert all(length <= PART for (length,) in rows(path, "SELECT length(data) FROM snapshot_parts"))


def kept(place):
    """All snapshots and their data, but for the hour at which they were saved."""
    snapshots = place.snapshots()
    return [(replace(one, saved_ms=0), snapshots.read(0, one.number)) for one in snapshots.kept(0)]


def delete_oldest(place, worker):
    """As people do between two workers."""
    worker.close()
    snapshots = place.snapshots()
    if len(there := snapshots.kept(0)) > 1:
        snapshots.delete(0, there[-1].number)
    return place.worker()


def test_what_is_dropped_gives_its_room_back(place, path):
    """Parts of snapshots that are no longer kept go as new ones come, two at most with each commit."""
    worker = place.worker(place.altered(worker={"snapshot_history": 0}))
    for number in range(1, 12):
        chunk, removed = None, []
        while chunk is None or not chunk.last:
            chunk = chunk_after(chunk, InputOffsets(), os.urandom(50 * PART), PART)
            before = sum(parts_of(path).values())
            worker.commit(Commit(0, InputOffsets(), chunk=chunk))
            removed.append(before + 1 - sum(parts_of(path).values()))
        assert max(removed) <= 2
        there = parts_of(path)
        assert set(there) <= {number, number - 1, number - 2}
        assert there.get(number - 2, 50) == 50, "dropped just now, after two that are kept were there"
    worker.commit(Commit(0, InputOffsets(), snapshot=b"x" * 50 * PART))
    assert set(parts_of(path)) == {10, 11, 12}


def test_what_was_given_up_gives_its_room_back(place, path):
    """Of a snapshot that was begun and given up, by the worker or with it, the next one leaves nothing."""
    worker = place.worker()
    worker.commit(Commit(0, InputOffsets(), chunk=chunk_after(None, InputOffsets(), b"a" * 50, PART)))
    worker.commit(Commit(0, InputOffsets(), snapshot=b"small"))
    assert parts_of(path) == {1: 1}
    large = chunk_after(None, InputOffsets(), b"a" * 50, PART)
    worker.commit(Commit(0, InputOffsets(), chunk=large))
    worker.commit(Commit(0, InputOffsets(), chunk=chunk_after(large, InputOffsets(), b"", PART)))
    assert parts_of(path) == {1: 1, 2: 2}
    place.takeover(worker).commit(Commit(0, InputOffsets(), snapshot=b"small"))
    assert parts_of(path) == {1: 1, 2: 1}


def test_a_part_that_is_missing_is_damage(place, path):
    """A snapshot of which a part is gone, or is not what was written, is not given out; the one before is."""
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
