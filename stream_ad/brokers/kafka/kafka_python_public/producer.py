"""kafka-python's producer over its public interface: a future for every record, and calls without a limit given one."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING, Any

from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors

from stream_ad.brokers.kafka.connection import connect, producer_options
from stream_ad.brokers.kafka.hanging_transactions import names, open_in
from stream_ad.brokers.kafka.limits import GRACE_S, within
from stream_ad.brokers.kafka.private_names import TESTED
from stream_ad.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from kafka import OffsetAndMetadata
    from kafka.structs import ConsumerGroupMetadata

    from stream_ad.brokers.kafka.client_api import SettlingProducer
    from stream_ad.records.columns import OutRecord
    from stream_ad.settings import Settings

Sent = list[Any]
"""A future of each record."""
_LOOK_S = 0.005


class PublicProducer:
    """See ``kafka_clients.SettlingProducer``.

    A coordinator that dies may leave a transaction open in some of its partitions although it has acknowledged its
    end (kafka_settle). If the next transaction then failed there, it would take the one before along. So before
    another one begins, Kafka is asked whether the last one is over in every partition. Where it stays open, this
    producer is of no further use, and whoever opens the next one settles what was left.
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
        """Find out where the topics are, and fence whoever had the transactional id."""
        with ThreadPoolExecutor(len(self._topics)) as threads:  # one by one each would wait for an answer of its own
            list(threads.map(self._producer.partitions_for, self._topics))
        self._producer.init_transactions()

    @property
    def producer_id(self) -> int:
        return int(self._admin.describe_transactions([self._id])[self._id].producer_id)

    def last_error(self) -> BaseException | None:
        # What put it out of use is the second part of the error that it has for whoever sends.
        try:
            self._producer.send(self._topics[0], b"", b"", partition=0)
        except kafka_errors.KafkaError as error:
            return next((reason for reason in error.args[1:] if isinstance(reason, BaseException)), None)
        return None

    def begin_transaction(self) -> None:
        self._await_end()
        self._producer.begin_transaction()

    def _await_end(self) -> None:
        """Kafka acknowledges the end of a transaction first, and then tells its partitions."""
        deadline = time.monotonic() + self._timeout_s
        while self._written and (still_open := open_in(self._admin, self._written)):
            producer_id = self.producer_id
            ours = [place for place, starts in still_open.items() if producer_id in starts]
            if not ours:
                break
            if time.monotonic() > deadline:
                raise kafka_errors.KafkaConnectionError(f"the last transaction does not end in {names(ours)}")
            time.sleep(_LOOK_S)
        self._written = set()

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
        send = self._producer.send
        futures = [
            send(topic, value, key, list(headers), partition, time_ms) for key, value, time_ms, headers in records
        ]
        self._written.add(TopicPartition(topic, partition))
        return [futures]

    def flush(self, timeout_s: float) -> None:
        self._producer.flush(timeout_s)

    def check(self, sent: Sequence[Sent]) -> None:
        for futures in sent:
            for future in futures:
                future.get(timeout=0)

    def last_offset(self, sent: Sequence[Sent]) -> int:
        return int(sent[-1][-1].get(timeout=0).offset)

    def send_offsets(
        self, timeout_s: float, offsets: Mapping[TopicPartition, OffsetAndMetadata], group: ConsumerGroupMetadata
    ) -> None:
        within(timeout_s, self._producer.send_offsets_to_transaction, offsets, group)

    def end_transaction(self, timeout_s: float) -> None:
        within(timeout_s, self._producer.commit_transaction)

    def end_open(
        self,
        timeout_s: float,
        partitions: Collection[TopicPartition],
        offsets: dict[TopicPartition, OffsetAndMetadata] | None = None,
        group: ConsumerGroupMetadata | None = None,
        *,
        commit: bool,
    ) -> None:
        """As of ``SettlingProducer``: what is aborted is so along with a record that nobody sees.

        Raises:
            BrokerError: It would be committed along with a record that everybody sees.
        """
        if commit and partitions:
            raise BrokerError(
                f"Kafka keeps a transaction open that was committed, in {names(partitions)}; to end it as it should, "
                "kafka-python's public interface is not enough.",
                hint=f"Nothing is lost. Start a worker once with broker.client=kafka-python and the package "
                f"kafka-python=={TESTED[-1]}, which can.",
            )
        self._written = set()
        self._producer.begin_transaction()
        sent = [self._producer.send(one.topic, b"", b"", partition=one.partition) for one in partitions]
        self.flush(timeout_s)
        self.check([sent])
        if offsets and group is not None:
            self.send_offsets(timeout_s, offsets, group)
        within(timeout_s, self._producer.commit_transaction if commit else self._producer.abort_transaction)

    def close(self, timeout: float) -> None:
        try:
            self._producer.close(timeout=timeout)
        finally:
            self._admin.close()

    def abandon(self) -> None:
        # It ends by itself once its records are too old to be sent. What it may still do until then is in a
        # transaction that the next producer of its name ends before anything is read.
        Thread(target=self._end, name="end of a producer", daemon=True).start()

    def _end(self) -> None:
        with suppress(kafka_errors.KafkaError):
            self.close(self._timeout_s + GRACE_S)


def open_producer(
    settings: Settings,
    transactional_id: str,
    topics: Collection[str],
    settle: Callable[[SettlingProducer], None] | None = None,
) -> PublicProducer:
    """As ``kafka_clients.Client``."""
    producer = PublicProducer(settings, transactional_id, topics)
    try:
        producer.take_over()
        if settle is not None:
            settle(producer)
    except BaseException:
        producer.abandon()
        raise
    return producer
