"""kafka-python's producer, given whole batches, with limits where it would wait for ever."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from kafka import KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.producer.producer_batch import ProducerBatch
from kafka.record.memory_records import MemoryRecordsBuilder

from stream_ad.brokers.kafka_client import connect, patience_ms
from stream_ad.brokers.kafka_format import FORMAT, Body, encode

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from kafka.structs import ConsumerGroupMetadata

    from stream_ad.columns import OutRecord
    from stream_ad.settings import Settings

LINGER_MS = 20  # flush ends it; keeps the first few records of a step from going alone
MAX_RECORD_BYTES = 64 * 1024 * 1024  # the topic's own max.message.bytes decides
BATCH_BYTES = 512 * 1024  # one batch per partition is under way at a time: small ones cost a round trip each


class BatchProducer(KafkaProducer):  # type: ignore[misc]
    """See ``kafka_clients.TransactionalProducer``."""

    def learn(self, topics: Collection[str]) -> None:
        """Find out where topics are, which must be known before their first batch; all in one request."""
        for topic in topics:
            self._sender.add_topic(topic)
        for topic in topics:
            self.partitions_for(topic)

    def send_batches(self, topic: str, partition: int, records: Sequence[OutRecord]) -> list[Any]:
        """Hand records to the sender as whole batches; returns their futures."""
        if not records:
            return []
        target = TopicPartition(topic, partition)
        self._transaction_manager.maybe_add_partition_to_transaction(target)
        batches = [self._batch(target, body) for body in encode(records, BATCH_BYTES)]
        accumulator = self._accumulator
        with accumulator._tp_lock(target):  # noqa: SLF001
            for batch in batches:
                accumulator._batches[target].append(batch)  # noqa: SLF001
                accumulator._incomplete.add(batch)  # noqa: SLF001
        self._sender.wakeup()
        return [batch.produce_future for batch in batches]

    def _batch(self, target: TopicPartition, body: Body) -> ProducerBatch:
        builder = MemoryRecordsBuilder(FORMAT, self.config["compression_attrs"], BATCH_BYTES)
        builder._next_offset = body.count  # noqa: SLF001
        inner = builder._builder  # noqa: SLF001
        inner._buffer += body.data  # noqa: SLF001
        inner._num_records = body.count  # noqa: SLF001
        inner._last_offset = body.count - 1  # noqa: SLF001
        inner._first_timestamp = body.first_time_ms  # noqa: SLF001
        inner._max_timestamp = body.max_time_ms  # noqa: SLF001
        return ProducerBatch(target, builder)

    def check(self, futures: Sequence[Any]) -> None:
        for future in futures:
            if not future.is_done:  # it was cut into smaller ones, which may have been taken or not
                raise kafka_errors.MessageSizeTooLargeError(f"{future.topic_partition} takes no batches of this size")
            _, _, error_of = future.value
            if error_of is not None:
                raise error_of(0)

    def first_offset(self, futures: Sequence[Any]) -> int:
        return int(futures[0].value[0])

    def send_offsets(self, timeout_s: float, offsets: dict[TopicPartition, Any], group: ConsumerGroupMetadata) -> None:
        self._within(timeout_s, self._transaction_manager.send_offsets_to_transaction(offsets, group))

    def end_transaction(self, timeout_s: float) -> None:
        self._within(timeout_s, self._transaction_manager.begin_commit())

    def _within(self, timeout_s: float, result: Any) -> None:
        self._sender.wakeup()
        if not result.wait(timeout_ms=timeout_s * 1000):
            raise kafka_errors.KafkaTimeoutError(f"no answer of a coordinator in {timeout_s:g} s")

    @property
    def last_error(self) -> BaseException | None:
        """What put the producer out of use, if anything has."""
        error: BaseException | None = self._transaction_manager.last_error
        return error

    def abandon(self) -> None:
        self._sender.force_close()
        self._sender.join(1.0)
        with suppress(kafka_errors.KafkaError):
            self.close(timeout=0)


def open_producer(settings: Settings, transactional_id: str, topics: Collection[str]) -> BatchProducer:
    """A producer that has taken over its transactional id: what was open under it is aborted, whoever had it is fenced.

    Args:
        topics: Where it is going to write.

    Raises:
        BrokerError: Kafka did not answer.
        KafkaError: It refuses.
    """
    timeout_ms = int(settings.broker.transaction_timeout_seconds * 1000)
    producer: BatchProducer = connect(
        BatchProducer,
        settings,
        transactional_id=transactional_id,
        transaction_timeout_ms=timeout_ms,
        delivery_timeout_ms=timeout_ms,
        request_timeout_ms=max(1, timeout_ms // 2),
        max_block_ms=patience_ms(settings),
        acks="all",
        compression_type="lz4",
        batch_size=BATCH_BYTES,
        linger_ms=min(LINGER_MS, timeout_ms // 4),
        max_request_size=MAX_RECORD_BYTES,
        allow_auto_create_topics=False,
        metrics_enabled=False,
    )
    try:
        producer.learn(topics)
        producer.init_transactions()
    except BaseException:
        producer.abandon()
        raise
    return producer
