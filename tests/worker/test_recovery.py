"""A worker that was killed, fenced, failed or stopped at any point cannot be told from one that never was."""

from __future__ import annotations

import itertools
import json
import math
from contextlib import closing, suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream_ad.brokers.memory.broker import MemoryBroker
from stream_ad.brokers.partitioner import partition_for
from stream_ad.brokers.worker_api import SNAPSHOT_CHUNK_BYTES, InputOffsets, InputTopic
from stream_ad.codec.encoders import encode_event, encode_label
from stream_ad.errors import BrokerError, FencedError
from stream_ad.records.columns import OutRecord
from stream_ad.settings import HttpSettings, Settings, TopicSettings, WorkerSettings
from stream_ad.testing import ManualClock
from stream_ad.worker import shard_task, snapshot_scheduler
from stream_ad.worker.worker import Worker
from tests.support.order_shard import OrderShard, expected_scores
from tests.support.stop_flags import Killed, Never


class Every(Never):
    """Advances the clock with each check, and stops a worker at a given time."""

    def __init__(self, clock, seconds, until):
        super().__init__(clock)
        self.seconds, self.until = seconds, until

    def is_set(self):
        self.clock.advance(self.seconds)
        return self.clock() > self.until


class AfterChecks(Never):
    """Stops a worker in the middle of its work."""

    def __init__(self, clock, checks):
        super().__init__(clock)
        self.left = checks

    def is_set(self):
        self.left -= 1
        return self.left < 0


@pytest.fixture(autouse=True)
def _order_shard(monkeypatch):
    monkeypatch.setattr(shard_task, "Shard", OrderShard)


def make_settings(partitions=1, **worker):
    values = {"poll_records": 7, "step_records": 4, "inbox_records": 9, "snapshot_interval_seconds": 2.0}
    return Settings(
        topics=TopicSettings(partitions=partitions),
        http=HttpSettings(enabled=False),
        worker=WorkerSettings(**(values | worker)),
    )


class Plant:
    """A broker in memory, a manual clock, and workers that come and go."""

    def __init__(self, chunk_bytes=SNAPSHOT_CHUNK_BYTES, **changes):
        self.settings = make_settings(**changes)
        self.clock = ManualClock()
        self.broker = MemoryBroker(clock=self.clock, chunk_bytes=chunk_bytes)
        self.producer = self.broker.producer(self.settings)
        self.sent = {InputTopic.EVENTS: 0, InputTopic.LABELS: 0}
        self.bad = 0

    def send(self, side, times_ms, *, sensor="s"):
        for time_ms in times_ms:
            self.sent[side] += 1
            if side is InputTopic.EVENTS:
                record = encode_event(sensor, self.sent[side], {"x": 1.0}, record_time_ms=10**6 + time_ms)
            else:
                record = encode_label(sensor, "normal", event_id="e", record_time_ms=10**6 + time_ms)
            self.producer.send(side, [record])

    def spoil(self, side):
        """Send a record that cannot be decoded."""
        self.sent[side] += 1
        self.bad += 1
        self.producer.send(side, [OutRecord(b"s", b"{", 10**6)])

    def run(self, *, stop=None):
        Worker(self.settings, self.broker.worker(self.settings), clock=self.clock, stop=stop or Never(self.clock)).run(
            3.0
        )

    def published(self):
        values = [json.loads(record.value) for record in self.broker.records(self.settings.topics.scores)]
        return [(value["event_id"], value["score"]) for value in values]

    def stored(self, shard=0):
        with closing(self.broker.worker(self.settings)) as worker:
            return worker.load(shard)

    def final_order(self):
        stored = self.stored()
        assert stored.snapshot is not None
        assert stored.snapshot.positions == stored.positions
        return OrderShard.restore(stored.snapshot.data, None).order

    def check(self):
        """Every event was scored once, and all scores follow from the one order of records that the state has seen."""
        order = self.final_order()
        assert self.published() == expected_scores(self.settings.topics.events, 0, order)
        assert len(order) == sum(self.sent.values()) - self.bad
        assert len(self.broker.records(self.settings.topics.dead_letters)) == self.bad


