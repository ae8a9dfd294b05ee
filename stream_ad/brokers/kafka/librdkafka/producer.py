"""librdkafka's transactional producer."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import KafkaException, Producer
from confluent_kafka import TopicPartition as RdPartition
from kafka import errors as kafka_errors

from stream_ad.brokers.kafka.client_api import kafka_python_of
from stream_ad.brokers.kafka.connection import BATCH_BYTES, MAX_RECORD_BYTES, RETRY_BACKOFF_MS, connect_timeout_ms
from stream_ad.brokers.kafka.librdkafka.config import ConnectionMonitor, common_config, translate, translated_errors
from stream_ad.brokers.kafka.librdkafka.group_metadata import pack
from stream_ad.brokers.kafka.limits import within

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from confluent_kafka import KafkaError, Message
    from kafka import OffsetAndMetadata, TopicPartition
    from kafka.structs import ConsumerGroupMetadata

    from stream_ad.brokers.kafka.client_api import ResolvingProducer
    from stream_ad.records.columns import OutRecord
    from stream_ad.settings import Settings

LINGER_MS = 5  # until flush
_POLL_INTERVAL_S = 0.1  # between checks of the connection during a flush
_NO_LIMIT = 0  # the program itself bounds the records of a transaction


class Sent:
    """Delivery reports of the records of one ``send_batches``, in their order."""

    def __init__(self, count: int) -> None:
        self.waiting = count
        self.last: Message | None = None
        self.error: KafkaError | None = None

    def report(self, error: KafkaError | None, message: Message) -> None:
        """Note the delivery of a record; the client calls this once per record."""
        self.waiting -= 1
        if error is not None:
            self.error = self.error or error
        else:
            self.last = message


class LibrdkafkaProducer:
    """See ``client_api.TransactionalProducer``.

    Unlike kafka-python, the library itself refuses to commit a transaction in which a record failed. That every record
    was acknowledged is checked all the same.

    A coordinator that dies may leave a transaction open in some of its partitions although it has acknowledged its end
    (``hanging_transactions``). If the next transaction then failed there, the previous one would be aborted with it. So
    once a connection breaks, nothing more is written, and the next producer with this id resolves what was left open.
    """

    def __init__(self, producer: Producer, monitor: ConnectionMonitor) -> None:
        self._producer, self._monitor = producer, monitor

    def last_error(self) -> BaseException | None:
        """Begin another transaction to learn the error that made the producer unusable; None where there is none.

        The records of a fenced producer may fail as purged before the library itself reports the fencing.
        """
        try:
            self._producer.begin_transaction()
        except KafkaException as error:
            return translate(error.args[0]) if error.args[0].fatal() else None
        return None

    def begin_transaction(self) -> None:
        """See ``TransactionalProducer.begin_transaction``."""
        with translated_errors():
            self._producer.begin_transaction()
            self._producer.poll(0)
        self._must_be_connected()

    def _must_be_connected(self) -> None:
        if self._monitor.broken:
            raise kafka_errors.KafkaConnectionError(self._monitor.broken)

    def send_batches(
        self,
        topic: str,
        partition: int,
        records: Sequence[OutRecord],
        *,
        plain: bool = False,  # noqa: ARG002 (this client has no choice)
    ) -> list[Sent]:
        """See ``TransactionalProducer.send_batches``."""
        if not records:
            return []
        sent = Sent(len(records))
        produce, report = self._producer.produce, sent.report
        with translated_errors():
            for key, value, time_ms, headers in records:  # keyword arguments would take a quarter of the time
                if headers:
                    produce(topic, value, key, partition, report, report, time_ms, list(headers))
                else:
                    produce(topic, value, key, partition, report, report, time_ms)
        return [sent]

    def flush(self, timeout_s: float) -> None:
        """See ``TransactionalProducer.flush``."""
        deadline = time.monotonic() + timeout_s
        with translated_errors():
            while left := self._producer.flush(_POLL_INTERVAL_S):
                self._must_be_connected()  # a broker takes longer to restart than this check to notice
                if time.monotonic() > deadline:
                    raise kafka_errors.KafkaTimeoutError(f"{left} records were not acknowledged in {timeout_s:g} s")

    def check(self, sent: Sequence[Sent]) -> None:
        """See ``TransactionalProducer.check``."""
        for reports in sent:
            if reports.error is not None:
                raise translate(reports.error)
            if reports.waiting:
                raise kafka_errors.KafkaTimeoutError(f"{reports.waiting} records were not acknowledged")

    def last_offset(self, sent: Sequence[Sent]) -> int:
        """See ``TransactionalProducer.last_offset``."""
        message = sent[-1].last
        assert message is not None, "call check first"
        return int(message.offset() or 0)

    def send_offsets(
        self, timeout_s: float, offsets: Mapping[TopicPartition, OffsetAndMetadata], group: ConsumerGroupMetadata
    ) -> None:
        """See ``TransactionalProducer.send_offsets``."""
        positions = [
            RdPartition(partition.topic, partition.partition, position.offset, metadata=position.metadata)
            for partition, position in offsets.items()
        ]
        with translated_errors():
            within(timeout_s, self._producer.send_offsets_to_transaction, positions, pack(group), timeout_s)

    def end_transaction(self, timeout_s: float) -> None:
        """See ``TransactionalProducer.end_transaction``."""
        with translated_errors():
            within(timeout_s, self._producer.commit_transaction, timeout_s)

    def abandon(self) -> None:
        """See ``TransactionalProducer.abandon``."""
        with suppress(kafka_errors.KafkaError), translated_errors():
            self._producer.purge(blocking=False)
        self._producer = cast(
            Producer, _Gone()
        )  # dropping the last reference destroys the client without aborting the transaction

    def close(self, timeout: float) -> None:
        """See ``TransactionalProducer.close``."""
        with suppress(kafka_errors.KafkaError), translated_errors():
            self._producer.flush(timeout)
        self.abandon()


class _Gone:
    """The replacement of an abandoned producer, which refuses every call."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("this producer was abandoned")


