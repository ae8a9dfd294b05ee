"""How a worker continues where its state is damaged or does not fit, or where its records are gone."""

from __future__ import annotations

import json
from contextlib import closing, suppress

import pytest
from structlog.testing import capture_logs

from stream_ad.brokers.memory.broker import MemoryBroker
from stream_ad.brokers.worker_api import InputOffsets, InputTopic
from stream_ad.codec.encoders import encode_event, encode_label
from stream_ad.errors import DamagedStateError, LostRecordsError, ScarceMemoryError, StateError, UnfitStateError
from stream_ad.settings import HttpSettings, Settings, TopicSettings, WorkerSettings
from stream_ad.testing import ManualClock
from stream_ad.worker import shard_task
from stream_ad.worker.worker import Worker
from tests.support.order_shard import OrderShard
from tests.support.stop_flags import Killed, Never


class PickyShard(OrderShard):
    """A shard that a test can let refuse snapshots."""

    refuse = staticmethod(lambda _: None)

    @classmethod
    def restore(cls, data, options, **settings):
        cls.refuse(data)
        return super().restore(data, options, **settings)


class Plant:
    """A shard on a broker in memory; every record is one millisecond later than the previous one."""

    def __init__(self, **broker):
        self.settings = Settings(
            broker=broker,
            topics=TopicSettings(partitions=1),
            http=HttpSettings(enabled=False),
            worker=WorkerSettings(step_records=4, poll_records=7, snapshot_interval_seconds=1e9),
        )
        self.clock = ManualClock()
        self.broker = MemoryBroker(clock=self.clock)
        self.now = 10**6

    def send(self, events, labels=0):
        producer = self.broker.producer(self.settings)
        for number in range(max(events, labels)):
            self.now += 1
            if number < events:
                producer.send(InputTopic.EVENTS, [encode_event("s", self.now, {"x": 1.0}, record_time_ms=self.now)])
            if number < labels:
                label = encode_label("s", "normal", event_id="e", record_time_ms=self.now)
                producer.send(InputTopic.LABELS, [label])

    def run(self):
        worker = Worker(self.settings, self.broker.worker(self.settings), clock=self.clock, stop=Never(self.clock))
        worker.run(3.0)
        return worker

    def fill(self):
        """Twenty events and ten labels, with a snapshot in the middle and others after them."""
        for events, labels in ((8, 4), (8, 4), (4, 2)):
            self.send(events, labels)
            self.run()

    def order(self):
        """The records in the order in which the state has seen them, and the committed offsets."""
        with closing(self.broker.worker(self.settings)) as worker:
            stored = worker.load(0)
        assert stored.snapshot is not None
        return json.loads(stored.snapshot.data)[1], stored.positions

    def kept(self):
        return self.broker.snapshots(self.settings).kept(0)

    def scored(self):
        return [json.loads(record.value)["event_id"] for record in self.broker.records(self.settings.topics.scores)]


@pytest.fixture(autouse=True)
def shard_class(monkeypatch):
    monkeypatch.setattr(shard_task, "Shard", PickyShard)
    monkeypatch.setattr(PickyShard, "refuse", staticmethod(lambda _: None))
    return PickyShard


def exposed(worker, line):
    return line.encode() in worker.metrics.exposition()[0]


def said(lines):
    """The errors in a log."""
    return " ".join(line["event"] for line in lines if line["log_level"] == "error")


def refuse(monkeypatch, error, which=lambda _: True):
    def check(data):
        if which(data):
            raise error

    monkeypatch.setattr(PickyShard, "refuse", staticmethod(check))


def test_a_snapshot_that_cannot_be_used_is_skipped_for_the_previous_one(monkeypatch):
    """A damaged snapshot is logged as an error, and the previous one leads to exactly the same state."""
    plant = Plant()
    plant.fill()
    whole, positions = plant.order()
    newest = plant.broker.snapshots(plant.settings).read(0, plant.kept()[0].number)
    refuse(monkeypatch, DamagedStateError("nonsense"), lambda data: data == newest)
    with capture_logs() as lines:
        worker = plant.run()
    assert exposed(worker, 'restores_total{source="older_snapshot"} 1.0')
    assert "a snapshot cannot be used" in said(lines)
    plant.send(1)
    plant.run()
    order, _ = plant.order()
    assert order[:-1] == whole
    assert plant.scored() == [f"sensor-events-0-{n}" for n in range(positions.events + 1)]