TIMES = st.lists(st.integers(0, 30), min_size=1, max_size=12)
SEND = st.tuples(st.just("send"), st.sampled_from(list(InputTopic)), TIMES)
SPOIL = st.tuples(st.just("spoil"), st.sampled_from(list(InputTopic)))
POINTS = st.sampled_from(["poll", "load", "commit_before", "commit_after"])
FAIL = st.tuples(st.just("fail"), POINTS.filter(lambda point: point != "poll"), st.integers(1, 8))
KILL = st.tuples(st.just("kill"), POINTS, st.integers(1, 8))
STOP = st.tuples(st.just("stop"), st.integers(0, 20))
RUN = st.tuples(st.just("run"))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(SEND, SEND, SPOIL, RUN, FAIL, KILL, STOP), max_size=25),
    st.sampled_from([SNAPSHOT_CHUNK_BYTES, 40, 7]),
    st.sampled_from([0.0, 0.4]),
)
@example(
    [
        ("send", InputTopic.EVENTS, [20, 21, 22, 23]),
        ("kill", "commit_before", 2),  # the events are committed, unmarked; then older labels come
        ("send", InputTopic.LABELS, [1, 2]),
        ("send", InputTopic.EVENTS, [24]),
        ("run",),
        ("kill", "load", 1),
    ],
    SNAPSHOT_CHUNK_BYTES,
    0.0,
)
def test_whatever_happens_all_scores_follow_from_one_order(story, chunk_bytes, pass_s):
    """Through kills, failed commits, stops and late records in any order, with snapshots whole or in chunks, between
    steps or when idle, every event is scored exactly once, and all scores follow from a single order of the records,
    replays included.
    """
    plant = Plant(chunk_bytes)
    for action, *details in story:
        if action == "send":
            plant.send(*details)
        elif action == "spoil":
            plant.spoil(*details)
        else:
            if action in {"fail", "kill"}:
                point, at = details
                plant.broker.fail(point, at=at, error=Killed() if action == "kill" else None)
            with suppress(Killed):
                whole = Every(plant.clock, pass_s, math.inf)
                plant.run(stop=AfterChecks(plant.clock, *details) if action == "stop" else whole)
    plant.broker._store.failures.clear()
    plant.send(InputTopic.EVENTS, [31])  # so that there is a last step
    plant.run()
    plant.check()


def test_killed_after_every_commit_in_turn():
    """A worker killed right after its first, second, third... commit loses and repeats nothing."""
    plant = Plant(snapshot_interval_seconds=1000.0)
    for block in range(8):
        plant.send(InputTopic.EVENTS, [30 - block, 40, 35 - block])
        plant.send(InputTopic.LABELS, [32 - block, 33])
        plant.broker.fail("commit_after", error=Killed())
        with pytest.raises(Killed):
            plant.run()
    plant.run()
    plant.check()


def test_a_fenced_worker_leaves_the_shard_alone():
    """Once another worker has taken the shard over, the old one writes nothing more and discards it."""
    plant = Plant()
    plant.send(InputTopic.EVENTS, range(12))
    plant.broker.fail("commit_before", at=2, error=FencedError("taken over"))
    plant.run()
    plant.check()


def test_a_failing_shard_does_not_stop_the_others():
    """While shard 0 cannot be loaded, shard 1 scores all its events."""
    plant = Plant(partitions=2)
    sensors = {}
    for number in range(50):
        sensors.setdefault(partition_for(f"s{number}".encode(), 2), f"s{number}")
    for shard in (0, 1):
        plant.send(InputTopic.EVENTS, range(10), sensor=sensors[shard])
    seen = []
    worker = plant.broker.worker(plant.settings)
    load = worker.load

    def failing_load(shard, **options):
        if shard == 0 and len(plant.published()) < 10:
            seen.append(len(plant.published()))
            raise BrokerError("not now")
        return load(shard, **options)

    worker.load = failing_load
    Worker(plant.settings, worker, clock=plant.clock, stop=Never(plant.clock)).run(3.0)
    assert seen
    assert len(plant.published()) == 20


def test_a_broker_that_stays_away_ends_the_worker_with_its_error():
    """After broker.give_up_seconds of failures the worker gives up, and says for how long and why."""
    plant = Plant()
    worker = plant.broker.worker(plant.settings)
    times = []

    def failing_load(_shard, **_):
        times.append(plant.clock())
        raise BrokerError("no leader", hint="Start the broker.")

    worker.load = failing_load
    with pytest.raises(BrokerError, match=r"Shard 0 has failed for 12\d s: no leader Start the broker\."):
        Worker(plant.settings, worker, clock=plant.clock, stop=Never(plant.clock)).run()
    waits = [after - before for before, after in itertools.pairwise(times)]
    assert waits[0] < 2 < waits[-1] <= 6  # growing, and bounded


def test_a_standby_stays_alive():
    """A worker without a shard, such as a spare one, is reported as live for as long as its loop runs."""
    settings, clock = make_settings(), ManualClock()
    said = set()

    class Spare:
        chunk_bytes = SNAPSHOT_CHUNK_BYTES

        def assigned(self):
            return frozenset()

        def poll(self, **_):
            said.add(worker.health.live())
            return {}

        def lag(self):
            return {}

        def close(self): ...

    worker = Worker(settings, Spare(), clock=clock, stop=Every(clock, 1.0, 1000.0))
    worker.run()
    assert clock() > settings.broker.give_up_seconds + 100
    assert said == {(True, "ok")}
    assert worker.health.live() == (True, "ok")


