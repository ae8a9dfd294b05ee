"""Extreme numbers in settings: each is refused with the name of the setting, or works."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
from confluent_kafka import Consumer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream_ad.brokers.kafka.librdkafka import consumer as librdkafka_consumer
from stream_ad.brokers.kafka.topics import wanted_config
from stream_ad.brokers.memory.broker import MemoryBroker
from stream_ad.brokers.worker_api import InputTopic
from stream_ad.codec.encoders import encode_event, encode_label
from stream_ad.settings.keys import all_keys
from stream_ad.settings.loader import examine
from stream_ad.shard.shard import Shard
from stream_ad.testing import ManualClock
from stream_ad.worker.worker import Worker
from tests.support.stop_flags import Never
from tests.support.streams import Story, noise

NUMBERS = {
    key.name: key.field.annotation
    for key in all_keys().values()
    if not key.is_section and {int, float} & {key.field.annotation, *get_args(key.field.annotation)}
}
SMALL = {
    "topics.partitions": 1,
    "http.enabled": False,
    "learning.warmup_events": 64,
    "learning.label_horizon_events": 64,
    "learning.replay_events": 64,
    "threshold.window_events": 128,
    "worker.drain_timeout_seconds": 5,
}
EXTREMES = sorted(
    {sign * base + off for base in (0, *(2**bits for bits in (5, 6, 15, 31, 32, 63, 64)))
     for sign in (1, -1) for off in (-1, 0, 1)}
    | {1000, 10_000, 32_767, 1_000_000, 10**30, 10**400}
)  # fmt: skip
FRACTIONS = (
    5e-324,
    1e-300,
    1e-9,
    0.001,
    0.01,
    0.5,
    1 - 2**-53,
    3.2e9,
    9.3e9,
    1e11,
    1e300,
    math.inf,
    -math.inf,
    math.nan,
)


def chosen(name, number):
    """Return settings with one number set, as a text as people write it; None where it is refused by its name."""
    resolved, problems = examine(None, [f"{key}={value!r}" for key, value in {**SMALL, name: number}.items()], {})
    assert all(name in problem for problem in problems)
    return None if resolved is None else resolved.settings


def use(made):
    """Run a shard with the settings: scores are below 1, alarms are finite, and the snapshot restores."""
    shard, story = Shard(made.detector_options, incidents=made.incidents), Story()
    ids = noise(story, 200, features=2)
    for at in (150, 160, 170, 199):
        story.label("a", "leak" if at % 20 else "normal", ids[at])
    story.interval("a", "wear", 10, 190)
    noise(story, 100, features=2, seed=1)
    results = story.play(shard)
    assert all(((result.scores.score >= 0) & (result.scores.score < 1)).all() for result in results)
    assert all((result.scores.alarms >= 0).all() and np.isfinite(result.scores.alarms).all() for result in results)
    restored = Shard.restore(shard.snapshot(), made.detector_options, incidents=made.incidents)
    assert restored.snapshot() == shard.snapshot()


def work(made):
    """Run a worker with the settings: every event is scored or a dead letter."""
    clock = ManualClock()
    memory = MemoryBroker(clock=clock)
    producer = memory.producer(made)
    producer.send(InputTopic.EVENTS, [encode_event("s", 10**9, {"x": 1.0}, record_time_ms=1000)] * 3)
    producer.send(InputTopic.LABELS, [encode_label("s", "leak", event_id="e", record_time_ms=1001)])
    broker = memory.worker(made)
    Worker(made, broker, clock=clock, stop=Never(clock)).run(3.0)
    sizes = [len(memory.records(topic)) for topic in (made.topics.scores, made.topics.dead_letters)]
    assert sum(sizes) >= 3


@pytest.mark.parametrize(
    "name",
    [name for name in NUMBERS if name.startswith(("detector.", "learning.", "thres", "dr", "alarms.", "incidents."))],
)
def test_an_extreme_of_the_detector_is_refused_or_works(name):
    """Every number of the detector, however large, small or strange: refused by its name, or it scores and learns."""
    for number in (*EXTREMES, *FRACTIONS):
        if (made := chosen(name, number)) is not None:
            use(made)


@pytest.mark.parametrize("name", NUMBERS)
def test_an_extreme_of_the_worker_is_refused_or_works(name, monkeypatch):
    """Every number, however large, small or strange: refused by its name, or a worker runs and Kafka's clients accept
    what it becomes.
    """
    monkeypatch.setattr(librdkafka_consumer.MetadataClient, "__init__", lambda *_: None)
    for number in (*EXTREMES, *FRACTIONS):
        if (made := chosen(name, number)) is None:
            continue
        if name != "topics.partitions":  # ten thousand shards take too long
            work(made)
        assert abs(int(wanted_config(made, "events").get("retention.ms", 0))) < 2**63
        if name.startswith("broker."):
            consumer = librdkafka_consumer.LibrdkafkaConsumer(made)
            assert isinstance(consumer._client, Consumer)
            consumer._client.close()


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(NUMBERS)), st.integers() | st.floats())
@example("detector.seed", 2**64)
@example("learning.label_horizon_seconds", 1e11)
@example("learning.rate", 2**65)
def test_any_number_is_refused_or_accepted(name, number):
    """Any number for any setting gives settings, or a refusal that names it. Whole numbers that are accepted fit
    into 64 bits, seconds do so as nanoseconds, and everything else is finite.
    """
    made = chosen(name, number)
    if made is not None:
        for part in name.split("."):
            made = getattr(made, part)
        assert made is None or math.isfinite(made)
        if isinstance(made, int):
            assert 0 <= made < 2**64
        if name.endswith("_seconds"):
            assert 0 <= made * 1e9 < 2**63
