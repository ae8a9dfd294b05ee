"""The producer of input records on Kafka."""

from __future__ import annotations

import time
import uuid
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from kafka import TopicPartition
from kafka import errors as kafka_errors

from stream_ad.brokers.kafka.client_api import client_of
from stream_ad.brokers.kafka.connection import errors
from stream_ad.brokers.kafka.hanging_transactions import resolve_hanging_transactions
from stream_ad.brokers.kafka.partition_reader import PartitionReader
from stream_ad.brokers.kafka.topics import input_topics, keeps_time_of_writing
from stream_ad.brokers.partitioner import partition_for
from stream_ad.errors import BrokerError
from stream_ad.util.backoff import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from stream_ad.brokers.kafka.client_api import ResolvingProducer, TransactionalProducer
    from stream_ad.brokers.tools_api import TopicPlan
    from stream_ad.brokers.worker_api import InputTopic
    from stream_ad.records.columns import OutRecord
    from stream_ad.settings import Settings

PENDING_RECORDS = 50_000  # in memory, before they are written by themselves
PENDING_BYTES = 16 * 1024 * 1024
_RETRIABLE = (
    kafka_errors.RetriableError,
    kafka_errors.ProducerFencedError,  # Kafka aborted the transaction because it took too long
    kafka_errors.InvalidProducerEpochError,
    kafka_errors.InvalidTxnStateError,
    kafka_errors.OutOfOrderSequenceNumberError,
    kafka_errors.UnknownProducerIdError,
)


