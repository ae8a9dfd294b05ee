"""The whole way from Kafka to Kafka beside bare client loops, and over the embedded broker, in one run.

    python benchmarks/pipeline.py [--events 100000] [--sensors 50] [--rounds 3] [--quix PYTHON]

A bare loop reads with kafka-python or librdkafka, decodes, gives every event the same score, produces a score
message for each and commits a transaction, with the same client options, record sizes and batches; «anomalies» is
stream-ad with scores.publish=anomalies; --quix adds Quix Streams, bare and with river (quix.py). Every side runs in a
process of its own, in turns, over the same topics, filled beforehand; the first fifth of the events is warm-up and not
timed. Each ratio is against the bare loop of the same client. Needs what tests/kafka needs: Java 17 and Maven.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import structlog
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as RdPartition
from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the real Kafka of the tests

from stream_ad.brokers import open_admin, open_broker, open_producer
from stream_ad.brokers.base import Side
from stream_ad.brokers.kafka_batches import BATCH_BYTES, LINGER_MS
from stream_ad.brokers.kafka_client import client_options
from stream_ad.brokers.kafka_reading import consumer_options
from stream_ad.brokers.librdkafka_client import common_config
from stream_ad.codec.encode import encode_event
from stream_ad.settings import Settings
from stream_ad.signals import StopFlag
from stream_ad.worker import Worker
from tests.support.kafka_server import KafkaServer

FEATURES = tuple(f"feature_{number}" for number in range(8))
START_NS = 1_760_000_000_000_000_000
STEP_RECORDS = 2_000
WARM_UP = 0.2  # of the events
STAGES = ("poll", "decode", "step", "encode", "commit", "snapshot", "idle")


@dataclass(frozen=True)
class Result:
    """What one side did after its warm-up."""

    wall: float  # events per second
    processor: float  # events per second of processor time
    stages: dict[str, float]  # seconds by stage, the whole run


class Timer:
    """Starts at the first commit after the warm-up, ends with the last."""

    def __init__(self, events: int) -> None:
        self._skip, self._seen, self._counted = int(events * WARM_UP), 0, 0
        self._begin = self._end = (0.0, 0.0)

    def committed(self, events: int) -> None:
        now = (time.perf_counter(), time.process_time())
        if self._seen < self._skip:
            self._begin = now
        else:
            self._counted += events
        self._seen, self._end = self._seen + events, now

    def result(self, stages: dict[str, float]) -> Result:
        wall, processor = (end - begin for begin, end in zip(self._begin, self._end, strict=True))
        return Result(self._counted / wall, self._counted / processor, stages)


class TimedBroker:
    """A broker that tells a timer of its commits."""

    def __init__(self, broker: Any, timer: Timer) -> None:
        self._broker, self._timer = broker, timer
        self._at: dict[int, int] = {}  # positions committed: not every event has a score

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    def commit(self, commit: Any) -> None:
        self._broker.commit(commit)
        before = self._at.get(commit.shard, 0)
        if commit.positions.events > before:  # the snapshot at the end comes after a rest
            self._timer.committed(commit.positions.events - before)
            self._at[commit.shard] = commit.positions.events


def stream_ad(tree: dict[str, Any], events: int) -> Result:
    """The real worker."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    settings, timer = Settings.model_validate(tree), Timer(events)
    worker = Worker(settings, TimedBroker(open_broker(settings), timer), stop=StopFlag())
    worker.run(until_idle_s=2.0)
    lines = worker.metrics.exposition()[0].decode().splitlines()
    name = "stream_ad_stage_seconds_total"
    stages = {
        stage: float(line.split()[-1])
        for stage in STAGES
        for line in lines
        if line.startswith(f'{name}{{stage="{stage}"')
    }
    return timer.result(stages)


class Reading(msgspec.Struct):
    sensor_id: str
    timestamp: str
    values: dict[str, float]


class Score(msgspec.Struct):
    event_id: str
    sensor_id: str
    timestamp: str
    score: float
    is_anomaly: bool
    phase: str
    contributions: tuple[()]
    model: str


