"""What every detector must keep, whatever it computes: the suite that a change of any part has to pass."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ad.codec import Codec
from stream_ad.detector.config import DetectorOptions
from stream_ad.evaluation.backtest.label_schedule import Delay, Protocol, Schedule
from stream_ad.evaluation.backtest.stream import Stream
from stream_ad.records.columns import Events, Labels, RawRecords, ValueBlock
from stream_ad.settings import Settings
from stream_ad.shard.shard import Shard
from tests.support.recordings import OPTIONS, drawn
from tests.support.streams import decisions

SHARED = OPTIONS.model_copy(update={"detector": OPTIONS.detector.model_copy(update={"models": "shared"})})
MODES = pytest.mark.parametrize("options", [OPTIONS, SHARED], ids=["per-sensor", "shared"])
NO_LABELS = Labels(*[np.empty(0, np.int64)] * 2, [], [], [], *[np.empty(0, np.int64)] * 2)
ROWS = 320


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def events_of(values, *, features=None, sensors=None, start=0):
    """Events with these readings, one second apart, of one sensor by default."""
    values = np.asarray(values, np.float64)
    rows = np.arange(len(values))
    names = tuple(features or (f"f{number}" for number in range(values.shape[1])))
    return Events(
        offsets=rows + start,
        record_times_ms=(rows + start) * 1000,
        times_ns=(rows + start) * 1_000_000_000,
        sensor_ids=list(sensors) if sensors is not None else ["a"] * len(rows),
        event_ids=[f"e{row}" for row in (rows + start).tolist()],
        blocks=(ValueBlock(names, rows, values),),
    )


def waves(rows=ROWS, features=3, seed=0):
    """Coupled readings with memory."""
    rng = np.random.default_rng(seed)
    level = np.cumsum(rng.normal(0, 0.1, rows))[:, None]
    return level * np.arange(1, features + 1) + rng.normal(0, 0.3, (rows, features))


def scores_of(events, options=OPTIONS, labels=NO_LABELS):
    return Shard(options).step(events, labels).scores


def labelled():
    """Two sensors with faults, and labels that come late."""
    stream = Stream([drawn(ROWS)], warmup=0, default_warmup=0)
    return stream, Schedule(stream, Protocol(delay=Delay(15)))


# ---------------------------------------------------------------- features


@settings(deadline=None, max_examples=3)
@given(st.randoms(use_true_random=False))
def test_order_of_features_is_irrelevant(random):
    """Messages that name their readings in any order are scored alike, bit for bit."""
    values = waves(100)

    def records(shuffle):
        texts = []
        for row, reading in enumerate(values.tolist()):
            named = [(f"f{number}", value) for number, value in enumerate(reading)]
            if shuffle:
                random.shuffle(named)
            event = {
                "sensor_id": "a",
                "timestamp": f"2026-01-01T00:{row // 60:02}:{row % 60:02}Z",
                "values": dict(named),
            }
            texts.append(json.dumps(event).encode())
        times = 1_767_225_600_000 + np.arange(len(texts)) * 1000
        return RawRecords("t", 0, np.arange(len(texts)), times, [b"a"] * len(texts), texts)

    plain, shuffled = (Codec(Settings()).decode_events(records(shuffle)) for shuffle in (False, True))
    assert not plain[1]
    assert not shuffled[1]
    np.testing.assert_array_equal(scores_of(plain[0]).score, scores_of(shuffled[0]).score)


@MODES
def test_features_may_appear_and_vanish(options):
    """A sensor that gains and loses features keeps being scored, and what others score does not move."""
    first, second, third = waves(128, 2), waves(96, 3, seed=1), waves(96, 1, seed=2)
    parts = [(first, ("p", "q")), (second, ("p", "q", "r")), (third, ("q",))]
    shard, other, start, parts_scored = Shard(options), Shard(options), 0, []
    for values, names in parts:
        beside = waves(len(values), 2, seed=7 + start)
        own_events = events_of(values, features=names, start=start)
        other_events = events_of(beside, features=("u", "v"), sensors=["b"] * len(values), start=start)
        parts_scored.append(shard.step(own_events, NO_LABELS).scores.score)
        together = shard.step(other_events, NO_LABELS).scores.score
        np.testing.assert_array_equal(together, other.step(other_events, NO_LABELS).scores.score)
        start += len(values)
    scores = np.concatenate(parts_scored)
    assert np.isfinite(scores).all()
    assert (scores[128:] > 0).all()  # what it knew came along: no second warm-up
    assert len(shard.sensors) == 2


@MODES
@pytest.mark.parametrize("share", [0.05, 0.5])
def test_missing_values_are_survived(options, share):
    """Readings missing here and there, events without any: every score is finite, and no missing feature is named."""
    rng = np.random.default_rng(3)
    values = waves()
    values[200:] += 4 * (rng.random((ROWS - 200, 1)) < 0.1)
    values[rng.random(values.shape) < share] = np.nan
    values[::17] = np.nan
    scores = scores_of(events_of(values), options)
    assert np.isfinite(scores.score).all()
    for row, named in scores.contributions.items():
        for contribution in named:
            assert np.isfinite(contribution.expected)
            assert not np.isnan(values[row, int(contribution.feature[1:])])


def test_a_feature_that_never_came_changes_little():
    """A sensor that never shows one of the features is scored as if it had none: finite, and with a threshold."""
    values = waves()
    scores = scores_of(events_of(np.column_stack([values, np.full(ROWS, np.nan)])))
    assert np.isfinite(scores.score).all()
    assert (scores.score[OPTIONS.learning.warmup_events :] > 0).all()


@MODES
def test_constant_features_are_survived(options):
    """Constant features do no harm, even if all are constant; one that then changes is named first."""
    rows = 1000
    values = waves(rows)
    values[:, 1] = 7.0
    values[-1, 1] = 8.0
    scores = scores_of(events_of(values), options)
    assert np.isfinite(scores.score).all()
    assert scores.alarm[-1] >= 1
    assert scores.contributions[rows - 1][0].feature == "f1"
    assert np.isfinite(scores_of(events_of(np.full((ROWS, 2), -3.5)), options).score).all()


@pytest.mark.parametrize("scale", [1e-6, 1e9])
def test_units_do_not_matter(scale):
    """The same readings in another unit rank events alike."""
    plain = scores_of(events_of(waves())).score[100:]
    other = scores_of(events_of(waves() * scale)).score[100:]
    assert np.corrcoef(plain.argsort().argsort(), other.argsort().argsort())[0, 1] > 0.99


# ---------------------------------------------------------------- sensors


def test_a_sensor_alone_is_a_sensor_in_company():
    """What one of many sensors scores is what it scores alone, bit for bit."""
    many, rows = 60, 96
    values = np.stack([waves(rows, 2, seed=seed) for seed in range(many)], axis=1)  # (T, S, F)
    together = events_of(values.reshape(-1, 2), sensors=[f"s{i % many}" for i in range(rows * many)])
    scores = scores_of(together).score.reshape(rows, many)
    for number in (0, 17, many - 1):
        alone = scores_of(events_of(values[:, number], sensors=[f"s{number}"] * rows)).score
        np.testing.assert_array_equal(alone, scores[:, number])


def test_ten_thousand_sensors():
    """Ten thousand sensors have their state, each its own; the next one takes the place of the longest silent."""
    options = DetectorOptions.model_validate(
        {
            "learning": {"batch_events": 8, "warmup_events": 64, "label_horizon_events": 8, "replay_events": 32},
            "threshold": {"window_events": 64},
        }
    )
    count = options.detector.max_sensors
    assert count == 10_000
    names = [f"s{number}" for number in range(count)]
    shard = Shard(options)
    shard.step(events_of(np.arange(count)[:, None], sensors=names), NO_LABELS)
    assert shard.status().sensors == count
    late = events_of([[1.0]], sensors=["late"], start=count)
    assert shard.step(late, NO_LABELS).counts["sensors_evicted"] == 1
    assert shard.status().sensors == count
    assert "s0" not in shard.sensors.numbers
    assert sum(detector.size for detector in shard.sensors.detectors) + len(shard.sensors.resting) == count


# ---------------------------------------------------------------- inputs and memory


@MODES
def test_inputs_are_neither_changed_nor_kept(options):
    """Arrays that cannot be written are enough, and what becomes of them after the step changes nothing."""
    stream, schedule = labelled()
    kept, lent = Shard(options), Shard(options)
    for start, end in itertools.pairwise(range(0, ROWS + 1, 80)):
        labels = schedule.labels(start, end)
        kept.step(stream.events(start, end), labels)
        events = stream.events(start, end)
        arrays = [events.offsets, events.record_times_ms, events.times_ns]
        arrays += [array for block in events.blocks for array in (block.rows, block.values)]
        owned = [array.copy() for array in arrays]
        events = dataclasses.replace(
            events,
            offsets=owned[0],
            record_times_ms=owned[1],
            times_ns=owned[2],
            blocks=(dataclasses.replace(events.blocks[0], rows=owned[3], values=owned[4]),),
        )
        for array in owned:
            array.flags.writeable = False
        lent.step(events, labels)
        for array in owned:
            array.flags.writeable = True
            array[...] = 0
        events.sensor_ids.clear()
        events.event_ids.clear()
    assert kept.snapshot() == lent.snapshot()


@MODES
def test_memory_is_bounded(options):
    """Once its rings are full, a sensor's state grows no more, however many events and labels come."""
    shard, values = Shard(options), waves(1200)
    sizes = []
    for start in range(0, 1200, 200):
        shard.step(events_of(values[start : start + 200], start=start), NO_LABELS)
        sizes.append((shard.status().state_bytes, len(shard.snapshot())))
    assert len({size for size, _ in sizes}) == 1  # taken when the sensor appears
    lengths = [length for _, length in sizes[2:]]
    assert max(lengths) - min(lengths) < 800  # an open incident or none; a row more each time would be 30 times that


