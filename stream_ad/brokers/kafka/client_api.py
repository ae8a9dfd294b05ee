"""The interface to client libraries that read and write records on Kafka; ``broker.client`` is evaluated only here.

The protocols below are what the program needs of a client. All clients use the types of kafka-python, such as
``TopicPartition`` and ``ConsumerGroupMetadata``, and raise its errors, whatever the library itself raises. Topics are
administered, and single partitions read, with kafka-python in any case. kafka-python itself is used below its API where
its version is supported, and over its public interface alone where it is not (``private_names``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from stream_ad.brokers.kafka.private_names import may_use_private_names
from stream_ad.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from kafka import OffsetAndMetadata, TopicPartition
    from kafka.structs import ConsumerGroupMetadata

    from stream_ad.brokers.kafka.membership import Membership
    from stream_ad.records.columns import OutRecord, RawRecords
    from stream_ad.settings import Settings


class OffsetClient(Protocol):
    """A client for end offsets, used on the thread that opened it."""

    def end_offsets(
        self, partitions: Collection[TopicPartition], timeout_ms: int | None = None
    ) -> dict[TopicPartition, int]:
        """Return the last stable offsets, by partition."""

    def close(self) -> None:
        """Close the client."""


class GroupConsumer(Protocol):
    """A member of the application's consumer group, which reads committed records from the positions it is given.

    Raises kafka-python's errors.
    """

    def join(self, topics: Collection[str], listener: Membership) -> None:
        """Join the group.

        Args:
            topics: Names of the topics to subscribe to.
            listener: Called with assigned and revoked partitions, during ``fetch`` or between two calls of it.
        """

    def fetch(self, timeout_s: float, max_records: int) -> dict[TopicPartition, RawRecords]:
        """Return the next records of partitions that are not paused; empty after ``timeout_s`` seconds without any."""

    def group_metadata(self) -> ConsumerGroupMetadata:
        """Return the present membership; its generation is -1 where it is lost."""

    def open_offset_client(self) -> OffsetClient:
        """Open a client for end offsets on the calling thread: most clients must not be shared between threads.

        Raises:
            BrokerError: Kafka did not answer.
        """

    def may_have_fenced_itself(self) -> bool:
        """Return whether a membership fenced under its instance_id may have been fenced by this very client.

        Such a client joins again by itself.
        """

    def request_rejoin(self) -> None:
        """Make the next ``fetch`` complete a rebalance that has begun."""

    def topic_ids(self, topics: Collection[str]) -> dict[str, Any]:
        """Return the ids of topics, which distinguish a recreated topic from its predecessor; None while unknown."""

    def assignment(self) -> set[TopicPartition]:
        """Return the assigned partitions."""

    def paused(self) -> set[TopicPartition]:
        """Return the paused partitions."""

    def pause(self, *partitions: TopicPartition) -> None:
        """Stop fetching partitions until ``resume``; a new assignment is not paused."""

    def resume(self, *partitions: TopicPartition) -> None:
        """Fetch paused partitions again."""

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Continue reading an assigned partition from an offset."""

    def position(self, partition: TopicPartition) -> int:
        """Return the next offset to read: behind the records returned and the transaction markers that follow them."""

    def committed(self, partition: TopicPartition, *, timeout_ms: int | None = None) -> int | None:
        """Return the group's committed offset of a partition; None where there is none."""

    def beginning_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the oldest offsets kept, by partition."""

    def end_offsets(
        self, partitions: Collection[TopicPartition], timeout_ms: int | None = None
    ) -> dict[TopicPartition, int]:
        """Return the last stable offsets, by partition."""

    def close(self, *, timeout_ms: int) -> None:
        """Leave the group and close the client."""


class TransactionalProducer(Protocol):
    """A producer that writes records in transactions; to be abandoned after any error. Raises kafka-python's errors."""

    def last_error(self) -> BaseException | None:
        """Return the error that made the producer unusable, where it says more than the one raised; else None.

        Call after an error only. May begin another transaction to learn the error.
        """

    def begin_transaction(self) -> None:
        """Begin a transaction."""

    def send_batches(
        self, topic: str, partition: int, records: Sequence[OutRecord], *, plain: bool = False
    ) -> list[Any]:
        """Hand records of one partition over to be sent.

        Args:
            topic: The topic's name.
            partition: The partition's number.
            records: In the order in which they are to be written.
            plain: Send them uncompressed, where the client has the choice.

        Returns:
            What ``check`` and ``last_offset`` need; empty where there are no records.
        """

    def flush(self, timeout_s: float) -> None:
        """Return once everything sent is acknowledged or refused.

        Raises:
            KafkaTimeoutError: That took longer than ``timeout_s`` seconds.
        """

    def check(self, sent: Sequence[Any]) -> None:
        """Raise unless every record was acknowledged; call after ``flush``."""

    def last_offset(self, sent: Sequence[Any]) -> int:
        """Return the offset of the last record of one ``send_batches``; call after ``check``."""

    def send_offsets(
        self, timeout_s: float, offsets: Mapping[TopicPartition, OffsetAndMetadata], group: ConsumerGroupMetadata
    ) -> None:
        """Add the offsets of a group to the transaction, within ``timeout_s`` seconds."""

    def end_transaction(self, timeout_s: float) -> None:
        """Commit the transaction, within ``timeout_s`` seconds. When this raises, the outcome is unknown."""

    def abandon(self) -> None:
        """Close at once; an open transaction is lost."""

    def close(self, timeout: float) -> None:
        """Close in good order, after the end of a transaction."""


