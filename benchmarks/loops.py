"""What stands beside the worker in benchmarks/pipeline.py: loops over a client alone, and Quix Streams."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as RdPartition
from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition

from stream_ad.brokers.kafka.connection import BATCH_BYTES, LINGER_MS, client_options
from stream_ad.brokers.kafka.librdkafka.config import common_config
from stream_ad.brokers.kafka.partition_reader import consumer_options
from stream_ad.settings import Settings

STEP_RECORDS = 2_000
WARM_UP = 0.2  # of the events


@dataclass(frozen=True)
class Result:
    """Speed of a side after its warm-up."""

    wall: float  # events per second
    processor: float  # events per second of processor time
    stages: dict[str, float]  # seconds by stage, the whole run


class Timer:
    """Measures from the first commit after the warm-up to the last commit."""

    def __init__(self, events: int) -> None:
        self._skip, self._seen, self._counted = int(events * WARM_UP), 0, 0
        self._begin = self._end = (0.0, 0.0)

    def committed(self, events: int) -> None:
        """Count events of a commit."""
        now = (time.perf_counter(), time.process_time())
        if self._seen < self._skip:
            self._begin = now
        else:
            self._counted += events
        self._seen, self._end = self._seen + events, now

    def result(self, stages: dict[str, float]) -> Result:
        """Return events per second by the clock and by processor time."""
        wall, processor = (end - begin for begin, end in zip(self._begin, self._end, strict=True))
        return Result(self._counted / wall, self._counted / processor, stages)


class Reading(msgspec.Struct):
    """An event."""

    sensor_id: str
    timestamp: str
    values: dict[str, float]


class Score(msgspec.Struct):
    """A score."""

    event_id: str
    sensor_id: str
    timestamp: str
    score: float
    is_anomaly: bool
    phase: str
    contributions: tuple[()]
    model: str


def bare(tree: dict[str, Any], events: int) -> Result:
    """Run the loop that anyone would write with kafka-python alone."""
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
    """Run the same loop with confluent-kafka alone."""
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
        messages = [message for message in consumer.consume(STEP_RECORDS, 0.5) if message.error() is None]
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
    """Run Quix Streams, in an environment of its own."""
    command = quix_command(python, model, tree, events, 60.0)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"benchmarks/quix.py failed:\n{done.stderr[-3000:]}")
    seconds, processor = map(float, done.stdout.split()[-2:])
    counted = events - events // 5
    return Result(counted / seconds, counted / processor, {})


def quix_command(python: str, model: str, tree: dict[str, Any], events: int, commit_s: float) -> list[str]:
    """Return the command that starts Quix Streams; it ends after ``events`` events."""
    settings = Settings.model_validate(tree)
    return [
        python, str(Path(__file__).with_name("quix.py")), settings.broker.bootstrap_servers, settings.topics.events,
        settings.topics.scores, settings.application_id, str(events), str(STEP_RECORDS), str(commit_s), model,
    ]  # fmt: skip
