"""A shard's part of the state topic, without Kafka: a log of records that is read again after every crash."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ad.brokers.kafka import state_topic as kafka_state
from stream_ad.brokers.kafka.snapshot_manifest import read_manifest
from stream_ad.brokers.kafka.state_topic import ShardState
from stream_ad.brokers.worker_api import Commit, InputOffsets, SnapshotChunk
from stream_ad.settings import Settings
from tests.support.snapshot_commits import part_after, steps

SETTINGS = Settings.model_validate({"worker": {"snapshot_history": 1, "snapshot_history_interval_seconds": 0.0}})
CHUNK = 10


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_state, "CHUNK_BYTES", CHUNK)
    monkeypatch.setattr(kafka_state, "TRANSACTION_CHUNKS", 3)


class Log:
    """The state topic's partition of one shard, and where a load may begin according to the last commit."""

    def __init__(self) -> None:
        self.records: list[tuple[bytes | None, bytes | None]] = []
        self.start = 0
        self.positions = InputOffsets()
        self.state = self.read(0)

    def read(self, start: int, *, history: bool = False) -> ShardState:
        records = ((key, value, start + n) for n, (key, value) in enumerate(self.records[start:]))
        return ShardState(SETTINGS, 0, records, start=start, history=history)

    def commit(self, commit: Commit, *, dies: bool = False) -> None:
        ahead, records = self.state.records(commit)
        for chunk in ahead:
            self.records += [(key, value) for key, value, *_ in chunk]
        if dies:  # what went ahead stays, the commit does not come about
            self.restart()
            return
        self.records += [(key, value) for key, value, *_ in records]
        if records:
            self.state.on_written(len(self.records) - 1)
        self.start, self.positions = self.state.start, commit.positions

    def restart(self) -> None:
        self.state = self.read(self.start)

    def compact(self) -> None:
        """Compact as the log cleaner may, all but the end: the last record of each key stays, and offsets stay."""
        last = {key: n for n, (key, _) in enumerate(self.records)}
        self.records = [
            record if key is None or last[key] == n else (None, None)
            for n, record in enumerate(self.records)
            for key in record[:1]
        ]


ACTIONS = st.sampled_from([*["part"] * 8, "plain", "plain", "whole", "give up", "die", "restart", "compact"])
STORY = st.lists(st.tuples(st.tuples(st.integers(1, 3), st.integers(0, 2)), ACTIONS), max_size=30)


@settings(max_examples=400, deadline=None)
@given(STORY, st.integers(0, 12))
def test_a_load_from_the_recorded_offset_finds_all_that_it_needs(story, size):
    """After any commits, with whole snapshots or chunks over several commits, and crashes: a load that begins where the
    last commit says returns the newest complete snapshot, its data and every boundary since.
    """
    log, whole, journal = Log(), [], []
    chunk: SnapshotChunk | None = None  # the last one of a snapshot that is under way
    for number, ((after, step_boundaries), (_, action)) in enumerate(
        zip(steps([count for count, _ in story]), story, strict=True)
    ):
        data = (b"%d " % number) * size
        if action == "compact":
            log.compact()
        elif action in {"restart", "die"}:
            if action == "die":
                log.commit(Commit(0, after, step_boundaries=step_boundaries, snapshot=data), dies=True)
            log.restart()
            chunk = None
        commit = Commit(0, after, step_boundaries=step_boundaries)
        if action == "whole":
            commit, chunk = replace(commit, snapshot=data), None
        elif action in {"part", "give up"}:
            chunk = part_after(chunk if action == "part" else None, after, data, CHUNK)
            commit = replace(commit, chunk=chunk)
        if commit.completed_snapshot_offsets is not None:
            whole.append((commit.completed_snapshot_offsets, chunk.data if chunk else data))
            chunk = None
        journal += [mark for mark in step_boundaries if mark not in journal]
        log.commit(commit)
        check(log, whole, journal)


def check(log: Log, whole: list[tuple[InputOffsets, bytes]], journal: list[InputOffsets]) -> None:
    """Check that the writer, a load from the recorded offset, and a load of everything agree."""
    floor = whole[-2][0] if len(whole) > 1 else None
    for state in (log.state, log.read(log.start), log.read(0)):
        assert [snapshot.positions for snapshot in state.kept[-2:]] == [positions for positions, _ in whole[-2:]]
        restored = [boundary for boundary in state.journal(None) if floor is None or boundary > floor]
        assert restored == [boundary for boundary in journal if floor is None or boundary > floor]
    loaded = log.read(log.start).newest_whole(log.positions)
    assert (loaded and (loaded.positions, loaded.data)) == (whole[-1] if whole else None)
    assert log.read(log.start).kept == log.read(0, history=True).kept


@pytest.mark.parametrize("dies", [False, True])
def test_chunks_of_an_abandoned_snapshot_are_removed(dies):
    """A snapshot that was begun in chunks and abandoned for a smaller one, or by a writer that is gone, leaves nothing
    behind.
    """
    log, large = Log(), bytes(range(95))
    log.commit(
        Commit(
            0,
            InputOffsets(1, 0),
            step_boundaries=(InputOffsets(),),
            chunk=SnapshotChunk(InputOffsets(1, 0), large, 0, 40),
        )
    )
    log.commit(Commit(0, InputOffsets(2, 0), chunk=SnapshotChunk(InputOffsets(1, 0), large, 40, 80)))
    if dies:
        log.restart()
    log.commit(Commit(0, InputOffsets(3, 0), snapshot=b"small"))
    log.compact()
    alive = [key for key, value in log.records if value is not None and key and b"snapshot" in key]
    assert [key.split(b"/", 1)[1] for key in alive] == [b"snapshot/1/0", b"snapshot/1/manifest"]


def test_a_manifest_keeps_the_json_keys_of_earlier_versions():
    """A manifest that 0.1.0 wrote is read with its lineage, and what is written bears the same keys."""
    earlier = {"events": 7, "labels": 2, "chunks": 1, "sha256": "00", "partitions": 6, "line": 3, "origin": "restored"}
    manifest = read_manifest(json.dumps({**earlier, "saved_ms": 5, "older": [[2, 6, 1, 0, "", 4, 10, 1]]}).encode())
    assert manifest is not None
    assert (manifest.lineage, manifest.lineage_reason) == (3, "restored")
    assert [(older.number, older.lineage) for older in manifest.older] == [(2, 0)]
    assert json.loads(msgspec.json.encode(manifest)).items() >= earlier.items()
