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
    open_asker,
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
_LEAST_MS = 8  # of a poll: one that does not wait leaves a rebalance where it is
_REBALANCE_MS = 1_000  # of a poll: what a rebalance comes to between two polls the client (3.0.12) throws away
_METADATA_MS = 5_000  # a partition whose leader has just come is looked for so often
_ADMIN_MS = 1_000
_LOOK_S = 0.5  # between looks whether a topic was made anew
_STUCK_S = 5.0  # of a rebalance that does not end
_POLL_S = 0.2  # between two polls while there are records to be given out

log = structlog.get_logger(__name__)


class PublicConsumer:
    """See ``kafka_clients.GroupConsumer``.

    The client (3.0.12) puts the rest of a fetch aside when its partition is paused, and may never take it up again.
    So each poll takes all that was fetched. What is more than was asked for waits here, and its partition is paused
    until it was given out.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = self._connected()
        try:
            self._admin: KafkaAdminClient = connect(KafkaAdminClient, settings, request_timeout_ms=_ADMIN_MS)
        except BaseException:
            self._client.close(timeout_ms=0)
            raise
        self._lock = RLock()  # rebalances are told on a thread of the client
        self._waiting: dict[TopicPartition, list[Any]] = {}  # records not given out; those whose turn is next first
        self._held: set[TopicPartition] = set()  # paused by the program
        self._ids: dict[str, Any] = {}
        self._in_doubt, self._look_due = True, 0.0
        self._rebalancing_since: float | None = None
        self._polled_at = float("-inf")

    def _connected(self, **more: Any) -> CommittedConsumer:
        options = consumer_options() | group_options(self._settings) | {"metadata_max_age_ms": _METADATA_MS}
        client: CommittedConsumer = connect(CommittedConsumer, self._settings, **options, **more)
        return client

    # ------------------------------------------------------------------ group

    def join(self, topics: Collection[str], listener: Membership) -> None:
        self._topics, self._members = list(topics), listener
        self._subscribe()
        retry_while_unavailable(
            self._client.topics
        )  # a leader that joins before it knows the partitions must join again at once

    def _subscribe(self) -> None:
        self._listener = _Listener(self, self._members)
        self._client.subscribe(topics=self._topics, listener=self._listener)

    def group_metadata(self) -> ConsumerGroupMetadata:
        return self._client.group_metadata()

    def open_asker(self) -> CommittedConsumer:
        return open_asker(self._settings)

    def may_meet_itself(self) -> bool:
        return False

    def request_rejoin(self) -> None:
        """Let another client join in the place of this one where a rebalance does not end: the client may have
        forgotten that it began one.
        """
        now = time.monotonic()
        if self._rebalancing_since is None:
            self._rebalancing_since = now
        elif now - self._rebalancing_since > _STUCK_S:
            self._rebalancing_since = None
            with suppress(UnreachableError):  # Kafka is away, which is why
                self._begin_anew()

    def _begin_anew(self) -> None:
        fresh = self._connected(bootstrap_timeout_ms=_ADMIN_MS)
        log.warning("The rebalance of the group does not end; joining anew")
        old, gone = self._client, self.assignment()
        self._listener.silent = True
        self._client = fresh
        Thread(target=old.close, name="end of a consumer", daemon=True).start()  # it waits for the end of the rebalance
        self.assigned()
        self.keep_only(())
        self._members.on_partitions_lost(gone)
        self._subscribe()

    def assigned(self) -> None:
        """In a new assignment nothing is paused. What waits of the one before goes with the ``seek`` that follows: its
        place must be known until then.
        """
        with self._lock:
            self._held.clear()

    def keep_only(self, partitions: Collection[TopicPartition]) -> None:
        """Drop what waits of all others."""
        with self._lock:
            for gone in self._waiting.keys() - set(partitions):
                del self._waiting[gone]

    # ---------------------------------------------------------------- reading

    def fetch(self, timeout_s: float, max_records: int) -> dict[TopicPartition, RawRecords]:
        if self._rebalances():
            wait_ms = max(int(timeout_s * 1000), _REBALANCE_MS)
        else:
            self._rebalancing_since = None
            wait_ms = max(int(timeout_s * 1000), _LEAST_MS)
            if self._waiting.keys() - self._held:
                wait_ms = 0 if time.monotonic() - self._polled_at < _POLL_S else _LEAST_MS
        try:
            found = self._client.poll(timeout_ms=wait_ms, max_records=_ALL) if wait_ms else {}
        except (kafka_errors.OffsetOutOfRangeError, kafka_errors.UnknownTopicOrPartitionError):
            self._in_doubt = True  # the topic may have been made anew
            raise
        self._polled_at = time.monotonic() if wait_ms else self._polled_at
        self._in_doubt = self._in_doubt or bool(found)
        with self._lock:
            self._store(found)
            taken = {} if self._rebalances() else self._taken(max_records)  # whatever came of it would be refused
        return {partition: raw_records(partition, records) for partition, records in taken.items()}

    def _rebalances(self) -> bool:
        return bool(self._client.group_metadata().state == MemberState.REBALANCING)

    def _store(self, found: Mapping[TopicPartition, list[Any]]) -> None:
        for partition, records in found.items():
            self._waiting.setdefault(partition, []).extend(
                (record.offset, record.timestamp, record.key, record.value) for record in records
            )
        with suppress(KeyError):  # one is just being taken away
            self._client.pause(*found)

    def _taken(self, most: int) -> dict[TopicPartition, list[Any]]:
        taken: dict[TopicPartition, list[Any]] = {}
        for partition in [one for one in self._waiting if one not in self._held]:
            if most <= 0:
                break
            records = self._waiting.pop(partition)
            taken[partition], rest = records[:most], records[most:]
            most -= len(taken[partition])
            if rest:
                self._waiting[partition] = rest
            else:
                self._go_on((partition,))
        return taken

    def _go_on(self, partitions: Collection[TopicPartition]) -> None:
        """Let the client fetch what is neither held nor waits."""
        free = [one for one in partitions if one not in self._held and one not in self._waiting]
        if resumed := self._client.paused() & set(free):
            self._client.resume(*resumed)

    def assignment(self) -> set[TopicPartition]:
        return set(self._client.assignment() or ())

    def paused(self) -> set[TopicPartition]:
        with self._lock:
            return set(self._held)

    def pause(self, *partitions: TopicPartition) -> None:
        with self._lock:
            self._held.update(partitions)
            self._client.pause(*partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        with self._lock:
            self._held.difference_update(partitions)
            self._go_on(partitions)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        with self._lock:
            self._client.seek(partition, offset)
            self._waiting.pop(partition, None)
            self._go_on((partition,))

    def position(self, partition: TopicPartition) -> int:
        with self._lock:
            if waiting := self._waiting.get(partition):
                return int(waiting[0][0])
        return int(self._client.position(partition))

    # ---------------------------------------------------------------- asking

    def topic_ids(self, topics: Collection[str]) -> dict[str, Any]:
        # The client itself goes on with a topic that was made anew: so Kafka is asked after every fetch that has found
        # something, before it is given out.
        if self._in_doubt or time.monotonic() >= self._look_due:
            self._look_due = time.monotonic() + _LOOK_S
            self._ids = dict.fromkeys(topics)
            with suppress(kafka_errors.KafkaError):  # it is not there now, or Kafka is not
                for topic in self._admin.describe_topics(list(topics)):
                    if topic["error_code"] == 0:
                        self._ids[topic["name"]] = topic["topic_id"]
            self._in_doubt = False
        return dict(self._ids)

    def committed(self, partition: TopicPartition, *, timeout_ms: int | None = None) -> int | None:
        position: int | None = self._client.committed(partition, timeout_ms=timeout_ms)
        return position

    def beginning_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return self._client.beginning_offsets(partitions)

    def end_offsets(
        self, partitions: Collection[TopicPartition], timeout_ms: int | None = None
    ) -> dict[TopicPartition, int]:
        return self._client.end_offsets(partitions, timeout_ms)

    def close(self, *, timeout_ms: int) -> None:
        self._client.close(timeout_ms=timeout_ms)
        self._admin.close()


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Passes on to the membership what it must know, and lets go of what waits."""

    def __init__(self, consumer: PublicConsumer, members: Membership) -> None:
        self._consumer, self._members = consumer, members
        self.silent = False  # of a client that has been replaced nothing counts any more

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        if not self.silent:
            self._members.on_partitions_revoked(revoked)

    def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        if not self.silent:
            self._members.on_partitions_lost(lost)

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        if not self.silent:
            self._consumer.assigned()
            self._members.on_partitions_assigned(assigned)
            self._consumer.keep_only(assigned)


def open_consumer(settings: Settings) -> PublicConsumer:
    """As ``kafka_clients.Client``."""
    return PublicConsumer(settings)
