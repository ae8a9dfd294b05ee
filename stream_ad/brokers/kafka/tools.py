"""Producer of input records and reader of outputs, on Kafka."""

from __future__ import annotations

import time
import uuid
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from kafka import TopicPartition
from kafka import errors as kafka_errors

from stream_ad.brokers.kafka.client_api import client_of
from stream_ad.brokers.kafka.connection import errors
from stream_ad.brokers.kafka.hanging_transactions import MARK_HEADER, settle
from stream_ad.brokers.kafka.partition_reader import PartitionReader
from stream_ad.brokers.kafka.topics import input_topics, keeps_time_of_writing
from stream_ad.brokers.partitioner import partition_for
from stream_ad.errors import BrokerError
from stream_ad.records.columns import OutRecord
from stream_ad.util.backoff import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from stream_ad.brokers.kafka.client_api import SettlingProducer, TransactionalProducer
    from stream_ad.brokers.tools_api import TopicPlan
    from stream_ad.brokers.worker_api import InputTopic
    from stream_ad.settings import Settings

PENDING_RECORDS = 50_000
PENDING_BYTES = 16 * 1024 * 1024

_TRY_AGAIN = (
    kafka_errors.RetriableError,
    kafka_errors.ProducerFencedError,  # Kafka aborted the transaction, because it took too long
    kafka_errors.InvalidProducerEpochError,
    kafka_errors.InvalidTxnStateError,
    kafka_errors.OutOfOrderSequenceNumberError,
    kafka_errors.UnknownProducerIdError,
)


class KafkaProducer:
    """See ``tools.Producer``. What is sent waits in memory until ``flush``, which writes all of it or nothing.

    In transactions, since idempotence alone doubles recordings: Kafka tells a repeated batch by what it
    remembers of the producer, and goes by the records' own times in what to forget. Records that are a day old
    (producer.id.expiration.ms) are forgotten within minutes, and at once when it starts after a crash. It does
    not forget an open transaction.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topics = input_topics(settings)
        self._id = f"{settings.application_id}-input-{uuid.uuid4().hex[:12]}"  # any number may write side by side
        self._pending: dict[tuple[str, int], list[OutRecord]] = {}
        self._count = self._bytes = 0
        self._producer: TransactionalProducer | None = self._open()

    def _open(self, settle: Callable[[SettlingProducer], None] | None = None) -> TransactionalProducer:
        topics = [topic.topic for topic in self._topics.values()]
        with errors(self._settings, "opening a producer"):
            return client_of(self._settings).open_producer(self._settings, self._id, topics, settle)

    def send(self, side: InputTopic, records: Sequence[OutRecord]) -> None:
        topic, partitions = self._topics[side].topic, self._topics[side].partitions
        self._refuse_what_would_vanish(self._topics[side], records)
        for record in records:
            self._pending.setdefault((topic, partition_for(record.key, partitions)), []).append(record)
            self._bytes += len(record.key or b"") + len(record.value or b"")
        self._count += len(records)
        if self._count >= PENDING_RECORDS or self._bytes >= PENDING_BYTES:
            self.flush()

    def _refuse_what_would_vanish(self, topic: TopicPlan, records: Sequence[OutRecord]) -> None:
        """Where retention counts from a record's own time, one that is too old would be deleted within minutes."""
        retention_ms = int(topic.config.get("retention.ms", -1))
        if retention_ms < 0 or not records or keeps_time_of_writing(topic.config):
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
        pending, count, self._pending = self._pending, self._count, {}
        self._count = self._bytes = 0
        if pending:
            self._write(pending, count)

    def _write(self, pending: dict[tuple[str, int], list[OutRecord]], count: int) -> None:
        """Once, however often it must be tried: a try that failed is known to have left nothing before the next one."""
        patience = RetryPolicy(
            f"Writing {count:,} records, all or none,",
            give_up_s=self._settings.broker.give_up_seconds,
            clock=time.monotonic,
        )
        lasts: dict[TopicPartition, int] = {}  # where the try's records end, once acknowledged
        while True:
            try:
                if self._producer is None:
                    # from here on the last try is committed or aborted for good
                    self._producer = self._open(partial(self._settle, places=pending, lasts=lasts))
                    if lasts and self._is_committed(lasts):
                        return
                lasts = {}
                with errors(self._settings, f"writing {count:,} records"):
                    lasts = self._append(self._producer, pending)
                    self._producer.end_transaction(self._settings.broker.give_up_seconds)
            except BrokerError as error:
                self._abandon()
                cause = error.__cause__
                # the client knows no more than KafkaError where a coordinator did not answer in time
                if not lasts and not isinstance(cause, _TRY_AGAIN) and type(cause) is not kafka_errors.KafkaError:
                    raise
                time.sleep(patience.failed(error))
            else:
                return

    def _append(
        self, producer: TransactionalProducer, pending: dict[tuple[str, int], list[OutRecord]]
    ) -> dict[TopicPartition, int]:
        """Write everything in a transaction that stays open; returns the offset of each partition's last record."""
        timeout_s = self._settings.broker.transaction_timeout_seconds
        producer.begin_transaction()
        sent = {TopicPartition(*place): producer.send_batches(*place, records) for place, records in pending.items()}
        producer.flush(timeout_s)
        producer.check([one for some in sent.values() for one in some])
        return {partition: producer.last_offset(some) for partition, some in sent.items()}

    def _settle(
        self, producer: SettlingProducer, places: Iterable[tuple[str, int]], lasts: dict[TopicPartition, int]
    ) -> None:
        """See ``settle``: what is left open of the last try goes the way of that try's other partitions, if any has
        ended; else nobody has seen anything of it, and it is aborted.
        """

        def committed(still_open: dict[TopicPartition, int]) -> Collection[TopicPartition]:
            ended = {one: last for one, last in lasts.items() if one not in still_open}
            return still_open if ended and self._is_committed(ended) else ()

        settle(self._settings, producer, [TopicPartition(*place) for place in places], committed)

    def _is_committed(self, lasts: dict[TopicPartition, int]) -> bool:
        """Whether the records there can be read, now that their transaction has ended: one tells for all."""
        (topic, partition), offset = next(iter(lasts.items()))
        with errors(self._settings, f"reading {topic}"):
            reader = PartitionReader(self._settings, topic, [partition], start=offset)
            with closing(reader):
                return any(record.offset == offset for record in reader.read_settled())

    def _abandon(self) -> None:
        if self._producer is not None:
            self._producer.abandon()
            self._producer = None

    def close(self) -> None:
        try:
            self.flush()
        finally:
            if self._producer is not None:
                self._producer.close(timeout=self._settings.broker.transaction_timeout_seconds)
                self._producer = None


class KafkaReader:
    """See ``tools.Reader``."""

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
        return [OutRecord(record.key, record.value, record.timestamp, _headers(record)) for record in records]

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()


def _headers(record: Any) -> tuple[tuple[str, bytes], ...]:
    """Without what a commit leaves for those who come after it."""
    return tuple((name, value) for name, value in record.headers or () if name != MARK_HEADER)
