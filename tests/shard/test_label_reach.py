"""Labels at the edge of memory, with the default capacity and batch."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load

from stream_ad.detector.config import DetectorOptions
from stream_ad.records.columns import Events, Labels, ValueBlock
from stream_ad.shard.shard import Shard
from tests.support.earlier import earlier_snapshot, next_of_earlier

OPTIONS = DetectorOptions.model_validate({"detector": {"device": "cpu"}})
REACH, BATCH = OPTIONS.learning.label_reach_events, OPTIONS.learning.batch_events
SENSORS = ("a", "b", "c")
BEFORE = 2 * (REACH + BATCH) * 2 + 11  # events that fill the memory of two sensors twice, and a few more
SECOND = 10**9
FOR_EVER = 10**18


class Records:
    """Events and labels in the order in which they were written, one per second."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.records: list[tuple[object, ...]] = []
        self.events = 0

    def event(self, sensor: str) -> None:
        self.records.append((sensor, f"e{self.events}", self.random.normal(size=2)))
        self.events += 1

    def label(self, sensor: str, name: str | None, event: int) -> None:
        self.records.append((sensor, name, f"e{event}", 0, 0))

    def interval(self, sensor: str, name: str | None, start: int, end: int) -> None:
        self.records.append((sensor, name, None, start, end))

    def step(self, shard: Shard, start: int, stop: int) -> tuple[np.ndarray, dict[str, int]]:
        """Step a shard with the records from start to stop; return scores and counts."""
        numbered = list(enumerate(self.records[start:stop], start))
        events = [(at, *record) for at, record in numbered if len(record) == 3]
        labels = [(at, *record) for at, record in numbered if len(record) == 5]
        event_at = np.array([event[0] for event in events], np.int64)
        label_at = np.array([label[0] for label in labels], np.int64)
        values = np.array([event[3] for event in events]).reshape(len(events), 2)
        result = shard.step(
            Events(
                event_at,
                event_at * 1000,
                event_at * SECOND,
                [event[1] for event in events],
                [event[2] for event in events],
                (ValueBlock(("x", "y"), np.arange(len(events)), values),),
            ),
            Labels(
                label_at,
                label_at * 1000,
                [label[1] for label in labels],
                [label[2] for label in labels],
                [label[3] for label in labels],
                np.array([label[4] for label in labels], np.int64),
                np.array([label[5] for label in labels], np.int64),
            ),
        )
        return result.scores.score, {**result.counts, **result.label_outcomes}


@cache
def long_running() -> bytes:
    """A snapshot of a shard whose two sensors have filled their memory."""
    records, shard = Records(), Shard(OPTIONS)
    for number in range(BEFORE):
        records.event(SENSORS[number % 2])
    records.step(shard, 0, BEFORE)
    return shard.snapshot()


@st.composite
def tails(draw: st.DrawFn) -> Records:  # noqa: C901 - one branch for each kind of label
    """Records that follow: bursts of events of two known sensors and a new one, with labels at the edge of their reach,
    bulk uploads, and intervals over everything, into the future and at the edge.
    """
    records = Records(draw(st.integers(0, 9)))
    records.records, records.events = [()] * BEFORE, BEFORE
    names = st.sampled_from(["normal", "leak", None])
    for _ in range(draw(st.integers(1, 6))):
        for _ in range(draw(st.integers(0, BATCH + 3))):
            records.event(draw(st.sampled_from(SENSORS)))
        sensor, name = draw(st.sampled_from(SENSORS)), draw(names)
        edge = records.events - 2 * (REACH + draw(st.integers(-BATCH - 2, BATCH + 2)))
        kind = draw(st.sampled_from(["event", "everything", "future", "edge", "bulk", "coming"]))
        if kind == "event":
            for event in range(edge, edge + 4):
                records.label(sensor, name, event)
        elif kind == "everything":
            records.interval(sensor, name, 0, FOR_EVER)
        elif kind == "future":
            records.interval(sensor, name, (BEFORE + draw(st.integers(0, 60))) * SECOND, FOR_EVER)
        elif kind == "edge":
            records.interval(sensor, name, 0, edge * SECOND)
        elif kind == "bulk":
            for event in range(records.events - 1, edge, -1):
                records.label(sensor, name, event)
        else:
            records.label(sensor, name, records.events + draw(st.integers(0, 50)))
    for _ in range(draw(st.integers(0, 4 * BATCH))):
        records.event(draw(st.sampled_from(SENSORS)))
    return records


