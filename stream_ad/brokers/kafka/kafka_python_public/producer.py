"""kafka-python's producer over its public interface: one future per record, and time limits for calls without one."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING, Any

from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors

from stream_ad.brokers.kafka.connection import connect, producer_options
from stream_ad.brokers.kafka.hanging_transactions import open_transactions, partition_names
from stream_ad.brokers.kafka.limits import GRACE_S, within
from stream_ad.brokers.kafka.private_names import TESTED
from stream_ad.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from kafka import OffsetAndMetadata
    from kafka.structs import ConsumerGroupMetadata

    from stream_ad.brokers.kafka.client_api import ResolvingProducer
    from stream_ad.records.columns import OutRecord
    from stream_ad.settings import Settings

Sent = list[Any]
"""The future of each record."""
_POLL_INTERVAL_S = 0.005  # between checks whether the last transaction has ended


class PublicProducer:
    """See ``client_api.ResolvingProducer``.

    A coordinator that dies may leave a transaction open in some of its partitions although it has acknowledged its end
    (``hanging_transactions``). If the next transaction then failed there, the previous one would be aborted with it. So
    before another one begins, Kafka is asked whether the last one has ended in every partition. Where it stays open,
    this producer is unusable, and the next producer with its id resolves what was left open.
    """

    def __init__(self, settings: Settings, transactional_id: str, topics: Collection[str]) -> None:
        self._id = transactional_id
        self._topics = list(topics)
        self._timeout_s = settings.broker.transaction_timeout_seconds
        self._written: set[TopicPartition] = set()  # by the last transaction
        options = producer_options(settings, transactional_id)
        self._admin: KafkaAdminClient = connect(
            KafkaAdminClient, settings, request_timeout_ms=options["request_timeout_ms"]
        )
        try:
            self._producer: KafkaProducer = connect(KafkaProducer, settings, **options)
        except BaseException:
            self._admin.close()
            raise

    def take_over(self) -> None:
        """Load the topics' metadata, and fence the earlier owner of the transactional id."""
        with ThreadPoolExecutor(
            len(self._topics)
        ) as threads:  # one after the other, each would wait for a response of its own
            list(threads.map(self._producer.partitions_for, self._topics))
        self._producer.init_transactions()

    @property
    def producer_id(self) -> int:
        """See ``ResolvingProducer.producer_id``."""
        return int(self._admin.describe_transactions([self._id])[self._id].producer_id)

    def last_error(self) -> BaseException | None:
        """Send a record to learn the error that made the producer unusable; None where there is none.

        It is the second argument of the error that sending raises.
        """
        try:
            self._producer.send(self._topics[0], b"", b"", partition=0)
        except kafka_errors.KafkaError as error:
            return next((reason for reason in error.args[1:] if isinstance(reason, BaseException)), None)
        return None

    def begin_transaction(self) -> None:
        """See ``TransactionalProducer.begin_transaction``."""
        self._await_end()
        self._producer.begin_transaction()

    def _await_end(self) -> None:
        """Wait until the last transaction has ended in its partitions: Kafka acknowledges its end before that."""
        deadline = time.monotonic() + self._timeout_s
        while self._written and (still_open := open_transactions(self._admin, self._written)):
            producer_id = self.producer_id
            hanging = [partition for partition, starts in still_open.items() if producer_id in starts]
            if not hanging:
                break
            if time.monotonic() > deadline:
                raise kafka_errors.KafkaConnectionError(
                    f"the last transaction does not end in {partition_names(hanging)}"
                )
            time.sleep(_POLL_INTERVAL_S)
        self._written = set()

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
        send = self._producer.send
        futures = [
            send(topic, value, key, list(headers), partition, time_ms) for key, value, time_ms, headers in records
        ]
        self._written.add(TopicPartition(topic, partition))
        return [futures]

    def flush(self, timeout_s: float) -> None:
        """See ``TransactionalProducer.flush``."""
        self._producer.flush(timeout_s)

    def check(self, sent: Sequence[Sent]) -> None:
        """See ``TransactionalProducer.check``."""
        for futures in sent:
            for future in futures:
                future.get(timeout=0)

    def last_offset(self, sent: Sequence[Sent]) -> int:
        """See ``TransactionalProducer.last_offset``."""
        return int(sent[-1][-1].get(timeout=0).offset)

    def send_offsets(
        self, timeout_s: float, offsets: Mapping[TopicPartition, OffsetAndMetadata], group: ConsumerGroupMetadata
    ) -> None:
        """See ``TransactionalProducer.send_offsets``."""
        within(timeout_s, self._producer.send_offsets_to_transaction, offsets, group)

    def end_transaction(self, timeout_s: float) -> None:
        """See ``TransactionalProducer.end_transaction``."""
        within(timeout_s, self._producer.commit_transaction)

    def end_open_transactions(
        self,
        timeout_s: float,
        partitions: Collection[TopicPartition],
        offsets: dict[TopicPartition, OffsetAndMetadata] | None = None,
        group: ConsumerGroupMetadata | None = None,
        *,
        commit: bool,
    ) -> None:
        """See ``ResolvingProducer.end_open_transactions``: aborts with a record that no reader sees.

        Raises:
            BrokerError: To commit would need a record that every reader sees.
        """
        if commit and partitions:
            raise BrokerError(
                f"Kafka keeps a transaction open that was committed, in {partition_names(partitions)}; "
                "kafka-python's public interface cannot end it.",
                hint=f"Nothing is lost. Start a worker once with broker.client=kafka-python and the package "
                f"kafka-python=={TESTED[-1]}, which can.",
            )
        self._written = set()
        self._producer.begin_transaction()
        sent = [self._producer.send(target.topic, b"", b"", partition=target.partition) for target in partitions]
        self.flush(timeout_s)
        self.check([sent])
        if offsets and group is not None:
            self.send_offsets(timeout_s, offsets, group)
        within(timeout_s, self._producer.commit_transaction if commit else self._producer.abort_transaction)

    def close(self, timeout: float) -> None:
        """See ``TransactionalProducer.close``."""
        try:
            self._producer.close(timeout=timeout)
        finally:
            self._admin.close()

    def abandon(self) -> None:
        """Close the client in the background.

        It ends by itself once its records are too old to be sent. Whatever it still writes until then belongs to a
        transaction that the next producer with its id ends before anything is read.
        """
        Thread(target=self._end, name="end of a producer", daemon=True).start()

    def _end(self) -> None:
        with suppress(kafka_errors.KafkaError):
            self.close(self._timeout_s + GRACE_S)


def open_producer(
    settings: Settings,
    transactional_id: str,
    topics: Collection[str],
    resolve_hanging: Callable[[ResolvingProducer], None] | None = None,
) -> PublicProducer:
    """See ``client_api.Client``."""
    producer = PublicProducer(settings, transactional_id, topics)
    try:
        producer.take_over()
        if resolve_hanging is not None:
            resolve_hanging(producer)
    except BaseException:
        producer.abandon()
        raise
    return producer