def test_kept_labels_are_bounded():
    """Labels for events that never come are kept up to the setting, the newest."""
    learning = OPTIONS.learning.model_copy(update={"max_early_labels": 10, "max_intervals": 5})
    shard = Shard(OPTIONS.model_copy(update={"learning": learning}))
    count, none = 700, np.zeros(700, np.int64)
    numbers = np.arange(count)
    for named in ([f"never{number}" for number in numbers], [None] * count):
        labels = Labels(numbers, numbers, ["a"] * count, ["leak"] * count, named, none + numbers, none + numbers)
        shard.step(events_of(np.empty((0, 1))), labels)
    shard.step(events_of(waves(1200)), NO_LABELS)  # bounds are kept at fixed points of the records
    assert len(shard.label_store.early) <= 10
    assert sum(map(len, shard.label_store.intervals.values())) <= 5


# ---------------------------------------------------------------- state and cuts


@MODES
@settings(deadline=None, max_examples=4)
@given(st.integers(1, ROWS - 1))
def test_state_makes_the_round_trip(options, at):
    """A shard restored from a snapshot, taken anywhere, goes on exactly as the one it was taken of."""
    stream, schedule = labelled()
    shard = Shard(options)
    shard.step(stream.events(0, at), schedule.labels(0, at))
    restored = Shard.restore(shard.snapshot(), options)
    assert restored.snapshot() == shard.snapshot()
    rest = stream.events(at, ROWS), schedule.labels(at, ROWS)
    np.testing.assert_array_equal(shard.step(*rest).scores.score, restored.step(*rest).scores.score)
    assert restored.snapshot() == shard.snapshot()