def test_the_journal_is_bounded(monkeypatch):
    """However long the snapshot interval, a snapshot is due once the journal has grown to its limit."""
    monkeypatch.setattr(snapshot_scheduler, "MAX_BOUNDARIES", 10)
    plant = Plant(snapshot_interval_seconds=1e6)
    for _ in range(40):
        plant.send(InputTopic.EVENTS, [1])
        plant.send(InputTopic.LABELS, [1])
        plant.broker.fail("commit_before", at=2, error=Killed())  # the one at the drain
        with suppress(Killed):
            plant.run()
        assert len(plant.stored().journal) <= 12
    plant.broker._store.failures.clear()
    plant.run()
    plant.check()


def test_a_step_larger_than_the_inbox_is_still_replayed():
    """A step that was taken with a large inbox can be replayed with a smaller one."""
    plant = Plant(step_records=100, inbox_records=200, poll_records=200, snapshot_interval_seconds=1e6)
    plant.send(InputTopic.EVENTS, range(60))
    plant.send(InputTopic.LABELS, range(40))
    plant.broker.fail("commit_after", error=Killed())
    with pytest.raises(Killed):
        plant.run()
    plant.settings = make_settings()
    plant.send(InputTopic.EVENTS, [99])
    plant.run()
    plant.check()


def test_while_one_shard_recovers_the_others_continue():
    """A shard with much to replay takes turns with the others, which score and commit meanwhile."""
    plant = Plant(partitions=2, snapshot_interval_seconds=1e6, poll_records=500, inbox_records=1_000)
    sensors = {partition_for(f"s{number}".encode(), 2): f"s{number}" for number in range(50)}
    plant.send(InputTopic.EVENTS, range(400), sensor=sensors[0])
    plant.broker.fail("commit_after", at=80, error=Killed())
    with pytest.raises(Killed):
        plant.run()
    plant.send(InputTopic.EVENTS, range(40), sensor=sensors[1])
    worker, committed = plant.broker.worker(plant.settings), []
    commit = worker.commit

    def recorded(new):
        committed.append(new.shard)
        commit(new)

    worker.commit = recorded
    Worker(plant.settings, worker, clock=plant.clock, stop=Never(plant.clock)).run(3.0)
    assert committed[:10] == [1] * 10
    assert len(plant.published()) == 440


def test_snapshots_take_a_small_share_of_the_time(monkeypatch):
    """A snapshot that takes long to build and write is built less often than the interval says."""
    plant = Plant(snapshot_interval_seconds=10.0)
    snapshot, made = OrderShard.snapshot, []

    def slow(self):
        made.append(plant.clock())
        plant.clock.advance(5)
        return snapshot(self)

    monkeypatch.setattr(OrderShard, "snapshot", slow)
    for number in range(400):
        plant.send(InputTopic.EVENTS, [number])
    plant.run(stop=Every(plant.clock, seconds=1, until=450.0))
    assert len(made) > 3
    assert all(after - before >= 5 / 0.04 for before, after in itertools.pairwise(made[:-1]))


def watched_worker(plant):
    """A worker's broker, and the commits that it has written."""
    worker, commits = plant.broker.worker(plant.settings), []
    commit = worker.commit

    def recorded(new):
        commit(new)
        commits.append(new)

    worker.commit = recorded
    return worker, commits


def test_a_large_snapshot_delays_no_scores():
    """Each commit of the next steps takes a chunk along with its scores; with the last one the snapshot is complete, at
    the offsets of the first.
    """
    plant = Plant(chunk_bytes=100, step_records=4, poll_records=1_000, inbox_records=1_000)
    plant.send(InputTopic.EVENTS, range(60))
    worker, written = watched_worker(plant)
    Worker(plant.settings, worker, clock=plant.clock, stop=Every(plant.clock, 0.4, math.inf)).run(3.0)
    commits = [
        (len(commit.scores), None if commit.chunk is None else commit.chunk.start, commit.completed_snapshot_offsets)
        for commit in written
    ]
    begun = next(number for number, (_, start, _) in enumerate(commits) if start == 0)
    closed = next(number for number, (_, _, saved) in enumerate(commits) if number >= begun and saved is not None)
    parts = commits[begun : closed + 1]
    assert len(parts) > 1
    assert [start for _, start, _ in parts] == list(range(0, 100 * len(parts), 100))
    assert {scores for scores, _, _ in parts} == {4}
    first = InputOffsets(4 * (begun + 1), 0)
    assert [saved for _, _, saved in parts] == [None] * (len(parts) - 1) + [first]
    plant.check()