FEW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@FEW
@given(tails(), st.data())
def test_two_cuts_of_the_same_records_agree(records, data):
    """Scores, counts and the final state are the same bit for bit, however the records are cut into steps."""
    outcomes = []
    for cuts in ([], data.draw(st.lists(st.integers(BEFORE, len(records.records)), max_size=12))):
        shard = Shard.restore(long_running(), OPTIONS)
        bounds = [BEFORE, *sorted(cuts), len(records.records)]
        steps = [records.step(shard, start, stop) for start, stop in pairwise(bounds)]
        counts: dict[str, int] = {}
        for _, step_counts in steps:
            counts = {name: counts.get(name, 0) + number for name, number in step_counts.items()}
        outcomes.append((np.concatenate([scores for scores, _ in steps]), counts, shard.snapshot()))
    (scores, counts, state), (other_scores, other_counts, other_state) = outcomes
    np.testing.assert_array_equal(scores, other_scores)
    assert counts == other_counts
    assert state == other_state


@FEW
@given(tails(), st.integers(1, 40))
def test_a_snapshot_at_any_point_is_accepted_and_complete(records, every):
    """Whatever labels came, a restored snapshot gives the same snapshot again and continues exactly like its shard."""
    shard = Shard.restore(long_running(), OPTIONS)
    for start in range(BEFORE, len(records.records), every):
        data = shard.snapshot()
        restored = Shard.restore(data, OPTIONS)
        assert restored.snapshot() == data
        stop = min(start + every, len(records.records))
        np.testing.assert_array_equal(records.step(restored, start, stop)[0], records.step(shard, start, stop)[0])


def test_labels_of_all_events_in_memory_are_learned():
    """All labels of a bulk upload, newest first, are learned while further labelled events come."""
    shard = Shard.restore(long_running(), OPTIONS)
    records = Records()
    records.records, records.events = [()] * BEFORE, BEFORE
    for event in range(BEFORE - 1, BEFORE - 1 - 2 * REACH, -1):
        records.label(SENSORS[event % 2], "leak", event)
    records.interval("a", "leak", BEFORE * SECOND, FOR_EVER)
    for _ in range(REACH + BATCH):
        records.event("a")
        records.event("b")
    _, counts = records.step(shard, BEFORE, len(records.records))
    assert counts["applied"] + counts["late"] == 2 * REACH
    of_interval = (REACH + BATCH) // BATCH * BATCH  # those of "a" that stand before its last learn point
    assert abs(counts["learned_anomaly"] - 2 * REACH - of_interval) <= BATCH


def test_a_label_of_an_event_long_gone_expires():
    """It waits for as many events of its sensor as a label can reach back; then it expires, and is counted."""
    shard = Shard.restore(long_running(), OPTIONS)
    records = Records()
    records.records, records.events = [()] * BEFORE, BEFORE
    records.label("a", "leak", 4)
    records.label("never-seen", "leak", 5)
    records.event("a")
    records.step(shard, BEFORE, len(records.records))
    assert len(shard.label_store.early) == 2
    start = len(records.records)
    for _ in range(8192 + REACH):
        records.event("a")
    _, counts = records.step(shard, start, len(records.records))
    assert counts["expired"] == 1
    assert list(shard.label_store.early.state()) == ["never-seen"]


def test_a_late_label_does_not_slow_down_its_sensor():
    """After a label whose event is gone, only events whose hash may match it are looked up."""
    shard = Shard.restore(long_running(), OPTIONS)
    records = Records()
    records.records, records.events = [()] * BEFORE, BEFORE
    records.label("a", "leak", 4)
    looked_up = []
    on_arrival = shard.label_store.on_arrival
    shard.label_store.on_arrival = lambda *event: (looked_up.append(event), on_arrival(*event))
    for _ in range(1000):
        records.event("a")
    records.step(shard, BEFORE, len(records.records))
    assert len(looked_up) <= BATCH  # of the label's own round


def test_a_snapshot_of_0_1_0_continues_as_in_0_1_0():
    """A snapshot that 0.1.0 wrote and would refuse, because more labels waited than their queue had room for, is read:
    every label of an event in memory is learned, and the scores until then are those of 0.1.0.
    """
    data, options = earlier_snapshot()
    shard = Shard.restore(data, options)
    pending = shard.sensors.detectors[0].pending
    assert pending.queued[: pending.size].sum(axis=1).tolist() == [255, 0]
    assert pending.queued_from[: pending.size].tolist() == [133, 389]
    assert Shard.restore(shard.snapshot(), options).snapshot() == shard.snapshot()
    for name in ("g0.drift.mean", "g0.threshold.ladder"):  # which nothing needs any more
        assert name in load(data)
        assert name not in load(shard.snapshot())
    assert sorted(shard.label_store.early.state()) == ["a", "c"]
    records = Records()
    values, expected = next_of_earlier()
    for number, reading in enumerate(values):
        records.records.append(("ab"[number % 2], f"next-{number}", reading))
    scores, _ = records.step(shard, 0, len(values))
    np.testing.assert_array_equal(scores, expected)