def bare(tree: dict[str, Any], events: int) -> Result:
    """What anyone would write with kafka-python alone."""
    settings, timer = Settings.model_validate(tree), Timer(events)
    options = client_options(settings)
    consumer = KafkaConsumer(
        group_id=settings.application_id, **options, **consumer_options() | {"auto_offset_reset": "earliest"}
    )
    consumer.subscribe([settings.topics.events])
    producer = KafkaProducer(
        **options, transactional_id=f"{settings.application_id}-bare", acks="all", compression_type="lz4",
        batch_size=BATCH_BYTES, linger_ms=LINGER_MS, metrics_enabled=False,
    )  # fmt: skip
    producer.init_transactions()
    decode, encode, seen = msgspec.json.Decoder(Reading).decode, msgspec.json.Encoder().encode, 0
    while seen < events:
        for partition, records in consumer.poll(timeout_ms=500, max_records=STEP_RECORDS).items():
            readings = [decode(record.value) for record in records]
            np.array([list(reading.values.values()) for reading in readings])
            producer.begin_transaction()
            futures = [
                producer.send(
                    settings.topics.scores,
                    key=record.key,
                    value=encode(
                        Score(f"{partition.topic}-{partition.partition}-{record.offset}", reading.sensor_id,
                              reading.timestamp, 0.12345678901234567, False, "live", (), "1-0123456789")
                    ),
                    partition=partition.partition,
                    timestamp_ms=record.timestamp,
                )
                for record, reading in zip(records, readings, strict=True)
            ]  # fmt: skip
            producer.flush()
            for future in futures:
                future.get()
            position = OffsetAndMetadata(records[-1].offset + 1, "", -1)
            producer.send_offsets_to_transaction(
                {TopicPartition(partition.topic, partition.partition): position}, consumer.group_metadata()
            )
            producer.commit_transaction()
            timer.committed(len(records))
            seen += len(records)
    producer.close()
    consumer.close()
    return timer.result({})


