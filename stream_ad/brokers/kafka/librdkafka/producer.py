"""librdkafka's transactional producer."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import KafkaException, Producer
from confluent_kafka import TopicPartition as RdPartition
from kafka import errors as kafka_errors

from stream_ad.brokers.kafka.client_api import kafka_python_of
from stream_ad.brokers.kafka.connection import BATCH_BYTES, MAX_RECORD_BYTES, RETRY_BACKOFF_MS, patience_ms
from stream_ad.brokers.kafka.librdkafka.config import ConnectionMonitor, common_config, in_our_words, translated_errors
from stream_ad.brokers.kafka.librdkafka.group_metadata import pack
from stream_ad.brokers.kafka.limits import within

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from confluent_kafka import KafkaError, Message
    from kafka import OffsetAndMetadata, TopicPartition
    from kafka.structs import ConsumerGroupMetadata

    from stream_ad.brokers.kafka.client_api import SettlingProducer
    from stream_ad.records.columns import OutRecord
    from stream_ad.settings import Settings

LINGER_MS = 5  # flush ends it
_LOOK_S = 0.1
_NO_LIMIT = 0  # the program bounds a transaction by itself


class Sent:
    """What has become of the records of one topic, in their order."""

    def __init__(self, count: int) -> None:
        self.waiting = count
        self.last: Message | None = None
        self.error: KafkaError | None = None

    def report(self, error: KafkaError | None, message: Message) -> None:
        """The client calls it once for every record."""
        self.waiting -= 1
        if error is not None:
            self.error = self.error or error
        else:
            self.last = message


class LibrdkafkaProducer:
    """See ``kafka_clients.TransactionalProducer``.

    Unlike kafka-python it refuses by itself to commit a transaction of which a record has failed; that every record was
    acknowledged is checked all the same.

    A coordinator that dies may leave a transaction open in some of its partitions although it has acknowledged its
    end (kafka_settle). If the next transaction then failed there, it would take the one before along. So where a
    connection breaks, nothing more is written, and whoever opens the next producer settles what was left.
    """

    def __init__(self, producer: Producer, watch: ConnectionMonitor) -> None:
        self._producer, self._watch = producer, watch

    def last_error(self) -> BaseException | None:
        # Records of a producer that was fenced may fail one by one, as purged, before it says so itself; asked for
        # another transaction it does.
        try:
            self._producer.begin_transaction()
        except KafkaException as error:
            return in_our_words(error.args[0]) if error.args[0].fatal() else None
        return None

    def begin_transaction(self) -> None:
        with translated_errors():
            self._producer.begin_transaction()
            self._producer.poll(0)
        self._must_be_connected()

    def _must_be_connected(self) -> None:
        if self._watch.broken:
            raise kafka_errors.KafkaConnectionError(self._watch.broken)

    def send_batches(
        self,
        topic: str,
        partition: int,
        records: Sequence[OutRecord],
        *,
        plain: bool = False,  # noqa: ARG002 (this client has no choice)
    ) -> list[Sent]:
        if not records:
            return []
        sent = Sent(len(records))
        produce, report = self._producer.produce, sent.report
        with translated_errors():
            for key, value, time_ms, headers in records:  # names of arguments would take a quarter of the time
                if headers:
                    produce(topic, value, key, partition, report, report, time_ms, list(headers))
                else:
                    produce(topic, value, key, partition, report, report, time_ms)
        return [sent]

    def flush(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        with translated_errors():
            while left := self._producer.flush(_LOOK_S):
                self._must_be_connected()  # a broker takes longer to come back than this takes to see that it went
                if time.monotonic() > deadline:
                    raise kafka_errors.KafkaTimeoutError(f"{left} records were not acknowledged in {timeout_s:g} s")

    def check(self, sent: Sequence[Sent]) -> None:
        for one in sent:
            if one.error is not None:
                raise in_our_words(one.error)
            if one.waiting:
                raise kafka_errors.KafkaTimeoutError(f"{one.waiting} records were not acknowledged")

    def last_offset(self, sent: Sequence[Sent]) -> int:
        message = sent[-1].last
        assert message is not None, "check comes before"
        return int(message.offset() or 0)

    def send_offsets(
        self, timeout_s: float, offsets: Mapping[TopicPartition, OffsetAndMetadata], group: ConsumerGroupMetadata
    ) -> None:
        positions = [
            RdPartition(place.topic, place.partition, position.offset, metadata=position.metadata)
            for place, position in offsets.items()
        ]
        with translated_errors():
            within(timeout_s, self._producer.send_offsets_to_transaction, positions, pack(group), timeout_s)

    def end_transaction(self, timeout_s: float) -> None:
        with translated_errors():
            within(timeout_s, self._producer.commit_transaction, timeout_s)

    def abandon(self) -> None:
        with suppress(kafka_errors.KafkaError), translated_errors():
            self._producer.purge(blocking=False)
        self._producer = cast(Producer, _Gone())  # the last reference: the library ends it without a word to Kafka

    def close(self, timeout: float) -> None:
        with suppress(kafka_errors.KafkaError), translated_errors():
            self._producer.flush(timeout)
        self.abandon()


class _Gone:
    """In the place of a producer that was abandoned."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("this producer was abandoned")


def open_producer(
    settings: Settings,
    transactional_id: str,
    topics: Collection[str],
    settle: Callable[[SettlingProducer], None] | None = None,
) -> LibrdkafkaProducer:
    """See ``kafka_clients.Client``."""
    if settle is not None:
        settler = kafka_python_of(settings).open_producer(settings, transactional_id, topics, settle)
        settler.close(timeout=settings.broker.transaction_timeout_seconds)
    timeout_ms = int(settings.broker.transaction_timeout_seconds * 1000)
    watch = ConnectionMonitor()
    config = common_config(settings) | {
        "logger": watch,
        "transactional.id": transactional_id,
        "transaction.timeout.ms": timeout_ms,
        "delivery.timeout.ms": timeout_ms,
        "socket.timeout.ms": min(max(10, timeout_ms // 2), 300_000),  # all that the library takes
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
        patience_s = patience_ms(settings) / 1000
        within(patience_s, producer.init_transactions, patience_s)
        producer.poll(0)
    watch.broken = ""  # nothing was written over what broke before
    return LibrdkafkaProducer(producer, watch)