def test_a_large_snapshot_is_written_when_idle():
    """Where no record comes, chunks are committed one after the other, and a record waits for one of them at most."""
    plant = Plant(chunk_bytes=50, step_records=50, poll_records=1_000, inbox_records=1_000)
    plant.send(InputTopic.EVENTS, range(50))
    plant.clock.advance(10)
    worker, commits = watched_worker(plant)
    polls, reads = [], worker.poll
    worker.poll = lambda **options: (polls.append((len(commits), options["timeout_s"])), reads(**options))[1]
    Worker(plant.settings, worker, clock=plant.clock, stop=Never(plant.clock)).run(3.0)
    parts = [number for number, commit in enumerate(commits) if commit.chunk is not None]
    assert len(parts) > 3
    assert all(commits[number].completed_snapshot_offsets is None for number in parts[:-1])
    assert commits[parts[-1]].completed_snapshot_offsets == InputOffsets(50, 0)
    for number in parts[:-1]:
        assert [timeout for after, timeout in polls if after == number + 1] == [0.0]
    plant.check()


def test_a_long_recovery_is_saved_soon(monkeypatch):
    """After a long replay a snapshot is due within seconds, so that a worker that keeps dying makes progress."""
    plant = Plant(snapshot_interval_seconds=1e6)
    plant.send(InputTopic.EVENTS, range(40))
    plant.broker.fail("commit_after", at=8, error=Killed())
    with pytest.raises(Killed):
        plant.run()
    step = OrderShard.step

    def slow(self, *records):
        plant.clock.advance(2)
        return step(self, *records)

    monkeypatch.setattr(OrderShard, "step", slow)
    plant.broker.fail("commit_after", at=2, error=Killed())
    with pytest.raises(Killed):
        plant.run()
    stored = plant.stored()
    assert stored.snapshot is not None
    assert stored.snapshot.positions == stored.positions
    plant.run()
    plant.check()


class DelayedCommits:
    """A worker's broker that writes a commit only when it is waited for; some fail then, written or not."""

    def __init__(self, broker, trace, failing):
        self._broker, self._trace, self._failing = broker, trace, failing

    def __getattr__(self, name):
        return getattr(self._broker, name)

    def poll(self, **arguments):
        assert "begun" not in self._trace[-1:]
        return self._broker.poll(**arguments)

    def begin(self, commit):
        self._trace.append("begun")

        class CommitHandle:
            def wait(handle):  # noqa: N805
                fails, self._failing = self._failing & 3, self._failing >> 2
                self._trace.append("completed")
                if fails != 1:
                    self._broker.commit(commit)
                if fails:
                    raise BrokerError("no answer")
                return 0.0

        return CommitHandle()


@settings(max_examples=40, deadline=None)
@given(failing=st.integers(0, 4**12), times=st.lists(st.integers(0, 30), min_size=8, max_size=40))
def test_steps_computed_while_a_commit_failed_are_discarded(failing, times):
    """A commit that fails, written or not, while the next step is computed, loses and doubles nothing."""
    plant, trace = Plant(poll_records=40, inbox_records=40), []
    plant.send(InputTopic.EVENTS, times)
    plant.send(InputTopic.LABELS, times[::3])
    broker = DelayedCommits(plant.broker.worker(plant.settings), trace, failing)
    Worker(plant.settings, broker, clock=plant.clock, stop=Never(plant.clock)).run(3.0)
    plant.check()


def test_a_step_is_computed_while_the_previous_one_is_written(monkeypatch):
    """The next step is computed before the commit of the previous one completes, and all complete before the poll."""
    plant, trace = Plant(poll_records=40, inbox_records=40), []
    step = OrderShard.step
    monkeypatch.setattr(OrderShard, "step", lambda *arguments: (trace.append("step"), step(*arguments))[1])
    plant.send(InputTopic.EVENTS, range(8))
    broker = DelayedCommits(plant.broker.worker(plant.settings), trace, 0)
    Worker(plant.settings, broker, clock=plant.clock, stop=Never(plant.clock)).run(3.0)
    assert trace[:6] == ["step", "begun", "step", "completed", "begun", "completed"]
    plant.check()


def test_every_commit_is_complete_before_the_next_poll():
    """A rebalance never meets an incomplete commit, even if a worker is stopped or has no time for another step."""
    for stop in (lambda clock: Every(clock, 0.8, clock() + 60), lambda clock: AfterChecks(clock, 7)):
        plant, trace = Plant(poll_records=40, inbox_records=40), []
        plant.send(InputTopic.EVENTS, range(30))
        broker = DelayedCommits(plant.broker.worker(plant.settings), trace, 0)
        Worker(plant.settings, broker, clock=plant.clock, stop=stop(plant.clock)).run(3.0)
        assert trace[-1] == "completed"
        assert trace.count("completed") == trace.count("begun") > 1
        plant.run()
        plant.check()