def bare_librdkafka(tree: dict[str, Any], events: int) -> Result:
    """The same with confluent-kafka alone."""
    settings, timer = Settings.model_validate(tree), Timer(events)
    config = common_config(settings)
    consumer = Consumer(
        config | {
            "group.id": settings.application_id, "enable.auto.commit": False, "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
    )  # fmt: skip
    consumer.subscribe([settings.topics.events])
    producer = Producer(
        config | {
            "transactional.id": f"{settings.application_id}-bare", "compression.type": "lz4", "batch.size": BATCH_BYTES,
            "linger.ms": LINGER_MS,
        }
    )  # fmt: skip
    producer.init_transactions(60)
    decode, encode, seen = msgspec.json.Decoder(Reading).decode, msgspec.json.Encoder().encode, 0
    refused: list[Any] = []

    def report(error: Any, _message: Any) -> None:
        if error is not None:
            refused.append(error)

    while seen < events:
        messages = [one for one in consumer.consume(STEP_RECORDS, 0.5) if one.error() is None]
        if not messages:
            continue
        readings = [decode(message.value()) for message in messages]
        np.array([list(reading.values.values()) for reading in readings])
        producer.begin_transaction()
        for message, reading in zip(messages, readings, strict=True):
            name = f"{message.topic()}-{message.partition()}-{message.offset()}"
            producer.produce(
                settings.topics.scores,
                key=message.key(),
                value=encode(
                    Score(name, reading.sensor_id, reading.timestamp, 0.12345678901234567, False, "live", (),
                          "1-0123456789")
                ),
                partition=message.partition(),
                timestamp=message.timestamp()[1],
                on_delivery=report,
            )  # fmt: skip
        if producer.flush(60) or refused:
            raise RuntimeError(f"not all was written: {refused[:1]}")
        last = messages[-1]
        position = RdPartition(last.topic(), last.partition(), last.offset() + 1)
        producer.send_offsets_to_transaction([position], consumer.consumer_group_metadata(), 60)
        producer.commit_transaction(60)
        timer.committed(len(messages))
        seen += len(messages)
    consumer.close()
    return timer.result({})


def quix(python: str, model: str, tree: dict[str, Any], events: int) -> Result:
    """Quix Streams, in an environment of its own."""
    settings = Settings.model_validate(tree)
    done = subprocess.run(
        [
            python, str(Path(__file__).with_name("quix.py")), settings.broker.bootstrap_servers, settings.topics.events,
            settings.topics.scores, settings.application_id, str(events), str(STEP_RECORDS), model,
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"benchmarks/quix.py failed:\n{done.stderr[-3000:]}")
    seconds, processor = map(float, done.stdout.split()[-2:])
    counted = events - events // 5
    return Result(counted / seconds, counted / processor, {})


def fill(tree: dict[str, Any], events: int, sensors: int) -> float:
    """Create the topics and fill them; the mean size of a record's value in bytes."""
    settings = Settings.model_validate(tree)
    admin = open_admin(settings)
    admin.apply()
    admin.close()
    producer, random, size = open_producer(settings), np.random.default_rng(0), 0
    level = random.normal(size=(sensors, len(FEATURES)))
    for start in range(0, events, 5_000):
        records = []
        for number in range(start, min(start + 5_000, events)):
            sensor = number % sensors
            level[sensor] += random.normal(size=len(FEATURES)) * 0.05
            values = np.round(level[sensor] + random.normal(size=len(FEATURES)), 4).tolist()
            time_ns = START_NS + number * 1_000_000
            records.append(encode_event(f"sensor-{sensor:04}", time_ns, dict(zip(FEATURES, values, strict=True))))
        producer.send(Side.EVENTS, records)
        size += sum(len(record.value or b"") for record in records)
    producer.flush()
    producer.close()
    return size / events


def measure(side: Any, tree: dict[str, Any], events: int) -> Result:
    """In a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(side, tree, events).result()


def rounds(sides: dict[str, tuple[Any, dict[str, Any]]], events: int, count: int) -> dict[str, list[Result]]:
    """Every side ``count`` times, in turns, each time as an application of its own."""
    results: dict[str, list[Result]] = {name: [] for name in sides}
    for number in range(count):
        for name, (side, tree) in sides.items():
            results[name].append(measure(side, tree | {"application_id": f"{name.replace(' ', '-')}-{number}"}, events))
    return results


def show(results: dict[str, list[Result]], title: str) -> None:
    console = Console(width=110)
    table = Table("", "events/s", "ratio", "events/s of processor", "ratio", title=title)
    medians = {
        name: tuple(statistics.median(getattr(one, field) for one in some) for field in ("wall", "processor"))
        for name, some in results.items()
    }
    for name, (wall, processor) in medians.items():
        base = medians["bare loop librdkafka" if "librdkafka" in name else "bare loop"]
        table.add_row(name, f"{wall:,.0f}", f"{wall / base[0]:.2f}", f"{processor:,.0f}", f"{processor / base[1]:.2f}")
    console.print(table)
    costs = Table("seconds by stage", *STAGES)
    for name, some in results.items():
        if some[-1].stages:
            costs.add_row(name, *(f"{some[-1].stages.get(stage, 0):.2f}" for stage in STAGES))
    console.print(costs)


def load() -> str:
    """How busy the machine is."""
    return ", ".join(f"{load:.2f}" for load in os.getloadavg())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--sensors", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--quix", metavar="PYTHON", help="of a virtual environment with quixstreams and river; see quix.py"
    )
    chosen = parser.parse_args()
    before = load()
    common = {"topics": {"partitions": 1}, "http": {"enabled": False}, "worker": {"step_records": STEP_RECORDS}}
    with KafkaServer() as kafka, tempfile.TemporaryDirectory() as folder:
        on_kafka = common | {"broker": {"kind": "kafka", "bootstrap_servers": kafka.bootstrap_servers}}
        on_librdkafka = common | {"broker": on_kafka["broker"] | {"client": "librdkafka"}}
        quiet = {"scores": {"publish": "anomalies"}}
        on_sqlite = common | {"broker": {"path": str(Path(folder, "stream.db"))}}
        size = fill(on_kafka, chosen.events, chosen.sensors)
        fill(on_sqlite, chosen.events, chosen.sensors)
        sides = {
            "bare loop": (bare, on_kafka),
            "stream-ad": (stream_ad, on_kafka),
            "stream-ad anomalies": (stream_ad, on_kafka | quiet),
            "bare loop librdkafka": (bare_librdkafka, on_librdkafka),
            "stream-ad librdkafka": (stream_ad, on_librdkafka),
            "stream-ad librdkafka anomalies": (stream_ad, on_librdkafka | quiet),
            "stream-ad embedded": (stream_ad, on_sqlite),
        }
        if chosen.quix:
            sides["quix streams"] = (partial(quix, chosen.quix, "none"), on_kafka)
            sides["quix streams with river"] = (partial(quix, chosen.quix, "river"), on_kafka)
        results = rounds(sides, chosen.events, chosen.rounds)
    show(
        results,
        f"{chosen.events:,} events of {chosen.sensors} sensors, {size:.0f} bytes each, steps of {STEP_RECORDS:,}, "
        f"median of {chosen.rounds}; load of the machine before {before}, after {load()}",
    )


if __name__ == "__main__":
    main()
