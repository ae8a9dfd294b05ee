"""Whatever is in the topics, a worker continues: every record is scored, joined or dead-lettered, once."""

from __future__ import annotations

import json
import random
import re
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_ad.brokers.worker_api import InputTopic
from stream_ad.records.columns import OutRecord
from stream_ad.records.schemas import REASONS, AnomalyScore
from stream_ad.settings import Settings
from stream_ad.testing import ManualClock, MemoryBroker
from stream_ad.worker.worker import Worker
from tests.support.mutations import mutated
from tests.support.stop_flags import Never
from tests.support.wire_records import NOW, NOW_MS, event

SMALL = {
    "topics": {"partitions": 2},
    "http": {"enabled": False},
    "detector": {"max_sensors": 20, "max_features": 8},
    "learning": {"label_horizon_events": 32, "warmup_events": 64, "replay_events": 32, "max_early_labels": 50},
    "threshold": {"window_events": 64},
}
EVENTS = [
    *(event(sensor_id=f"pump-{n}", event_id=f"e{n}", values={"temp": 70.0 + n, "vib": 0.5}) for n in range(6)),
    event(values={"temp": None, "vibration": -1.5e300, "ü": 0}),
]
LABELS = [
    *(json.dumps({"sensor_id": f"pump-{n}", "label": "leak", "event_id": f"e{n}"}).encode() for n in range(6)),
    json.dumps({"sensor_id": "pump-1", "label": None, "event_id": "e1"}).encode(),
    json.dumps({"sensor_id": "pump-2", "label": "normal", "start": NOW, "end": NOW}).encode(),
]


def work(records):
    """Let a worker process records of both topics, and check the outcome of each."""
    chosen, clock = Settings.model_validate(SMALL), ManualClock()
    memory = MemoryBroker(clock=clock)
    producer = memory.producer(chosen)
    for topic, batch in records.items():
        producer.send(topic, batch)
    worker = Worker(chosen, memory.worker(chosen), clock=clock, stop=Never(clock))
    worker.run(2.0)
    scores = [AnomalyScore.model_validate_json(record.value or b"") for record in memory.records(chosen.topics.scores)]
    dead = [dict(record.headers) for record in memory.records(chosen.topics.dead_letters)]
    from_topic = Counter(headers["stream_ad.topic"].decode() for headers in dead)
    assert {headers["stream_ad.reason"].decode() for headers in dead} <= set(REASONS)
    assert len(scores) + from_topic[chosen.topics.events] == len(records[InputTopic.EVENTS])
    joined = joined_labels(worker)
    assert joined + from_topic[chosen.topics.labels] == len(records[InputTopic.LABELS])
    origins = [tuple(headers[f"stream_ad.{name}"] for name in ("topic", "partition", "offset")) for headers in dead]
    assert len(set(origins)) == len(origins)
    return scores, dead, joined


def joined_labels(worker):
    """The number of labels that the shards have processed, by the metrics."""
    text = worker.metrics.exposition()[0].decode()
    return int(sum(float(value) for value in re.findall(r"^stream_ad_labels_total\{.*\} (\S+)$", text, re.MULTILINE)))


def test_ten_thousand_mutated_records_have_an_outcome():
    """Each of 10,000 mutated events and labels, a few intact, is scored, joined or dead-lettered."""
    rng = random.Random(20_261_122)

    def batch(count, seeds):
        values = [rng.choice(seeds) if rng.random() < 0.2 else mutated(rng, seeds) for _ in range(count)]
        keys = [rng.choice([b"pump-1", b"pump-2", b"x", b"", None]) for _ in values]
        times = [NOW_MS + n if rng.random() < 0.99 else rng.choice([0, 1, 2**41]) for n in range(count)]
        return [OutRecord(key, value, time_ms) for key, value, time_ms in zip(keys, values, times, strict=True)]

    scores, dead, joined = work({InputTopic.EVENTS: batch(7_000, EVENTS), InputTopic.LABELS: batch(3_000, LABELS)})
    assert min(len(scores), len(dead), joined) > 500


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KNOWN = st.sampled_from(["sensor_id", "timestamp", "values", "event_id", "label", "start", "end"])
LIKELY = st.sampled_from(["pump-1", NOW, {"temp": 1.0}, "e1", "leak", None])
MESSAGES = st.dictionaries(KNOWN, LIKELY | VALUES, max_size=6).map(lambda message: json.dumps(message).encode())
RECORDS = st.lists(
    st.tuples(st.none() | st.binary(max_size=4), st.none() | MESSAGES | st.binary(max_size=30)).map(
        lambda record: OutRecord(*record, NOW_MS)
    ),
    max_size=20,
)


@pytest.mark.parametrize("side", list(InputTopic))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(records=RECORDS)
def test_any_records_have_an_outcome(side, records):
    """Any keys and values in a topic, beside valid records in the other, are scored, joined or dead-lettered."""
    others = [OutRecord(b"pump-1", value, NOW_MS) for value in (LABELS if side is InputTopic.EVENTS else EVENTS)]
    other = InputTopic.LABELS if side is InputTopic.EVENTS else InputTopic.EVENTS
    work({side: records, other: others})
