"""kafka-python's producer, given whole batches, with limits where it would wait for ever."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from kafka import KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.producer.producer_batch import ProducerBatch
from kafka.producer.transaction_manager import CoordinatorType, TransactionState
from kafka.record.memory_records import MemoryRecordsBuilder

from stream_ad.brokers.kafka.connection import BATCH_BYTES, connect, producer_options
from stream_ad.brokers.kafka.kafka_python.record_batch import FORMAT, Body, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from kafka.structs import ConsumerGroupMetadata

    from stream_ad.brokers.kafka.client_api import SettlingProducer
    from stream_ad.records.columns import OutRecord
    from stream_ad.settings import Settings

_LOOK_S = 0.002


class Sent(NamedTuple):
    """A batch that was handed over."""

    future: Any  # its value: offset of the first record, …
    records: int


class _Added:
    """Waits like the client's own results until partitions belong to the transaction."""

    def __init__(self, manager: Any, partitions: Collection[TopicPartition]) -> None:
        self._manager, self._partitions = manager, partitions

    def wait(self, timeout_ms: float) -> bool:
        deadline = time.monotonic() + timeout_ms / 1000
        while not all(self._manager.is_partition_added(partition) for partition in self._partitions):
            if self._manager.last_error is not None:
                raise self._manager.last_error
            if time.monotonic() > deadline:
                return False
            time.sleep(_LOOK_S)
        return True


class _Last:
    """The last transaction: where it wrote, and the connection over which its coordinator was asked to end it."""

    def __init__(self) -> None:
        self.partitions: set[TopicPartition] = set()
        self.link: Any = None