def open_producer(
    settings: Settings,
    transactional_id: str,
    topics: Collection[str],
    resolve_hanging: Callable[[ResolvingProducer], None] | None = None,
) -> LibrdkafkaProducer:
    """See ``client_api.Client``."""
    if resolve_hanging is not None:
        resolver = kafka_python_of(settings).open_producer(settings, transactional_id, topics, resolve_hanging)
        resolver.close(timeout=settings.broker.transaction_timeout_seconds)
    timeout_ms = int(settings.broker.transaction_timeout_seconds * 1000)
    monitor = ConnectionMonitor()
    config = common_config(settings) | {
        "logger": monitor,
        "transactional.id": transactional_id,
        "transaction.timeout.ms": timeout_ms,
        "delivery.timeout.ms": timeout_ms,
        "socket.timeout.ms": min(max(10, timeout_ms // 2), 300_000),  # the most that the library accepts
        "compression.type": "lz4",
        "batch.size": BATCH_BYTES,
        "batch.num.messages": 1_000_000,
        "linger.ms": min(LINGER_MS, timeout_ms // 4),
        "retry.backoff.ms": RETRY_BACKOFF_MS,
        "message.max.bytes": MAX_RECORD_BYTES,
        "queue.buffering.max.messages": _NO_LIMIT,
        "queue.buffering.max.kbytes": 2**31 - 1,
    }
    with translated_errors():
        producer = Producer(config)
        timeout_s = connect_timeout_ms(settings) / 1000
        within(timeout_s, producer.init_transactions, timeout_s)
        producer.poll(0)
    monitor.broken = ""  # nothing was written over connections that broke before
    return LibrdkafkaProducer(producer, monitor)