class ResolvingProducer(TransactionalProducer, Protocol):
    """A producer that can end what earlier transactions of its id left open; see ``hanging_transactions``."""

    @property
    def producer_id(self) -> int:
        """Kafka's number for the transactional id."""

    def end_open_transactions(
        self,
        timeout_s: float,
        partitions: Collection[TopicPartition],
        offsets: dict[TopicPartition, OffsetAndMetadata] | None = None,
        group: ConsumerGroupMetadata | None = None,
        *,
        commit: bool,
    ) -> None:
        """Run a transaction without visible records, which ends what is open of this producer.

        Args:
            timeout_s: Seconds for each request.
            partitions: Partitions where a transaction is open.
            offsets: Offsets to send with the transaction, which ends pending ones.
            group: The group of the offsets.
            commit: Whether to commit what is open; else it is aborted.
        """


class Client(Protocol):
    """A client library: a module with both functions."""

    def open_consumer(self, settings: Settings) -> GroupConsumer:
        """Open a consumer of the application's group that has not joined yet.

        Raises:
            BrokerError: Kafka did not answer, or refuses.
        """

    def open_producer(
        self,
        settings: Settings,
        transactional_id: str,
        topics: Collection[str],
        resolve_hanging: Callable[[ResolvingProducer], None] | None = None,
    ) -> TransactionalProducer:
        """Open a producer that has taken over its transactional id: aborts open transactions, fences earlier owners.

        Args:
            settings: Of the application.
            transactional_id: Its transactional id.
            topics: Names of the topics that it will write to.
            resolve_hanging: Ends what Kafka left open under the id (``hanging_transactions``). It is called with a
                producer of kafka-python in any case: librdkafka cannot end a transaction where it writes nothing.

        Raises:
            BrokerError: Kafka did not answer.
            KafkaError: It refuses.
        """


def client_of(settings: Settings) -> Client:
    """Return the client that ``broker.client`` names.

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
    """Return kafka-python: used below its API where its version is supported, else over its public interface."""
    if may_use_private_names(settings):
        from stream_ad.brokers.kafka import kafka_python  # noqa: PLC0415 -- only the client that is chosen is imported

        return kafka_python
    from stream_ad.brokers.kafka import kafka_python_public as kafka_public  # noqa: PLC0415

    return kafka_public
