"""kafka-python's producer, which sends whole batches, with time limits where it would wait without one."""

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

    from stream_ad.brokers.kafka.client_api import ResolvingProducer
    from stream_ad.records.columns import OutRecord
    from stream_ad.settings import Settings

_POLL_INTERVAL_S = 0.002  # between checks whether partitions were added to the transaction


class Sent(NamedTuple):
    """A batch that was handed to the sender."""

    future: Any  # its value begins with the offset of the first record
    records: int


class _Added:
    """A result that is ready once partitions belong to the transaction; waits like the client's own results."""

    def __init__(self, manager: Any, partitions: Collection[TopicPartition]) -> None:
        self._manager, self._partitions = manager, partitions

    def wait(self, timeout_ms: float) -> bool:
        """Return False where the result is not ready in time."""
        deadline = time.monotonic() + timeout_ms / 1000
        while not all(self._manager.is_partition_added(partition) for partition in self._partitions):
            if self._manager.last_error is not None:
                raise self._manager.last_error
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_INTERVAL_S)
        return True


class _LastTransaction:
    """The last transaction: its partitions, and the connection over which its coordinator was asked to end it."""

    def __init__(self) -> None:
        self.partitions: set[TopicPartition] = set()
        self.connection: Any = None


class KafkaPythonProducer(KafkaProducer):  # type: ignore[misc]
    """See ``client_api.ResolvingProducer``.

    A coordinator that dies may leave a transaction open in some of its partitions although it has acknowledged its end
    (``hanging_transactions``). If the next transaction then failed there, the previous one would be aborted with it. So
    where the connection to the coordinator has broken since a transaction ended, its end is repeated before the next
    one begins; and where the connection breaks before the next one has begun, the producer is unusable.
    """

    _last: _LastTransaction | None = None

    def watch_coordinator(self) -> None:
        """From now on, make the producer unusable where the coordinator goes away before a transaction has begun."""
        manager = self._transaction_manager
        look_up = manager._lookup_coordinator  # noqa: SLF001

        def watched_look_up(kind: CoordinatorType, key: str) -> None:
            begins = manager._current_state == TransactionState.IN_TRANSACTION  # noqa: SLF001
            if kind == CoordinatorType.TRANSACTION and begins and not manager._partitions_in_transaction:  # noqa: SLF001
                manager.transition_to_fatal_error(
                    kafka_errors.KafkaConnectionError("the coordinator went away before a transaction had begun")
                )
            look_up(kind, key)

        manager._lookup_coordinator = watched_look_up  # noqa: SLF001

    def begin_transaction(self) -> None:
        """See ``TransactionalProducer.begin_transaction``; first ends the last one again where its end may be lost."""
        last = self._last
        if last is not None and (last.connection is None or last.connection is not self._coordinator_connection()):
            timeout_s = self.config["transaction_timeout_ms"] / 1000
            self.end_open_transactions(
                timeout_s, last.partitions, commit=True
            )  # lost offsets: see hanging_transactions
        super().begin_transaction()
        self._last = _LastTransaction()

    def _coordinator_connection(self) -> Any:
        """Return the connection to the transaction coordinator; None where there is none."""
        node = self._transaction_manager.coordinator(CoordinatorType.TRANSACTION)
        return self._sender._client._manager._conns.get(node)  # noqa: SLF001

    def load_metadata(self, topics: Collection[str]) -> None:
        """Load the metadata of topics, which their first batch needs, in one request."""
        for topic in topics:
            self._sender.add_topic(topic)
        for topic in topics:
            self.partitions_for(topic)

    def send_batches(
        self, topic: str, partition: int, records: Sequence[OutRecord], *, plain: bool = False
    ) -> list[Sent]:
        """See ``TransactionalProducer.send_batches``."""
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
        """See ``TransactionalProducer.check``."""
        for future, _ in sent:
            if not future.is_done:  # split into smaller ones, which may or may not have been accepted
                raise kafka_errors.MessageSizeTooLargeError(f"{future.topic_partition} accepts no batches of this size")
            _, _, error_of = future.value
            if error_of is not None:
                raise error_of(0)

    def last_offset(self, sent: Sequence[Sent]) -> int:
        """See ``TransactionalProducer.last_offset``."""
        future, records = sent[-1]
        return int(future.value[0]) + records - 1

    def send_offsets(self, timeout_s: float, offsets: dict[TopicPartition, Any], group: ConsumerGroupMetadata) -> None:
        """See ``TransactionalProducer.send_offsets``."""
        self._within(timeout_s, self._transaction_manager.send_offsets_to_transaction(offsets, group))

    def end_transaction(self, timeout_s: float) -> None:
        """See ``TransactionalProducer.end_transaction``."""
        if self._last is not None:
            self._last.connection = self._coordinator_connection()
        self._within(timeout_s, self._transaction_manager.begin_commit())

    def end_open_transactions(
        self,
        timeout_s: float,
        partitions: Collection[TopicPartition],
        offsets: dict[TopicPartition, Any] | None = None,
        group: ConsumerGroupMetadata | None = None,
        *,
        commit: bool,
    ) -> None:
        """See ``ResolvingProducer.end_open_transactions``: runs a transaction that writes no record."""
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
        """Return the error that made the producer unusable; None where there is none."""
        error: BaseException | None = self._transaction_manager.last_error
        return error

    def abandon(self) -> None:
        """See ``TransactionalProducer.abandon``."""
        self._sender.force_close()
        self._sender.join(1.0)
        with suppress(kafka_errors.KafkaError):
            self.close(timeout=0)


def open_producer(
    settings: Settings,
    transactional_id: str,
    topics: Collection[str],
    resolve_hanging: Callable[[ResolvingProducer], None] | None = None,
) -> KafkaPythonProducer:
    """See ``client_api.Client``."""
    options = producer_options(settings, transactional_id)
    producer: KafkaPythonProducer = connect(KafkaPythonProducer, settings, **options)
    try:
        producer.load_metadata(topics)
        producer.init_transactions()
        if resolve_hanging is not None:
            resolve_hanging(producer)
        producer.watch_coordinator()
    except BaseException:
        producer.abandon()
        raise
    return producer