@pytest.fixture(scope="module", params=[OPTIONS, SHARED], ids=["per-sensor", "shared"])
def whole(request):
    """What a shard decides of a labelled stream in one step, and its state then."""
    stream, schedule = labelled()
    shard = Shard(request.param)
    result = shard.step(stream.events(0, ROWS), schedule.labels(0, ROWS))
    return request.param, stream, schedule, decisions([result]), shard.snapshot()


@settings(deadline=None, max_examples=8)
@given(st.data())
def test_every_cut_gives_the_same(whole, data):
    """However a stream is cut into steps, scores, alarms, explanations, incidents and the final state are the same, bit
    for bit.
    """
    options, stream, schedule, expected, snapshot = whole
    cuts = data.draw(st.sets(st.integers(1, ROWS - 1), max_size=12))
    shard = Shard(options)
    bounds = itertools.pairwise(sorted({0, ROWS, *cuts}))
    results = [shard.step(stream.events(start, end), schedule.labels(start, end)) for start, end in bounds]
    assert decisions(results) == expected
    assert shard.snapshot() == snapshot


def test_one_event_at_a_time_gives_the_same(whole):
    """The finest cut of all gives the same, too."""
    options, stream, schedule, expected, snapshot = whole
    shard = Shard(options)
    results = [shard.step(stream.events(row, row + 1), schedule.labels(row, row + 1)) for row in range(ROWS)]
    assert decisions(results) == expected
    assert shard.snapshot() == snapshot
