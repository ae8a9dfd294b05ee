"""The client library that reads and writes records on Kafka: ``broker.client`` is looked at here and nowhere else.

What the program needs of a client are the protocols below. All clients speak kafka-python's words: its
``TopicPartition`` and ``ConsumerGroupMetadata``, and its errors, whatever the client itself raises. Topics are looked
at and made, and single partitions read from their beginning, with kafka-python either way. kafka-python itself is used
below its API where its version is known, and over its public interface alone where it is not (kafka_insides).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from stream_ad.brokers.kafka.private_names import fast
from stream_ad.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from kafka import OffsetAndMetadata, TopicPartition
    from kafka.structs import ConsumerGroupMetadata

    from stream_ad.brokers.kafka.membership import Membership
    from stream_ad.records.columns import OutRecord, RawRecords
    from stream_ad.settings import Settings


class OffsetAsker(Protocol):
    """Answers, on the thread that made it, how far partitions reach."""

    def end_offsets(
        self, partitions: Collection[TopicPartition], timeout_ms: int | None = None
    ) -> dict[TopicPartition, int]: ...
    def close(self) -> None: ...


class GroupConsumer(Protocol):
    """A member of the application's consumer group; reads committed records from where it is told to.

    Raises kafka-python's errors. Methods that are not explained are kafka-python's.
    """

    def join(self, topics: Collection[str], listener: Membership) -> None:
        """Join the group; the listener is told of partitions given and taken, during ``fetch`` or between two."""

    def fetch(self, timeout_s: float, max_records: int) -> dict[TopicPartition, RawRecords]:
        """Next records of the partitions that are not paused; empty when none came in time."""

    def group_metadata(self) -> ConsumerGroupMetadata:
        """The membership now; generation -1 where it is lost."""

    def open_asker(self) -> OffsetAsker:
        """A way to ask for end offsets on another thread, which calls this: most clients are of one thread alone.

        Raises:
            BrokerError: Kafka did not answer.
        """

    def may_meet_itself(self) -> bool:
        """Whether a membership under its instance_id that was taken over may have been so by this very client, which
        joins again by itself then.
        """

    def request_rejoin(self) -> None:
        """See to it that a rebalance that has begun is gone through with the next ``fetch``."""

    def topic_ids(self, topics: Collection[str]) -> dict[str, Any]:
        """What tells a topic from another of its name; None where it is not known now."""

    def assignment(self) -> set[TopicPartition]: ...
    def paused(self) -> set[TopicPartition]: ...
    def pause(self, *partitions: TopicPartition) -> None: ...
    def resume(self, *partitions: TopicPartition) -> None: ...
    def seek(self, partition: TopicPartition, offset: int) -> None: ...

    def position(self, partition: TopicPartition) -> int:
        """Where it reads on: after the records given out and the ends of transactions behind them."""

    def committed(self, partition: TopicPartition, *, timeout_ms: int | None = None) -> int | None: ...
    def beginning_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]: ...
    def end_offsets(
        self, partitions: Collection[TopicPartition], timeout_ms: int | None = None
    ) -> dict[TopicPartition, int]: ...
    def close(self, *, timeout_ms: int) -> None: ...


class TransactionalProducer(Protocol):
    """Writes records in transactions; after any error it is to be abandoned. Raises kafka-python's errors."""

    def last_error(self) -> BaseException | None:
        """After an error: what put it out of use, if that is known better than by what was raised. May ask the client
        for another transaction to learn it.
        """

    def begin_transaction(self) -> None: ...

    def send_batches(
        self, topic: str, partition: int, records: Sequence[OutRecord], *, plain: bool = False
    ) -> list[Any]:
        """Hand records over; what it returns is for ``check`` and ``last_offset``.

        Args:
            plain: They are not worth compressing, if the client has a choice.
        """

    def flush(self, timeout_s: float) -> None:
        """Return once everything sent is acknowledged or refused; KafkaTimeoutError where that takes too long."""

    def check(self, sent: Sequence[Any]) -> None:
        """After ``flush``: raise unless every record was acknowledged."""

    def last_offset(self, sent: Sequence[Any]) -> int:
        """After ``check``: the offset of the last record of a ``send_batches``."""

    def send_offsets(
        self, timeout_s: float, offsets: Mapping[TopicPartition, OffsetAndMetadata], group: ConsumerGroupMetadata
    ) -> None: ...

    def end_transaction(self, timeout_s: float) -> None:
        """Commit it. When this raises, nobody knows whether it is committed."""

    def abandon(self) -> None:
        """Close at once; what is under way is lost, as it must be."""

    def close(self, timeout: float) -> None:
        """Close in good order, after the end of a transaction."""


class SettlingProducer(TransactionalProducer, Protocol):
    """One that can end what earlier transactions of its id have left open; see kafka_settle."""

    @property
    def producer_id(self) -> int:
        """Kafka's number for the transactional id."""

    def end_open(
        self,
        timeout_s: float,
        partitions: Collection[TopicPartition],
        offsets: dict[TopicPartition, OffsetAndMetadata] | None = None,
        group: ConsumerGroupMetadata | None = None,
        *,
        commit: bool,
    ) -> None:
        """A transaction of which nobody sees a record: what is open of this producer in some partitions, and of its
        offsets in a group, ends with it.
        """


class Client(Protocol):
    """A module with both."""

    def open_consumer(self, settings: Settings) -> GroupConsumer: ...
    def open_producer(
        self,
        settings: Settings,
        transactional_id: str,
        topics: Collection[str],
        settle: Callable[[SettlingProducer], None] | None = None,
    ) -> TransactionalProducer:
        """A producer that has taken over its transactional id: what was open under it is aborted, whoever had it is
        fenced.

        Args:
            topics: Where it is going to write.
            settle: Ends what Kafka left open under the id (kafka_settle), by a producer of kafka-python: librdkafka
                cannot end a transaction where it writes nothing.

        Raises:
            BrokerError: Kafka did not answer.
            KafkaError: It refuses.
        """


def client_of(settings: Settings) -> Client:
    """The client that ``broker.client`` names.

    Raises:
        SettingsError: It is not installed.
    """
    if settings.broker.client == "librdkafka":
        try:
            from stream_ad.brokers.kafka import librdkafka  # noqa: PLC0415 -- an extra
        except ImportError as error:
            raise SettingsError(
                f"broker.client is librdkafka, whose package confluent-kafka cannot be imported ({error}).",
                hint='Install it: pip install "stream-ad[librdkafka]". Or set broker.client to kafka-python.',
            ) from error
        return librdkafka
    return kafka_python_of(settings)


def kafka_python_of(settings: Settings) -> Client:
    """kafka-python, below its API where that is safe, else over its public interface."""
    if fast(settings):
        from stream_ad.brokers.kafka import kafka_python  # noqa: PLC0415 -- only the client that is chosen is imported

        return kafka_python
    from stream_ad.brokers.kafka import kafka_python_public as kafka_public  # noqa: PLC0415

    return kafka_public
