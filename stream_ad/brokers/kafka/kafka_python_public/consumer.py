"""kafka-python's group consumer over its public interface."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from threading import RLock, Thread
from typing import TYPE_CHECKING, Any

import structlog
from kafka import ConsumerRebalanceListener, KafkaAdminClient
from kafka import errors as kafka_errors
from kafka.structs import MemberState

from stream_ad.brokers.kafka.connection import connect, retry_while_unavailable
from stream_ad.brokers.kafka.partition_reader import (
    CommittedConsumer,
    consumer_options,
    group_options,
    open_offset_client,
    raw_records,
)
from stream_ad.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from kafka import TopicPartition
    from kafka.structs import ConsumerGroupMetadata

    from stream_ad.brokers.kafka.membership import Membership
    from stream_ad.records.columns import RawRecords
    from stream_ad.settings import Settings

_ALL = sys.maxsize
_LEAST_MS = 8  # of a poll: one that does not wait makes no progress in a rebalance
_REBALANCE_MS = 1_000  # of a poll: the client (3.0.12) discards the progress of a rebalance between two polls
_METADATA_MS = 5_000  # age of metadata, after which the leader of a partition is looked up again
_ADMIN_MS = 1_000  # for an admin request
_CHECK_INTERVAL_S = 0.5  # between checks whether a topic was recreated
_STUCK_S = 5.0  # of a rebalance, after which the client is replaced
_POLL_S = 0.2  # between two polls while buffered records can be returned

log = structlog.get_logger(__name__)


class PublicConsumer:
    """See ``client_api.GroupConsumer``.

    The client (3.0.12) parks the rest of a fetch when its partition is paused, and may never take it up again. So each
    poll takes everything that was fetched. Records beyond what was asked for are buffered in this object, and their
    partition is paused until they have been returned.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = self._connect()
        try:
            self._admin: KafkaAdminClient = connect(KafkaAdminClient, settings, request_timeout_ms=_ADMIN_MS)
        except BaseException:
            self._client.close(timeout_ms=0)
            raise
        self._lock = RLock()  # the client calls back for rebalances on a thread of its own
        self._buffered: dict[
            TopicPartition, list[Any]
        ] = {}  # records not returned yet; partitions whose turn is next come first
        self._paused: set[TopicPartition] = set()  # paused by the program
        self._ids: dict[str, Any] = {}
        self._in_doubt, self._check_due = True, 0.0
        self._rebalancing_since: float | None = None
        self._polled_at = float("-inf")

    def _connect(self, **more: Any) -> CommittedConsumer:
        options = consumer_options() | group_options(self._settings) | {"metadata_max_age_ms": _METADATA_MS}
        client: CommittedConsumer = connect(CommittedConsumer, self._settings, **options, **more)
        return client

    # ------------------------------------------------------------------ group

    def join(self, topics: Collection[str], listener: Membership) -> None:
        """See ``GroupConsumer.join``."""
        self._topics, self._members = list(topics), listener
        self._subscribe()
        # Fetch metadata first: a group leader that joins before it knows the partitions must join again at once.
        retry_while_unavailable(self._client.topics)

    def _subscribe(self) -> None:
        self._listener = _Listener(self, self._members)
        self._client.subscribe(topics=self._topics, listener=self._listener)

    def group_metadata(self) -> ConsumerGroupMetadata:
        """See ``GroupConsumer.group_metadata``."""
        return self._client.group_metadata()

    def open_offset_client(self) -> CommittedConsumer:
        """See ``GroupConsumer.open_offset_client``."""
        return open_offset_client(self._settings)

    def may_have_fenced_itself(self) -> bool:
        """See ``GroupConsumer.may_have_fenced_itself``."""
        return False

    def request_rejoin(self) -> None:
        """Replace the client where a rebalance does not end: it may not complete one that it has begun."""
        now = time.monotonic()
        if self._rebalancing_since is None:
            self._rebalancing_since = now
        elif now - self._rebalancing_since > _STUCK_S:
            self._rebalancing_since = None
            with suppress(UnreachableError):  # Kafka is unreachable, which is why it does not end
                self._recreate_client()

    def _recreate_client(self) -> None:
        fresh = self._connect(bootstrap_timeout_ms=_ADMIN_MS)
        log.warning("The rebalance of the group does not end; joining again with a new client")
        old, gone = self._client, self.assignment()
        self._listener.silent = True
        self._client = fresh
        Thread(target=old.close, name="end of a consumer", daemon=True).start()  # waits for the end of the rebalance
        self.on_assigned()
        self.keep_only(())
        self._members.on_partitions_lost(gone)
        self._subscribe()

    def on_assigned(self) -> None:
        """Note a new assignment, in which nothing is paused.

        Buffered records of the previous one are dropped by the ``seek`` that follows: until then they determine the
        position.
        """
        with self._lock:
            self._paused.clear()

    def keep_only(self, partitions: Collection[TopicPartition]) -> None:
        """Drop the buffered records of all other partitions."""
        with self._lock:
            for gone in self._buffered.keys() - set(partitions):
                del self._buffered[gone]

    # ---------------------------------------------------------------- reading

    def fetch(self, timeout_s: float, max_records: int) -> dict[TopicPartition, RawRecords]:
        """See ``GroupConsumer.fetch``."""
        if self._is_rebalancing():
            wait_ms = max(int(timeout_s * 1000), _REBALANCE_MS)
        else:
            self._rebalancing_since = None
            wait_ms = max(int(timeout_s * 1000), _LEAST_MS)
            if self._buffered.keys() - self._paused:
                wait_ms = 0 if time.monotonic() - self._polled_at < _POLL_S else _LEAST_MS
        try:
            fetched = self._client.poll(timeout_ms=wait_ms, max_records=_ALL) if wait_ms else {}
        except (kafka_errors.OffsetOutOfRangeError, kafka_errors.UnknownTopicOrPartitionError):
            self._in_doubt = True  # the topic may have been recreated
            raise
        self._polled_at = time.monotonic() if wait_ms else self._polled_at
        self._in_doubt = self._in_doubt or bool(fetched)
        with self._lock:
            self._store(fetched)
            taken = {} if self._is_rebalancing() else self._take(max_records)  # commits of them would be refused
        return {partition: raw_records(partition, records) for partition, records in taken.items()}

    def _is_rebalancing(self) -> bool:
        return bool(self._client.group_metadata().state == MemberState.REBALANCING)

    def _store(self, fetched: Mapping[TopicPartition, list[Any]]) -> None:
        for partition, records in fetched.items():
            self._buffered.setdefault(partition, []).extend(
                (record.offset, record.timestamp, record.key, record.value) for record in records
            )
        with suppress(KeyError):  # a partition is being revoked
            self._client.pause(*fetched)

    def _take(self, most: int) -> dict[TopicPartition, list[Any]]:
        taken: dict[TopicPartition, list[Any]] = {}
        for partition in [partition for partition in self._buffered if partition not in self._paused]:
            if most <= 0:
                break
            records = self._buffered.pop(partition)
            taken[partition], rest = records[:most], records[most:]
            most -= len(taken[partition])
            if rest:
                self._buffered[partition] = rest
            else:
                self._resume_fetching((partition,))
        return taken

    def _resume_fetching(self, partitions: Collection[TopicPartition]) -> None:
        """Let the client fetch partitions that are neither paused nor buffered."""
        free = {p for p in partitions if p not in self._paused and p not in self._buffered}
        if resumed := self._client.paused() & free:
            self._client.resume(*resumed)

    def assignment(self) -> set[TopicPartition]:
        """See ``GroupConsumer.assignment``."""
        return set(self._client.assignment() or ())

    def paused(self) -> set[TopicPartition]:
        """See ``GroupConsumer.paused``."""
        with self._lock:
            return set(self._paused)

    def pause(self, *partitions: TopicPartition) -> None:
        """See ``GroupConsumer.pause``."""
        with self._lock:
            self._paused.update(partitions)
            self._client.pause(*partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        """See ``GroupConsumer.resume``."""
        with self._lock:
            self._paused.difference_update(partitions)
            self._resume_fetching(partitions)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """See ``GroupConsumer.seek``."""
        with self._lock:
            self._client.seek(partition, offset)
            self._buffered.pop(partition, None)
            self._resume_fetching((partition,))

    def position(self, partition: TopicPartition) -> int:
        """See ``GroupConsumer.position``."""
        with self._lock:
            if buffered := self._buffered.get(partition):
                return int(buffered[0][0])
        return int(self._client.position(partition))

    # -------------------------------------------------------------- requests

    def topic_ids(self, topics: Collection[str]) -> dict[str, Any]:
        """Return the ids of topics; None where the topic or Kafka is unavailable.

        The client continues with a recreated topic without an error. So Kafka is asked after every fetch that returned
        records, before they are passed on.
        """
        if self._in_doubt or time.monotonic() >= self._check_due:
            self._check_due = time.monotonic() + _CHECK_INTERVAL_S
            self._ids = dict.fromkeys(topics)
            with suppress(kafka_errors.KafkaError):  # the topic or Kafka is unavailable
                for topic in self._admin.describe_topics(list(topics)):
                    if topic["error_code"] == 0:
                        self._ids[topic["name"]] = topic["topic_id"]
            self._in_doubt = False
        return dict(self._ids)

    def committed(self, partition: TopicPartition, *, timeout_ms: int | None = None) -> int | None:
        """See ``GroupConsumer.committed``."""
        position: int | None = self._client.committed(partition, timeout_ms=timeout_ms)
        return position

    def beginning_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """See ``GroupConsumer.beginning_offsets``."""
        return self._client.beginning_offsets(partitions)

    def end_offsets(
        self, partitions: Collection[TopicPartition], timeout_ms: int | None = None
    ) -> dict[TopicPartition, int]:
        """See ``GroupConsumer.end_offsets``."""
        return self._client.end_offsets(partitions, timeout_ms)

    def close(self, *, timeout_ms: int) -> None:
        """See ``GroupConsumer.close``."""
        self._client.close(timeout_ms=timeout_ms)
        self._admin.close()


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """The listener of one client: forwards rebalances to the membership, and drops buffered records."""

    def __init__(self, consumer: PublicConsumer, members: Membership) -> None:
        self._consumer, self._members = consumer, members
        self.silent = False  # set once the client has been replaced: its callbacks are ignored

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """See ``Membership.on_partitions_revoked``."""
        if not self.silent:
            self._members.on_partitions_revoked(revoked)

    def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        """See ``Membership.on_partitions_lost``."""
        if not self.silent:
            self._members.on_partitions_lost(lost)

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """See ``Membership.on_partitions_assigned``."""
        if not self.silent:
            self._consumer.on_assigned()
            self._members.on_partitions_assigned(assigned)
            self._consumer.keep_only(assigned)


def open_consumer(settings: Settings) -> PublicConsumer:
    """See ``client_api.Client``."""
    return PublicConsumer(settings)
