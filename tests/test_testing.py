"""Promises of the public test helpers: deterministic, true to the contracts, and as documented."""

from __future__ import annotations

import doctest
import threading

import numpy as np
import pytest

from stream_ad import testing
from stream_ad.brokers.worker_api import Commit, InputOffsets, InputTopic
from stream_ad.errors import BrokerError, FencedError, ShardBusyError
from stream_ad.evaluation.simulation.annotator import AnnotatorConfig
from stream_ad.records.columns import OutRecord
from stream_ad.settings import Settings
from stream_ad.testing import ManualClock, MemoryBroker, plant_stream

SETTINGS = Settings.model_validate({"topics": {"partitions": 1}})
SCORES = SETTINGS.topics.scores


def record(text, time_ms=0):
    return OutRecord(b"pump-1", text.encode(), time_ms)


def test_documented_examples():
    """Every example in the module's documentation does what it says."""
    results = doctest.testmod(testing)
    assert results.attempted >= 8
    assert results.failed == 0


def test_stream_is_seeded():
    """Equal arguments give equal streams, another seed gives another stream."""
    first, second, other = plant_stream(steps=200), plant_stream(steps=200), plant_stream(steps=200, seed=1)
    np.testing.assert_array_equal(first.events.blocks[0].values, second.events.blocks[0].values)
    assert first.labels.event_ids == second.labels.event_ids
    assert not np.array_equal(first.events.blocks[0].values, other.events.blocks[0].values)


def test_old_name_of_the_annotator():
    """The keyword of 0.1.0 does what the new one does, with a warning that names the new one."""
    annotator = AnnotatorConfig(delay_s=60.0)
    with pytest.warns(DeprecationWarning, match="is now annotator"):
        old = plant_stream(steps=200, verdicts=annotator)
    assert old.labels.event_ids == plant_stream(steps=200, annotator=annotator).labels.event_ids
    assert old.labels.event_ids != plant_stream(steps=200).labels.event_ids


def test_stream_knows_the_truth():
    """A feature is broken exactly where there is a fault, and labels on faults name it."""
    stream = plant_stream(machines=4, steps=2000)
    faulty = np.array([fault is not None for fault in stream.faults])
    assert 0 < faulty.mean() < 1
    np.testing.assert_array_equal(stream.broken.any(axis=1), faulty)
    row = {event_id: index for index, event_id in enumerate(stream.events.event_ids)}
    labelled = [
        (name, stream.faults[row[event_id]])
        for name, event_id in zip(stream.labels.names, stream.labels.event_ids, strict=True)
    ]
    assert all(name == (truth or "normal") for name, truth in labelled)
    assert {name for name, _ in labelled} >= {"normal", "leak"}


def test_stream_feeds_a_broker():
    """Events and labels of a stream arrive in the topics, in its order."""
    memory, stream = MemoryBroker(), plant_stream(machines=2, steps=300)
    stream.send(memory.producer(SETTINGS))
    assert [r.time_ms for r in memory.records(SETTINGS.topics.events)] == stream.events.record_times_ms.tolist()
    assert len(memory.records(SETTINGS.topics.labels)) == len(stream.labels)


def test_clock_never_goes_back():
    """A manual clock advances when told to, and refuses to go back."""
    clock = ManualClock()
    clock.advance(1.5)
    assert clock() == 1.5
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(-1)


def test_waiting_takes_no_time():
    """With a manual clock an empty poll lets exactly its timeout pass, and a poll that returns records none."""
    clock = ManualClock()
    memory = MemoryBroker(clock=clock)
    worker = memory.worker(SETTINGS)
    worker.seek(0, worker.load(0).positions)
    worker.poll(timeout_s=2.5, max_records=10)  # returns at once: it reports that there is nothing to read
    worker.poll(timeout_s=2.5, max_records=10)
    assert clock() == 2.5
    memory.producer(SETTINGS).send(InputTopic.EVENTS, [record("one")])
    assert len(worker.poll(timeout_s=2.5, max_records=10)[0][InputTopic.EVENTS].records) == 1
    assert clock() == 2.5


def test_waiting_ends_when_something_comes():
    """Without a manual clock a poll waits for records of another thread."""
    memory = MemoryBroker()
    worker = memory.worker(SETTINGS)
    worker.seek(0, worker.load(0).positions)
    worker.poll(timeout_s=0, max_records=10)
    producing = threading.Timer(0.05, memory.producer(SETTINGS).send, (InputTopic.EVENTS, [record("one")]))
    producing.start()
    assert len(worker.poll(timeout_s=60.0, max_records=10)[0][InputTopic.EVENTS].records) == 1
    producing.join()


def test_failure_before_a_commit():
    """After fail("commit_before") nothing of the commit is written, and the next commit succeeds."""
    memory = MemoryBroker()
    worker = memory.worker(SETTINGS)
    worker.load(0)
    memory.fail("commit_before")
    with pytest.raises(BrokerError, match="commit_before"):
        worker.commit(Commit(0, InputOffsets(1, 0), scores=[record("s")]))
    assert memory.records(SCORES) == []
    worker.commit(Commit(0, InputOffsets(1, 0), scores=[record("s")]))
    assert memory.records(SCORES) == [record("s")]


def test_failure_after_a_commit():
    """After fail("commit_after") the whole commit is written, and only its answer is lost."""
    memory = MemoryBroker()
    worker = memory.worker(SETTINGS)
    worker.load(0)
    memory.fail("commit_after", at=2, error=TimeoutError("lost"))
    worker.commit(Commit(0, InputOffsets(1, 0)))
    with pytest.raises(TimeoutError, match="lost"):
        worker.commit(Commit(0, InputOffsets(2, 0), scores=[record("s")]))
    assert memory.records(SCORES) == [record("s")]
    assert worker.load(0).positions == InputOffsets(2, 0)


def test_a_later_worker_takes_over():
    """Only one worker runs at a time; once the first counts as dead, a second takes over and the first is fenced."""
    memory = MemoryBroker()
    first = memory.worker(SETTINGS)
    first.load(0)
    with pytest.raises(ShardBusyError):
        memory.worker(SETTINGS)
    memory.abandon_workers()
    second = memory.worker(SETTINGS)
    second.load(0)
    with pytest.raises(FencedError):
        first.commit(Commit(0, InputOffsets(1, 0), scores=[record("s")]))
    assert first.assigned() == frozenset()
    assert memory.records(SCORES) == []
    second.commit(Commit(0, InputOffsets(1, 0)))


def test_damaged_snapshot():
    """With the newest snapshot lost, the previous one and the step boundaries since are returned."""
    memory = MemoryBroker()
    worker = memory.worker(SETTINGS)
    worker.load(0)
    worker.commit(
        Commit(0, InputOffsets(1, 1), step_boundaries=(InputOffsets(0, 0), InputOffsets(1, 1)), snapshot=b"old")
    )
    worker.commit(Commit(0, InputOffsets(2, 2), step_boundaries=(InputOffsets(2, 2),), snapshot=b"new"))
    assert worker.load(0).journal == ()
    memory.damage_snapshot(SETTINGS.application_id, 0)
    stored = worker.load(0)
    assert stored.snapshot is not None
    assert (stored.snapshot.data, stored.snapshot.positions) == (b"old", InputOffsets(1, 1))
    assert stored.journal == (InputOffsets(2, 2),)
