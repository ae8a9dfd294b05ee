"""Apache Kafka as the broker: a consumer group shares the shards, a transaction makes each commit.

Facts about the clients that shaped this: a transaction is only as good as the check of every record
before it ends (kafka_shard); the membership that goes into it must be the one of the last poll, since
an empty one is not checked by Kafka; after any error the producer is replaced. Which client it is: kafka_clients.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import structlog
from kafka import errors as kafka_errors
from kafka.structs import MemberState

from stream_ad.brokers.commit_handle import AsyncCommit
from stream_ad.brokers.kafka import state_topic as kafka_state
from stream_ad.brokers.kafka.client_api import client_of
from stream_ad.brokers.kafka.connection import GONE_HINT, errors, patience_ms
from stream_ad.brokers.kafka.end_offsets import EndOffsets
from stream_ad.brokers.kafka.membership import Membership
from stream_ad.brokers.kafka.shard_reader import committed_positions, input_bounds, read_state
from stream_ad.brokers.kafka.shard_writer import ShardWriter
from stream_ad.brokers.kafka.topics import require_topics
from stream_ad.brokers.snapshot_retention import must_rebuild, require_offset
from stream_ad.brokers.worker_api import Fetched, InputTopic, ShardCheckpoint
from stream_ad.errors import BrokerError, FencedError, LostRecordsError, TopicError
from stream_ad.records.columns import RawRecords

if TYPE_CHECKING:
    from collections.abc import Collection

    from kafka import TopicPartition

    from stream_ad.brokers.kafka.client_api import GroupConsumer
    from stream_ad.brokers.kafka.membership import Input
    from stream_ad.brokers.kafka.state_topic import ShardState
    from stream_ad.brokers.worker_api import Commit, InputOffsets
    from stream_ad.settings import Settings

_SLICE_S = 0.1  # of a poll, between looks whether an input has turned out to be drained
_REBALANCE_S = 3.0  # a poll stays with a rebalance that has begun for so long
_RETRY_S = 0.5
_CLOSE_MS = 5_000
_COMMITS_AT_ONCE = 4  # of different shards; a commit mostly waits for answers

log = structlog.get_logger(__name__)


def open_kafka(settings: Settings) -> KafkaBroker:
    """A broker; connections that break while it is made are made again.

    Raises:
        TopicError: A topic is missing or cannot be used.
        BrokerError: Kafka cannot be reached or refuses.
        SettingsError: The client is not installed.
    """
    deadline = time.monotonic() + patience_ms(settings) / 1000
    while True:
        try:
            return KafkaBroker(settings)
        except BrokerError as error:
            passing = isinstance(error.__cause__, kafka_errors.RetriableError) and not isinstance(error, TopicError)
            if not passing or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_S)


class KafkaBroker:
    """See ``base.Broker``.

    Raises:
        TopicError: A topic is missing or cannot be used.
        BrokerError: Kafka cannot be reached or refuses.
    """

    def __init__(self, settings: Settings) -> None:
        client = client_of(settings)
        require_topics(settings)
        self._settings = settings
        self._topics = {InputTopic.EVENTS: settings.topics.events, InputTopic.LABELS: settings.topics.labels}
        self._consumer: GroupConsumer = client.open_consumer(settings)
        self._members = Membership(self._consumer, self._topics, settings.topics.partitions)
        try:
            with errors(settings, "looking at the topics"):
                self._consumer.join(self._topics.values(), self._members)
                self._topic_ids = self._consumer.topic_ids(self._topics.values())
        except BaseException:
            self._consumer.close(timeout_ms=0)
            raise
        self._group = self._consumer.group_metadata()
        self._writers: dict[int, ShardWriter] = {}
        self._threads = ThreadPoolExecutor(_COMMITS_AT_ONCE, thread_name_prefix="commit")
        self._ends = EndOffsets(settings, self._consumer, self._members)
        self._told_drained: set[Input] = set()
        self._fatal: BrokerError | None = None
        self._closed = False

    @property
    def chunk_bytes(self) -> int:
        return kafka_state.CHUNK_BYTES

    def assigned(self) -> frozenset[int]:
        return self._members.owned

    def poll(
        self, *, timeout_s: float, max_records: int, paused: Collection[tuple[int, InputTopic]] = ()
    ) -> dict[int, dict[InputTopic, Fetched]]:
        self._must_live()
        deadline = time.monotonic() + timeout_s
        while True:
            began = time.monotonic()
            self._members.paused(paused)
            self._ends.ask_ahead(set(self._members.next) - set(paused), began)
            batches = self._fetch(min(max(0.0, deadline - began), _SLICE_S), max_records)
            gone = self._members.settle()
            for shard in gone:
                self._abandon(shard)
            records = self._ours(batches)
            inputs = set(self._members.next) - set(paused)
            over = bool(records or gone or not self._members.next or time.monotonic() >= deadline)
            if over or self._ends.may_have_drained(inputs, self._told_drained):
                drained = self._ends.drained(inputs, began)
                if over or not drained <= self._told_drained:
                    self._told_drained = drained
                    return self._fetched(records, drained)

    def _fetch(self, timeout_s: float, max_records: int) -> dict[TopicPartition, RawRecords]:
        batches = self._poll_client(timeout_s, max_records)
        deadline = time.monotonic() + _REBALANCE_S
        while not batches and self._group.state == MemberState.REBALANCING and time.monotonic() < deadline:
            self._consumer.request_rejoin()  # whatever the worker would do now is refused once the rebalance ends
            batches = self._poll_client(_SLICE_S, max_records)
        if batches:
            self._ends.heard()
        else:
            self._ends.probe()
        return batches

    def _poll_client(self, timeout_s: float, max_records: int) -> dict[TopicPartition, RawRecords]:
        batches: dict[TopicPartition, RawRecords] = {}
        try:
            with errors(self._settings, "reading"), suppress(kafka_errors.RetriableError):
                batches = self._consumer.fetch(timeout_s, max_records)
        except BrokerError as error:
            if isinstance(error.__cause__, kafka_errors.OffsetOutOfRangeError):
                self._refuse_new_topics()
                self._say_what_is_lost()
            raise
        self._refuse_new_topics()
        self._group = self._consumer.group_metadata()
        return batches

    def _say_what_is_lost(self) -> None:
        """Find the shard whose records are gone; it has no position from here on, and is to be loaded anew."""
        for shard in sorted({shard for shard, _ in self._members.next}):
            oldest, ends = self.bounds(shard)
            for side, topic in self._topics.items():
                bounds = getattr(oldest, side.value), getattr(ends, side.value)
                try:
                    require_offset(shard, topic, self._members.next[shard, side], bounds)
                except LostRecordsError:
                    self._abandon(shard)
                    self._members.forget(shard)
                    raise

    def _refuse_new_topics(self) -> None:
        """A topic that was deleted and made again has other records at the offsets where this worker reads on."""
        for topic, now in self._consumer.topic_ids(self._topics.values()).items():
            known = self._topic_ids[topic] or now
            self._topic_ids[topic] = known
            if now not in (None, known):
                self._fatal = TopicError(f"Topic {topic} was deleted and made anew while it was read.", hint=GONE_HINT)
                raise self._fatal

    def _ours(self, batches: dict[TopicPartition, RawRecords]) -> dict[Input, RawRecords]:
        ours = {}
        for partition, records in batches.items():
            key = self._members.input(partition)
            start = self._members.next.get(key)
            if start is None:  # it was lost in the same poll
                continue
            newest = np.maximum.accumulate(np.append(start - 1, records.offsets))  # (N + 1,) before each, and after all
            fresh = records.offsets > newest[:-1]
            if not fresh.all():  # a client that goes back to an older position gives some out again
                log.warning("Records were read twice; they are left out", topic=records.topic, shard=records.partition)
                records = records.take(np.flatnonzero(fresh))  # noqa: PLW2901
            if len(records):
                ours[key] = records
                self._members.next[key] = int(records.offsets[-1]) + 1
        return ours

    def _fetched(self, records: dict[Input, RawRecords], drained: set[Input]) -> dict[int, dict[InputTopic, Fetched]]:
        fetched: dict[int, dict[InputTopic, Fetched]] = {}
        for shard, side in self._members.next:
            some = records.get((shard, side)) or RawRecords.empty(self._topics[side], shard)
            fetched.setdefault(shard, {})[side] = Fetched(some, (shard, side) in drained)
        return fetched

    def _state_from(self, shard: int, start: int) -> ShardState:
        try:
            return read_state(self._settings, shard, start, history=False)
        except (kafka_errors.OffsetOutOfRangeError, kafka_errors.LogTruncationError) as error:
            log.warning("The state has no record where a load was to begin", shard=shard, offset=start, why=str(error))
        return read_state(self._settings, shard, history=False)

    def load(self, shard: int, *, older_than: int | None = None) -> ShardCheckpoint:
        self._must_own(shard)
        self._abandon(shard)
        writer = ShardWriter(self._settings, shard)  # first of all: from here on nobody else can add to what is read
        try:
            with errors(self._settings, f"loading shard {shard}"):
                state = self._state_from(shard, writer.state_start)
                oldest, ends = self.bounds(shard)
                committed = committed_positions(self._settings, self._consumer, shard, state, ends) or oldest
                snapshot = state.newest_whole(committed, older_than)
                if snapshot is None and state.start:
                    state = read_state(self._settings, shard, history=False)
                    snapshot = state.newest_whole(committed, older_than)
                rebuild = snapshot is None and must_rebuild(shard, state.kept, oldest)
        except BaseException:
            writer.abandon()
            raise
        state.forget_data()
        writer.state = state
        self._writers[shard] = writer
        self._ends.heard()
        return (
            ShardCheckpoint(committed, rebuild=True)
            if rebuild
            else ShardCheckpoint(committed, snapshot, state.journal(snapshot))
        )

    def seek(self, shard: int, positions: InputOffsets) -> None:
        self._must_own(shard)
        oldest, ends = self.bounds(shard)
        for side, topic in self._topics.items():
            offset, *bounds = (int(getattr(one, side.value)) for one in (positions, oldest, ends))
            require_offset(shard, topic, offset, (bounds[0], bounds[1]))
        with errors(self._settings, f"going to where shard {shard} is read on"):
            for side in InputTopic:
                self._members.place((shard, side), int(getattr(positions, side.value)))
                self._told_drained.discard((shard, side))

    def bounds(self, shard: int) -> tuple[InputOffsets, InputOffsets]:
        with errors(self._settings, f"looking at the inputs of shard {shard}"):
            return input_bounds(self._settings, self._consumer, shard)

    def commit(self, commit: Commit) -> None:
        self.begin(commit).wait()

    def begin(self, commit: Commit) -> AsyncCommit:
        writer = self._writers.get(commit.shard)
        if writer is None:
            raise FencedError(f"Shard {commit.shard} is not owned and loaded.")
        write = partial(writer.commit, commit, self._group)
        return AsyncCommit(self._threads, write, partial(self._landed, commit.shard))

    def _landed(self, shard: int, error: BrokerError | None) -> None:
        if error is None:
            self._ends.heard()
            return
        del self._writers[shard]
        self._members.forget(shard)
        if isinstance(error, FencedError):
            self._members.give_up(shard)
        if isinstance(error.__cause__, kafka_errors.FencedInstanceIdError) and not self._consumer.may_meet_itself():
            self._fatal = error

    def lag(self) -> dict[int, dict[InputTopic, int]]:
        return self._ends.lag()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._threads.shutdown()
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
        self._ends.close()
        with suppress(kafka_errors.KafkaError):
            self._consumer.close(timeout_ms=_CLOSE_MS)

    def _abandon(self, shard: int) -> None:
        if (writer := self._writers.pop(shard, None)) is not None:
            writer.abandon()

    def _must_live(self) -> None:
        if self._closed:
            raise BrokerError("This broker is closed.", hint="Open another one.")
        if self._fatal is not None:
            raise self._fatal

    def _must_own(self, shard: int) -> None:
        self._must_live()
        if shard not in self._members.owned:
            raise FencedError(f"Shard {shard} is not owned by this worker.")
