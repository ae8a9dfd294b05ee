"""Producer of input records and reader of outputs, on Kafka."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import kafka
from kafka import errors as kafka_errors

from stream_ad.brokers.kafka_client import REQUEST_MS, connect, errors
from stream_ad.brokers.kafka_reading import PartitionReader
from stream_ad.brokers.kafka_topics import input_topics
from stream_ad.brokers.partitioning import partition_for
from stream_ad.columns import OutRecord
from stream_ad.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ad.brokers.base import Side, TopicPlan
    from stream_ad.settings import Settings

BATCH_BYTES = 512 * 1024
LINGER_MS = 20
PENDING_RECORDS = 50_000  # the client itself would take records until memory is full


class KafkaProducer:
    """See ``base.Producer``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topics = input_topics(settings)
        self._pending: list[Any] = []
        self._producer: kafka.KafkaProducer = connect(
            kafka.KafkaProducer,
            settings,
            enable_idempotence=True,
            acks="all",
            compression_type="lz4",
            batch_size=BATCH_BYTES,
            linger_ms=LINGER_MS,
            request_timeout_ms=REQUEST_MS,
            delivery_timeout_ms=int(max(2 * REQUEST_MS, settings.broker.give_up_seconds * 1000)),
            max_request_size=64 * 1024 * 1024,  # the topic's own max.message.bytes decides
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )

    def send(self, side: Side, records: Sequence[OutRecord]) -> None:
        topic, partitions, send = self._topics[side].topic, self._topics[side].partitions, self._producer.send
        self._refuse_what_would_vanish(self._topics[side], records)
        with errors(self._settings, f"writing to {topic}"):
            self._pending += [
                send(
                    topic,
                    value=record.value,
                    key=record.key,
                    headers=list(record.headers),
                    partition=partition_for(record.key, partitions),
                    timestamp_ms=record.time_ms,
                )
                for record in records
            ]
        if len(self._pending) > PENDING_RECORDS:
            self.flush()

    def _refuse_what_would_vanish(self, topic: TopicPlan, records: Sequence[OutRecord]) -> None:
        """Retention counts from a record's own time: one that is too old would be deleted within minutes."""
        retention_ms = int(topic.config.get("retention.ms", -1))
        if retention_ms < 0 or not records:
            return
        oldest_ms = min(record.time_ms for record in records)
        if oldest_ms < time.time() * 1000 - retention_ms:
            oldest = datetime.fromtimestamp(oldest_ms / 1000, UTC)
            raise BrokerError(
                f"{topic.topic} deletes records {retention_ms / 86_400_000:.4g} days after their own time; one of "
                f"{oldest:%Y-%m-%d %H:%M} would vanish soon after it was written.",
                hint="For old recordings use topics that keep for ever: make them with topics.retention_seconds=null, "
                "or set retention.ms of this one to -1.",
            )

    def flush(self) -> None:
        pending, self._pending = self._pending, []
        with errors(self._settings, "writing"):
            self._producer.flush(timeout=self._settings.broker.give_up_seconds)
            for future in pending:
                if not future.succeeded():
                    raise future.exception or kafka_errors.KafkaTimeoutError("records were not acknowledged")

    def close(self) -> None:
        with errors(self._settings, "closing"):
            self._producer.close(timeout=self._settings.broker.give_up_seconds)


class KafkaReader:
    """See ``base.Reader``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._readers: dict[str, PartitionReader] = {}

    def read(self, topic: str, *, timeout_s: float = 0.0) -> list[tuple[bytes | None, bytes | None]]:
        return [(record.key, record.value) for record in self.read_records(topic, timeout_s=timeout_s)]

    def read_records(self, topic: str, *, timeout_s: float = 0.0) -> list[OutRecord]:
        with errors(self._settings, f"reading {topic}"):
            if topic not in self._readers:
                self._readers[topic] = PartitionReader(self._settings, topic)
            records = sorted(
                self._readers[topic].read(timeout_s=timeout_s), key=lambda record: (record.partition, record.offset)
            )
        return [
            OutRecord(record.key, record.value, record.timestamp, tuple(record.headers or ())) for record in records
        ]

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()