class KafkaPythonProducer(KafkaProducer):  # type: ignore[misc]
    """See ``kafka_clients.TransactionalProducer``.

    A coordinator that dies may leave a transaction open in some of its partitions although it has acknowledged its
    end (kafka_settle). If the next transaction then failed there, it would take the one before along. So its end is
    told once more where the connection to the coordinator has broken meanwhile; and where it breaks before the next
    one has begun, the producer is of no further use.
    """

    _last: _Last | None = None

    def watch(self) -> None:
        """Look out for coordinators that go away, from now on."""
        manager = self._transaction_manager
        look_up = manager._lookup_coordinator  # noqa: SLF001

        def looked_up(kind: CoordinatorType, key: str) -> None:
            begins = manager._current_state == TransactionState.IN_TRANSACTION  # noqa: SLF001
            if kind == CoordinatorType.TRANSACTION and begins and not manager._partitions_in_transaction:  # noqa: SLF001
                manager.transition_to_fatal_error(
                    kafka_errors.KafkaConnectionError("the coordinator went away before a transaction had begun")
                )
            look_up(kind, key)

        manager._lookup_coordinator = looked_up  # noqa: SLF001

    def begin_transaction(self) -> None:
        last = self._last
        if last is not None and (last.link is None or last.link is not self._link()):
            timeout_s = self.config["transaction_timeout_ms"] / 1000
            self.end_open(timeout_s, last.partitions, commit=True)  # offsets that were lost: see kafka_settle
        super().begin_transaction()
        self._last = _Last()

    def _link(self) -> Any:
        """The connection to the transaction's coordinator; None where there is none now."""
        node = self._transaction_manager.coordinator(CoordinatorType.TRANSACTION)
        return self._sender._client._manager._conns.get(node)  # noqa: SLF001

    def learn(self, topics: Collection[str]) -> None:
        """Find out where topics are, which must be known before their first batch; all in one request."""
        for topic in topics:
            self._sender.add_topic(topic)
        for topic in topics:
            self.partitions_for(topic)

    def send_batches(
        self, topic: str, partition: int, records: Sequence[OutRecord], *, plain: bool = False
    ) -> list[Sent]:
        """Hand records to the sender as whole batches; returns what will become of each."""
        if not records:
            return []
        target = TopicPartition(topic, partition)
        if self._last is not None:
            self._last.partitions.add(target)
        self._transaction_manager.maybe_add_partition_to_transaction(target)
        bodies = list(encode(records, BATCH_BYTES))
        batches = [self._batch(target, body, 0 if plain else self.config["compression_attrs"]) for body in bodies]
        accumulator = self._accumulator
        with accumulator._tp_lock(target):  # noqa: SLF001
            for batch in batches:
                accumulator._batches[target].append(batch)  # noqa: SLF001
                accumulator._incomplete.add(batch)  # noqa: SLF001
        self._sender.wakeup()
        return [Sent(batch.produce_future, body.count) for batch, body in zip(batches, bodies, strict=True)]

    def _batch(self, target: TopicPartition, body: Body, compression: int) -> ProducerBatch:
        builder = MemoryRecordsBuilder(FORMAT, compression, BATCH_BYTES)
        builder._next_offset = body.count  # noqa: SLF001
        inner = builder._builder  # noqa: SLF001
        inner._buffer += body.data  # noqa: SLF001
        inner._num_records = body.count  # noqa: SLF001
        inner._last_offset = body.count - 1  # noqa: SLF001
        inner._first_timestamp = body.first_time_ms  # noqa: SLF001
        inner._max_timestamp = body.max_time_ms  # noqa: SLF001
        return ProducerBatch(target, builder)

    def check(self, sent: Sequence[Sent]) -> None:
        for future, _ in sent:
            if not future.is_done:  # it was cut into smaller ones, which may have been taken or not
                raise kafka_errors.MessageSizeTooLargeError(f"{future.topic_partition} takes no batches of this size")
            _, _, error_of = future.value
            if error_of is not None:
                raise error_of(0)

    def last_offset(self, sent: Sequence[Sent]) -> int:
        future, records = sent[-1]
        return int(future.value[0]) + records - 1

    def send_offsets(self, timeout_s: float, offsets: dict[TopicPartition, Any], group: ConsumerGroupMetadata) -> None:
        self._within(timeout_s, self._transaction_manager.send_offsets_to_transaction(offsets, group))

    def end_transaction(self, timeout_s: float) -> None:
        if self._last is not None:
            self._last.link = self._link()
        self._within(timeout_s, self._transaction_manager.begin_commit())

    def end_open(
        self,
        timeout_s: float,
        partitions: Collection[TopicPartition],
        offsets: dict[TopicPartition, Any] | None = None,
        group: ConsumerGroupMetadata | None = None,
        *,
        commit: bool,
    ) -> None:
        """A transaction that writes no record: what is open of this producer in some partitions, and of its offsets in
        a group, ends with it.
        """
        self._last = None
        super().begin_transaction()
        manager = self._transaction_manager
        for partition in partitions:
            manager.maybe_add_partition_to_transaction(partition)
        if partitions:
            self._within(timeout_s, _Added(manager, partitions))
        if offsets and group is not None:
            self.send_offsets(timeout_s, offsets, group)
        self._within(timeout_s, manager.begin_commit() if commit else manager.begin_abort())

    def _within(self, timeout_s: float, result: Any) -> None:
        self._sender.wakeup()
        if not result.wait(timeout_ms=timeout_s * 1000):
            raise kafka_errors.KafkaTimeoutError(f"no answer of a coordinator in {timeout_s:g} s")

    @property
    def producer_id(self) -> int:
        """Kafka's number for the transactional id."""
        return int(self._transaction_manager.producer_id_and_epoch.producer_id)

    def last_error(self) -> BaseException | None:
        """What put the producer out of use, if anything has."""
        error: BaseException | None = self._transaction_manager.last_error
        return error

    def abandon(self) -> None:
        self._sender.force_close()
        self._sender.join(1.0)
        with suppress(kafka_errors.KafkaError):
            self.close(timeout=0)


def open_producer(
    settings: Settings,
    transactional_id: str,
    topics: Collection[str],
    settle: Callable[[SettlingProducer], None] | None = None,
) -> KafkaPythonProducer:
    """See ``kafka_clients.Client``."""
    options = producer_options(settings, transactional_id)
    producer: KafkaPythonProducer = connect(KafkaPythonProducer, settings, **options)
    try:
        producer.learn(topics)
        producer.init_transactions()
        if settle is not None:
            settle(producer)
        producer.watch()
    except BaseException:
        producer.abandon()
        raise
    return producer