def test_too_little_memory_for_a_moment_is_waited_out(monkeypatch):
    """A load that runs out of memory is retried with the newest snapshot, and nothing is lost."""
    plant = Plant()
    plant.fill()
    plant.send(8, 4)
    tried = []

    def check(data):
        tried.append(data)
        if len(tried) < 4:
            raise MemoryError

    monkeypatch.setattr(PickyShard, "refuse", staticmethod(check))
    with capture_logs() as lines:
        worker = plant.run()
    assert len(set(tried)) == 1
    assert exposed(worker, 'stream_ad_restores_total{source="snapshot"} 1.0')
    assert len(plant.scored()) == 28
    assert said(lines) == ""
    waits = [line for line in lines if line["event"] == "shard failed; it is loaded again"]
    assert len(waits) == 3
    assert "Too little memory for shard 0" in waits[0]["error"]


@pytest.mark.parametrize(
    ("error", "ends_with", "match"),
    [
        (MemoryError("no room"), ScarceMemoryError, r"has failed for 12\d s: Too little memory .*more memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), ScarceMemoryError, "Too little memory"),
        (TypeError("a defect"), TypeError, "a defect"),
        (AssertionError("a defect"), AssertionError, "a defect"),
        (ValueError("a defect"), ValueError, "a defect"),
    ],
)
def test_an_error_that_is_no_damage_discards_no_model(monkeypatch, error, ends_with, match):
    """Lasting lack of memory, or a defect of the program, ends the worker with an error and keeps all snapshots."""
    plant = Plant()
    plant.fill()
    plant.send(8, 4)
    before = plant.kept(), plant.order(), plant.scored()
    refuse(monkeypatch, error)
    with pytest.raises(ends_with, match=match):
        plant.run()
    refuse(monkeypatch, error, which=lambda _: False)
    assert (plant.kept(), plant.order(), plant.scored()) == before


def test_without_any_usable_snapshot_the_topics_are_read_again(monkeypatch):
    """When no snapshot can be used, the state is rebuilt from the beginning of the topics, merged by record time,
    nothing is published twice, and from the first commit on it is exact again.
    """
    plant = Plant()
    plant.fill()
    expected, _ = plant.order()
    refuse(monkeypatch, DamagedStateError("nonsense"))
    plant.send(3)
    worker = plant.run()
    assert exposed(worker, 'restores_total{source="beginning"} 1.0')
    monkeypatch.undo()
    monkeypatch.setattr(shard_task, "Shard", PickyShard)
    order, _ = plant.order()
    assert order == [*expected, *(["event", n] for n in (20, 21, 22))]
    assert plant.scored() == [f"sensor-events-0-{n}" for n in range(23)]
    assert plant.kept()[0].lineage > 0


def test_a_rebuilt_state_is_saved_with_the_first_commit():
    """A worker that is killed before the first commit after a rebuild rebuilds again; killed after it, it does not."""
    plant = Plant()
    plant.fill()
    for _ in plant.kept():
        plant.broker.damage_snapshot(plant.settings.application_id, 0)
    for point, source in (("commit_before", "beginning"), ("commit_after", "beginning"), (None, "snapshot")):
        plant.send(1)
        if point:
            plant.broker.fail(point, error=Killed())
        worker = Worker(plant.settings, plant.broker.worker(plant.settings), clock=plant.clock, stop=Never(plant.clock))
        with suppress(Killed):
            worker.run(3.0)
        assert exposed(worker, f'restores_total{{source="{source}"}} 1.0')
    assert plant.scored() == [f"sensor-events-0-{n}" for n in range(23)]


def test_where_the_beginning_is_gone_a_worker_ends_and_names_the_command(monkeypatch):
    """No usable snapshot and truncated topics end in a StateError that names the command for a new model."""
    plant = Plant()
    plant.fill()
    plant.broker.delete_records("sensor-events", 0, before=5)
    refuse(monkeypatch, DamagedStateError("nonsense"))
    with pytest.raises(StateError, match="No snapshot of shard 0 can be used") as refused:
        plant.run()
    assert "stream-ad snapshots reset 0" in refused.value.hint


def test_settings_that_do_not_fit_start_a_new_model_and_keep_the_old_one(monkeypatch):
    """A new model starts at the committed offsets, once and with an error in the log; the old one is kept."""
    plant = Plant()
    plant.send(20, 10)
    plant.run()
    old = plant.kept()[0]
    data = plant.broker.snapshots(plant.settings).read(0, old.number)
    refuse(monkeypatch, UnfitStateError("another shape"), lambda snapshot: snapshot == data)
    plant.send(5)
    with capture_logs() as lines:
        worker = plant.run()
    assert exposed(worker, 'restores_total{source="new_model"} 1.0')
    assert "NEW MODEL" in said(lines)
    order, positions = plant.order()
    assert order == [["event", n] for n in range(20, 25)]
    assert positions == InputOffsets(25, 10)
    assert plant.scored() == [f"sensor-events-0-{n}" for n in range(25)]
    plant.send(50)
    assert exposed(plant.run(), 'restores_total{source="snapshot"} 1.0')
    assert old in plant.kept()
    assert [kept.lineage_reason for kept in plant.kept() if kept.lineage_reason] in (
        [],
        [f"new model: snapshot {old.number} did not fit the settings"],
    )


def test_a_new_model_that_has_committed_nothing_is_saved_too(monkeypatch):
    """Even where no record comes, a new model starts its lineage at once, so that there is one point to go back to."""
    plant = Plant()
    plant.send(8)
    plant.run()
    old = plant.kept()[0]
    refuse(monkeypatch, UnfitStateError("another shape"), lambda snapshot: json.loads(snapshot)[1])
    plant.broker.fail("poll", at=6, error=Killed())  # before it could save anything at its end
    with pytest.raises(Killed):
        plant.run()
    plant.broker.abandon_workers()
    newest = plant.kept()[0]
    assert (newest.lineage, newest.positions) == (newest.number, old.positions)


def test_a_foreign_format_is_refused(monkeypatch):
    """A snapshot of a format that the program does not know ends the worker; no other snapshot is tried."""
    plant = Plant()
    plant.send(8)
    plant.run()
    kept = plant.kept()
    refuse(monkeypatch, StateError("format 9"))
    with pytest.raises(StateError, match="format 9"):
        plant.run()
    assert plant.kept() == kept


def test_lost_records_stop_a_worker():
    """By default, a worker that was down for longer than records are kept ends with an error that names the setting."""
    plant = Plant()
    plant.send(8)
    plant.run()
    plant.send(20)
    plant.broker.delete_records("sensor-events", 0, before=18)
    with pytest.raises(LostRecordsError, match=r"sensor-events\[0\] has no offset 8 any more") as lost:
        plant.run()
    assert "broker.on_lost_records=continue" in lost.value.hint
    assert lost.value.exit_code == 4


def test_lost_records_are_counted_and_skipped():
    """With broker.on_lost_records=continue a worker continues with the oldest records left and its model."""
    plant = Plant(on_lost_records="continue")
    plant.send(8, 3)
    plant.run()
    before, _ = plant.order()
    plant.send(20, 1)
    plant.broker.delete_records("sensor-events", 0, before=18)
    worker = plant.run()
    assert exposed(worker, 'lost_records_total{side="events"} 10.0')
    assert exposed(worker, 'lost_records_total{side="labels"} 0.0')
    order, positions = plant.order()
    assert positions == InputOffsets(28, 4)
    assert order[: len(before)] == before
    assert sorted(order[len(before) :]) == sorted([["label", 3], *(["event", n] for n in range(18, 28))])
    assert plant.scored() == [f"sensor-events-0-{n}" for n in (*range(8), *range(18, 28))]
    assert exposed(plant.run(), 'lost_records_total{side="events"} 0.0')


def test_records_lost_while_they_are_read():
    """A worker whose records are deleted while it reads continues with the oldest left and what it has learned."""
    plant = Plant(on_lost_records="continue")
    plant.send(8)
    broker = plant.broker.worker(plant.settings)
    poll, calls = broker.poll, []

    def poll_and_lose(**options):
        calls.append(1)
        if len(calls) == 6:
            plant.send(20)
            plant.broker.delete_records("sensor-events", 0, before=18)
        return poll(**options)

    broker.poll = poll_and_lose
    worker = Worker(plant.settings, broker, clock=plant.clock, stop=Never(plant.clock))
    worker.run(3.0)
    assert exposed(worker, 'lost_records_total{side="events"} 10.0')
    assert plant.scored() == [f"sensor-events-0-{n}" for n in (*range(8), *range(18, 28))]


def test_a_replay_whose_records_are_gone_is_skipped():
    """Records that were scored and are gone before a replay needs them do not count as lost: all are scored."""
    plant = Plant(on_lost_records="continue")
    plant.send(4)
    plant.run()
    plant.send(8, 4)
    plant.broker.fail("commit_after", at=3, error=Killed())
    with suppress(Killed):
        plant.run()
    plant.broker.delete_records("sensor-events", 0, before=6)
    worker = plant.run()
    assert exposed(worker, 'lost_records_total{side="events"} 0.0')
    assert plant.scored() == [f"sensor-events-0-{n}" for n in range(12)]


def test_a_recreated_topic_is_read_from_its_beginning():
    """A topic that ends before the committed offset was recreated: with "continue" it is read from its beginning."""
    plant = Plant(on_lost_records="continue")
    plant.send(20)
    plant.run()
    plant.broker._store.logs["sensor-events", 0].clear()
    plant.send(5)
    plant.run()
    order, positions = plant.order()
    assert positions == InputOffsets(5, 0)
    assert order[-5:] == [["event", n] for n in range(5)]
    plant.send(5)
    assert exposed(plant.run(), 'restores_total{source="snapshot"} 1.0')
    assert plant.order()[1] == InputOffsets(10, 0)
