"""Reading partitions of Kafka outside the consumer group, up to what is committed now."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from kafka.coordinator.assignors.range import RangePartitionAssignor

from stream_ad.brokers.kafka.connection import HEARTBEAT_S, REQUEST_MS, connect, retry_while_unavailable
from stream_ad.errors import BrokerError, TopicError
from stream_ad.records.columns import RawRecords

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from stream_ad.settings import Settings

FETCH_MAX_WAIT_MS = 25  # of a fetch that finds nothing: it delays the next one, of the other input, by as much
METADATA_MS = 60_000  # age of metadata, after which added partitions are noticed
_STALLED_S = 30.0  # without a record although there are more
_WAIT_MS = 10  # short, since a reader polls only where there are more records
_POLL_RECORDS = 10_000
_POLL_INTERVAL_S = 0.02  # between checks for new records


def consumer_options() -> dict[str, Any]:
    """Return the options of every consumer of the program."""
    return {
        "isolation_level": "read_committed",
        "enable_auto_commit": False,
        "auto_offset_reset": "none",  # a position that is gone is an error, never a silent jump
        "allow_auto_create_topics": False,
        "fetch_max_wait_ms": FETCH_MAX_WAIT_MS,
        "request_timeout_ms": REQUEST_MS,
        "metadata_max_age_ms": METADATA_MS,
        "metrics_enabled": False,
    }


def group_options(settings: Settings) -> dict[str, Any]:
    """Return the additional options of a member of the application's consumer group."""
    broker = settings.broker
    return {
        "group_id": settings.application_id,
        "group_instance_id": broker.instance_id,
        "session_timeout_ms": int(broker.session_timeout_seconds * 1000),
        "heartbeat_interval_ms": int(min(HEARTBEAT_S, broker.session_timeout_seconds / 3) * 1000),
        "max_poll_interval_ms": int(broker.max_poll_interval_seconds * 1000),
        # assigns the same partitions of both topics to the same worker
        "partition_assignment_strategy": [RangePartitionAssignor],
    }


class CommittedConsumer(KafkaConsumer):  # type: ignore[misc]
    """kafka-python's consumer, raising LeaderNotAvailableError where a partition has no leader to ask for offsets.

    The client itself leaves such a partition out of its answer, and then fails with a KeyError.
    """

    def beginning_offsets(
        self, partitions: Collection[TopicPartition], timeout_ms: int | None = None
    ) -> dict[TopicPartition, int]:
        """Return the oldest offsets kept, by partition."""
        return _of_all(super().beginning_offsets, partitions, timeout_ms)

    def end_offsets(
        self, partitions: Collection[TopicPartition], timeout_ms: int | None = None
    ) -> dict[TopicPartition, int]:
        """Return the last stable offsets, by partition."""
        return _of_all(super().end_offsets, partitions, timeout_ms)


def open_offset_client(settings: Settings) -> CommittedConsumer:
    """Open a client for end offsets; see ``client_api.GroupConsumer.open_offset_client``."""
    client: CommittedConsumer = connect(CommittedConsumer, settings, **consumer_options())
    return client


def _of_all(
    ask: Callable[..., dict[TopicPartition, int]], partitions: Collection[TopicPartition], timeout_ms: int | None
) -> dict[TopicPartition, int]:
    try:
        return ask(partitions, timeout_ms)
    except KeyError as error:
        missing = error.args[0]
        raise kafka_errors.LeaderNotAvailableError(
            f"partition {missing.partition} of {missing.topic} has no leader now, or is gone"
        ) from error


def raw_records(partition: TopicPartition, records: list[tuple[int, int, bytes | None, bytes | None]]) -> RawRecords:
    """Return one partition's records as columns.

    Args:
        partition: Whose records they are.
        records: Offset, time in milliseconds, key and value of each record; at least one.
    """
    offsets, times, keys, values = zip(*records, strict=True)
    return RawRecords(
        partition.topic,
        partition.partition,
        np.array(offsets, dtype=np.int64),
        np.array(times, dtype=np.int64),
        keys,
        values,
    )