class KafkaProducer:
    """See ``tools_api.Producer``. Records wait in memory until ``flush``, which writes all of them or none.

    They are written in transactions, since idempotence alone duplicates recordings: Kafka recognizes a repeated batch
    by what it remembers of the producer, and forgets that by the records' own times. A producer of records that are a
    day old (producer.id.expiration.ms) is forgotten within minutes, and at once when a broker starts after a crash. An
    open transaction is not forgotten.

    A flush takes these steps:

    1. Open a producer where there is none; see step 5.
    2. Begin a transaction, send all records, and wait until every one is acknowledged; note their last offsets.
    3. End the transaction. If it succeeds, the flush is done.
    4. After an error, abandon the producer and wait as the retry policy says. An error that retrying cannot repair is
       raised, unless it came after step 2, when the transaction may have been committed.
    5. Open a producer with the same transactional id. This fences the failed one, and ends what it left open as its
       other partitions ended; so the failed attempt is now either committed or aborted for good.
    6. If a record at one of the noted offsets can be read, the attempt was committed and the flush is done. Else
       continue with step 2.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topics = input_topics(settings)
        # unique, since any number of producers may write at the same time
        self._id = f"{settings.application_id}-input-{uuid.uuid4().hex[:12]}"
        self._pending: dict[tuple[str, int], list[OutRecord]] = {}
        self._count = self._bytes = 0
        self._producer: TransactionalProducer | None = self._open()

    def _open(self, resolve_hanging: Callable[[ResolvingProducer], None] | None = None) -> TransactionalProducer:
        topics = [topic.topic for topic in self._topics.values()]
        with errors(self._settings, "opening a producer"):
            return client_of(self._settings).open_producer(self._settings, self._id, topics, resolve_hanging)

    def send(self, side: InputTopic, records: Sequence[OutRecord]) -> None:
        """See ``Producer.send``.

        Raises:
            BrokerError: Retention would delete a record soon, or what was pending could not be written.
        """
        topic, partitions = self._topics[side].topic, self._topics[side].partitions
        self._refuse_expired_records(self._topics[side], records)
        for record in records:
            self._pending.setdefault((topic, partition_for(record.key, partitions)), []).append(record)
            self._bytes += len(record.key or b"") + len(record.value or b"")
        self._count += len(records)
        if self._count >= PENDING_RECORDS or self._bytes >= PENDING_BYTES:
            self.flush()

    def _refuse_expired_records(self, topic: TopicPlan, records: Sequence[OutRecord]) -> None:
        """Raise BrokerError for a record that retention, which counts from the record's own time, would soon delete."""
        retention_ms = int(topic.config.get("retention.ms", -1))
        if retention_ms < 0 or not records or keeps_time_of_writing(topic.config):
            return
        oldest_ms = min(record.time_ms for record in records)
        if oldest_ms < time.time() * 1000 - retention_ms:
            oldest = datetime.fromtimestamp(oldest_ms / 1000, UTC)
            raise BrokerError(
                f"{topic.topic} deletes records {retention_ms / 86_400_000:.4g} days after their own time; one of "
                f"{oldest:%Y-%m-%d %H:%M} would vanish soon after it was written.",
                hint="For old recordings use topics without a limit: create them with topics.retention_seconds=null, "
                "or set retention.ms of this one to -1.",
            )

    def flush(self) -> None:
        """See ``Producer.flush`` and the steps above."""
        pending, count, self._pending = self._pending, self._count, {}
        self._count = self._bytes = 0
        if pending:
            self._write(pending, count)

    def _write(self, pending: dict[tuple[str, int], list[OutRecord]], count: int) -> None:
        """Write records exactly once, in as many attempts as it takes; see the steps above."""
        policy = RetryPolicy(
            f"Writing {count:,} records, all or none,",
            give_up_s=self._settings.broker.give_up_seconds,
            clock=time.monotonic,
        )
        last_offsets: dict[TopicPartition, int] = {}  # of the attempt's records, once acknowledged
        while True:
            try:
                if self._producer is None:
                    # After this the last attempt is committed or aborted for good.
                    resolve = partial(self._resolve_hanging, written=pending, last_offsets=last_offsets)
                    self._producer = self._open(resolve)
                    if last_offsets and self._is_committed(last_offsets):
                        return
                last_offsets = {}
                with errors(self._settings, f"writing {count:,} records"):
                    last_offsets = self._append(self._producer, pending)
                    self._producer.end_transaction(self._settings.broker.give_up_seconds)
            except BrokerError as error:
                self._abandon()
                cause = error.__cause__
                # The client raises a plain KafkaError where a coordinator did not answer in time.
                if (
                    not last_offsets
                    and not isinstance(cause, _RETRIABLE)
                    and type(cause) is not kafka_errors.KafkaError
                ):
                    raise
                time.sleep(policy.failed(error))
            else:
                return

    def _append(
        self, producer: TransactionalProducer, pending: dict[tuple[str, int], list[OutRecord]]
    ) -> dict[TopicPartition, int]:
        """Write everything in a transaction that stays open; return the offset of each partition's last record."""
        timeout_s = self._settings.broker.transaction_timeout_seconds
        producer.begin_transaction()
        sent = {TopicPartition(*key): producer.send_batches(*key, records) for key, records in pending.items()}
        producer.flush(timeout_s)
        producer.check([batch for batches in sent.values() for batch in batches])
        return {partition: producer.last_offset(batches) for partition, batches in sent.items()}

    def _resolve_hanging(
        self, producer: ResolvingProducer, written: Iterable[tuple[str, int]], last_offsets: dict[TopicPartition, int]
    ) -> None:
        """End what the last attempt left open as its other partitions ended; abort it where none has.

        In the latter case no reader has seen anything of it. See ``resolve_hanging_transactions``.
        """

        def committed(still_open: dict[TopicPartition, int]) -> Collection[TopicPartition]:
            ended = {partition: last for partition, last in last_offsets.items() if partition not in still_open}
            return still_open if ended and self._is_committed(ended) else ()

        partitions = [TopicPartition(*key) for key in written]
        resolve_hanging_transactions(self._settings, producer, partitions, committed)

    def _is_committed(self, last_offsets: dict[TopicPartition, int]) -> bool:
        """Return whether the records at these offsets can be read; checks one, since their transaction has ended."""
        (topic, partition), offset = next(iter(last_offsets.items()))
        with errors(self._settings, f"reading {topic}"):
            reader = PartitionReader(self._settings, topic, [partition], start=offset)
            with closing(reader):
                return any(record.offset == offset for record in reader.read_until_stable())

    def _abandon(self) -> None:
        if self._producer is not None:
            self._producer.abandon()
            self._producer = None

    def close(self) -> None:
        """See ``Producer.close``."""
        try:
            self.flush()
        finally:
            if self._producer is not None:
                self._producer.close(timeout=self._settings.broker.transaction_timeout_seconds)
                self._producer = None