class PartitionReader:
    """A reader of committed records of some partitions of a topic.

    Args:
        settings: Of the application.
        topic: The topic's name.
        partitions: Numbers of the partitions; None for all that the topic has.
        start: Offset to begin with in each partition; None for the oldest one kept.

    Raises:
        TopicError: There is no such topic.
    """

    def __init__(
        self, settings: Settings, topic: str, partitions: Iterable[int] | None = None, *, start: int | None = None
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._consumer: CommittedConsumer = connect(
            CommittedConsumer,
            settings,
            **consumer_options() | {"fetch_max_wait_ms": _WAIT_MS, "max_partition_fetch_bytes": 8 * 1024 * 1024},
        )
        try:
            numbers = self._all_partitions() if partitions is None else partitions
            self._partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
            self._consumer.assign(self._partitions)
            for partition, offset in retry_while_unavailable(
                lambda: self._consumer.beginning_offsets(self._partitions)
            ).items():
                self._consumer.seek(partition, offset if start is None else start)
        except BaseException:
            self.close()
            raise

    def _all_partitions(self) -> set[int]:
        for _ in range(3):  # an answer in flight may not include the topic yet
            if numbers := retry_while_unavailable(lambda: self._consumer.partitions_for_topic(self._topic)):
                return set(numbers)
        raise TopicError(f"There is no topic {self._topic} on Kafka.", hint="Run `stream-ad topics apply`.")

    def seek_to_time(self, time_ms: int) -> None:
        """Continue each partition with its first record of this time or later, or at its end where there is none."""
        ends = self._ends()  # first: a record that is written meanwhile is read later
        first = retry_while_unavailable(
            lambda: self._consumer.offsets_for_times(dict.fromkeys(self._partitions, time_ms))
        )
        for partition in self._partitions:
            at = first.get(partition)
            self._consumer.seek(partition, ends[partition] if at is None else at.offset)

    def seek_to_newest(self, count: int) -> None:
        """Continue each partition before its newest ``count`` records; each may be followed by a transaction marker."""
        oldest = retry_while_unavailable(lambda: self._consumer.beginning_offsets(self._partitions))
        for partition, end in self._ends().items():
            self._consumer.seek(partition, max(oldest[partition], end - 2 * count))

    def _ends(self) -> dict[TopicPartition, int]:
        """Return the ends of what is committed now."""
        return retry_while_unavailable(lambda: self._consumer.end_offsets(self._partitions))

    def read(self, *, timeout_s: float = 0.0, limit: int | None = None) -> Iterator[Any]:
        """Yield the client's records from where the last call ended up to what is committed now.

        Args:
            timeout_s: Seconds to wait for the first record when there is none.
            limit: Most records; None for no limit.

        Raises:
            BrokerError: No record came for half a minute although there are more.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            any_read = False
            for record in self._read_to(self._ends(), limit):
                any_read = True
                yield record
            if any_read or time.monotonic() >= deadline:
                return
            time.sleep(_POLL_INTERVAL_S)

    def read_until_stable(self) -> Iterator[Any]:
        """Yield records up to the end of everything written now, once it is committed or aborted.

        An open transaction of another producer hides what was committed after it began; this waits for its end.
        """
        yield from self._read_until(lambda: len(self._highwaters()) == len(self._partitions))
        yield from self._read_to(self._highwaters())

    def _highwaters(self) -> dict[TopicPartition, int]:
        """Return the high watermarks, which include open transactions, of the partitions fetched so far."""
        ends = {partition: self._consumer.highwater(partition) for partition in self._partitions}
        return {partition: end for partition, end in ends.items() if end is not None}

    def _read_to(self, ends: Mapping[TopicPartition, int], limit: int | None = None) -> Iterator[Any]:
        return self._read_until(
            lambda: all(self._consumer.position(partition) >= end for partition, end in ends.items()), limit
        )

    def _read_until(self, enough: Callable[[], bool], limit: int | None = None) -> Iterator[Any]:
        stalled, count = time.monotonic() + _STALLED_S, 0
        while not enough() and (limit is None or count < limit):
            most = _POLL_RECORDS if limit is None else min(limit - count, _POLL_RECORDS)
            for records in self._consumer.poll(timeout_ms=_WAIT_MS, max_records=most).values():
                yield from records
                count += len(records)
                stalled = time.monotonic() + _STALLED_S
            if time.monotonic() > stalled:
                raise BrokerError(
                    f"Topic {self._topic} could not be read to its end.",
                    hint="Check that Kafka and its disks are well, and that no transaction on it stays open.",
                )

    def close(self) -> None:
        """Close the client."""
        self._consumer.close()
