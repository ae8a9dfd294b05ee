"""Apache Kafka as the broker: a consumer group distributes the shards, and each commit is one transaction.

Three facts about the clients shaped this module:

1. A transaction is only atomic where every record was checked before it ends (``shard_writer``).
2. The group metadata sent with a transaction must be that of the last poll: the client's own copy becomes empty when
   membership is lost, and brokers do not validate empty group metadata.
3. A producer that has raised any error is replaced.

Which client library is used: see ``client_api``.
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
from stream_ad.brokers.kafka.connection import GONE_HINT, connect_timeout_ms, errors
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

_SLICE_S = 0.1  # longest part of a poll before the broker checks whether an input has drained
_REBALANCE_S = 3.0  # how long one poll waits for a rebalance that has begun
_RETRY_S = 0.5  # between attempts to open the broker
_CLOSE_MS = 5_000  # to leave the group
_CONCURRENT_COMMITS = 4  # of different shards; a commit spends most of its time waiting for responses

log = structlog.get_logger(__name__)


def open_kafka(settings: Settings) -> KafkaBroker:
    """Open the broker; retry where a connection breaks meanwhile.

    Raises:
        TopicError: A topic is missing or cannot be used.
        BrokerError: Kafka cannot be reached or refuses.
        SettingsError: The client is not installed.
    """
    deadline = time.monotonic() + connect_timeout_ms(settings) / 1000
    while True:
        try:
            return KafkaBroker(settings)
        except BrokerError as error:
            transient = isinstance(error.__cause__, kafka_errors.RetriableError) and not isinstance(error, TopicError)
            if not transient or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_S)


class KafkaBroker:
    """See ``worker_api.Broker``.

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
            with errors(settings, "reading the topics"):
                self._consumer.join(self._topics.values(), self._members)
                self._topic_ids = self._consumer.topic_ids(self._topics.values())
        except BaseException:
            self._consumer.close(timeout_ms=0)
            raise
        self._group = self._consumer.group_metadata()
        self._writers: dict[int, ShardWriter] = {}
        self._threads = ThreadPoolExecutor(_CONCURRENT_COMMITS, thread_name_prefix="commit")
        self._ends = EndOffsets(settings, self._consumer, self._members)
        self._reported_drained: set[Input] = set()
        self._fatal: BrokerError | None = None
        self._closed = False

    @property
    def chunk_bytes(self) -> int:
        """See ``Broker.chunk_bytes``."""
        return kafka_state.CHUNK_BYTES

    def assigned(self) -> frozenset[int]:
        """See ``Broker.assigned``."""
        return self._members.owned

    def poll(
        self, *, timeout_s: float, max_records: int, paused: Collection[tuple[int, InputTopic]] = ()
    ) -> dict[int, dict[InputTopic, Fetched]]:
        """See ``Broker.poll``.

        Each pass of the loop:

        1. Pauses inputs, and asks for end offsets in the background where ``drained`` will need them.
        2. Fetches for at most a tenth of a second; waits for a rebalance that has begun.
        3. Applies the rebalance: the producers of shards that are gone are abandoned.
        4. Keeps the records of owned shards, in offset order and without repetitions.
        5. Returns when there are records, when shards are gone, when time is up, or when an input has newly drained.
        """
        self._must_live()
        deadline = time.monotonic() + timeout_s
        while True:
            began = time.monotonic()
            self._members.set_paused(paused)
            self._ends.ask_ahead(set(self._members.next) - set(paused), began)
            batches = self._fetch(min(max(0.0, deadline - began), _SLICE_S), max_records)
            gone = self._members.apply_rebalance()
            for shard in gone:
                self._abandon(shard)
            records = self._keep_owned(batches)
            inputs = set(self._members.next) - set(paused)
            over = bool(records or gone or not self._members.next or time.monotonic() >= deadline)
            if over or self._ends.may_have_drained(inputs, self._reported_drained):
                drained = self._ends.drained(inputs, began)
                if over or not drained <= self._reported_drained:
                    self._reported_drained = drained
                    return self._fetched(records, drained)

    def _fetch(self, timeout_s: float, max_records: int) -> dict[TopicPartition, RawRecords]:
        batches = self._poll_client(timeout_s, max_records)
        deadline = time.monotonic() + _REBALANCE_S
        while not batches and self._group.state == MemberState.REBALANCING and time.monotonic() < deadline:
            self._consumer.request_rejoin()  # commits would be refused once the rebalance ends, so wait for it
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
                self._refuse_recreated_topics()
                self._raise_lost_records()
            raise
        self._refuse_recreated_topics()
        self._group = self._consumer.group_metadata()
        return batches

    def _raise_lost_records(self) -> None:
        """Raise LostRecordsError for the shard whose records are gone; it must be loaded again."""
        for shard in sorted({shard for shard, _ in self._members.next}):
            oldest, ends = self.bounds(shard)
            for side, topic in self._topics.items():
                bounds = oldest.of(side), ends.of(side)
                try:
                    require_offset(shard, topic, self._members.next[shard, side], bounds)
                except LostRecordsError:
                    self._abandon(shard)
                    self._members.forget(shard)
                    raise

    def _refuse_recreated_topics(self) -> None:
        """Raise TopicError where a topic was recreated: its offsets now stand for other records."""
        for topic, current_id in self._consumer.topic_ids(self._topics.values()).items():
            first_id = self._topic_ids[topic] or current_id
            self._topic_ids[topic] = first_id
            if current_id not in (None, first_id):
                self._fatal = TopicError(f"Topic {topic} was deleted and recreated while it was read.", hint=GONE_HINT)
                raise self._fatal

    def _keep_owned(self, batches: dict[TopicPartition, RawRecords]) -> dict[Input, RawRecords]:
        """Return the records of positioned inputs, without those already returned, and advance the positions."""
        owned = {}
        for partition, records in batches.items():
            key = self._members.input(partition)
            start = self._members.next.get(key)
            if start is None:  # lost in the same poll
                continue
            newest = np.maximum.accumulate(
                np.append(start - 1, records.offsets)
            )  # (N + 1,) before each record, and after the last
            fresh = records.offsets > newest[:-1]
            if not fresh.all():  # a client that returns to an older position delivers records again
                log.warning(
                    "Records were read twice; the repetitions are dropped", topic=records.topic, shard=records.partition
                )
                records = records.take(np.flatnonzero(fresh))  # noqa: PLW2901
            if len(records):
                owned[key] = records
                self._members.next[key] = int(records.offsets[-1]) + 1
        return owned

    def _fetched(self, records: dict[Input, RawRecords], drained: set[Input]) -> dict[int, dict[InputTopic, Fetched]]:
        fetched: dict[int, dict[InputTopic, Fetched]] = {}
        for shard, side in self._members.next:
            batch = records.get((shard, side)) or RawRecords.empty(self._topics[side], shard)
            fetched.setdefault(shard, {})[side] = Fetched(batch, (shard, side) in drained)
        return fetched

    def _state_from(self, shard: int, start: int) -> ShardState:
        try:
            return read_state(self._settings, shard, start, history=False)
        except (kafka_errors.OffsetOutOfRangeError, kafka_errors.LogTruncationError) as error:
            log.warning(
                "The state topic has no record at the offset where a load should begin; reading all of it",
                shard=shard,
                offset=start,
                why=str(error),
            )
        return read_state(self._settings, shard, history=False)

    def load(self, shard: int, *, older_than: int | None = None) -> ShardCheckpoint:
        """See ``Broker.load``.

        Steps:

        1. Open a producer under the shard's transactional id. This fences earlier owners and ends what their
           transactions left open, so nobody can add to what is read next.
        2. Read the state topic from the offset named by the last commit; from its beginning where that fails.
        3. Read the committed offsets; before the first commit use the oldest offsets kept.
        4. Choose the newest complete snapshot; if the newest is damaged, read the whole state topic and choose again.
        5. If there is none, decide whether the topics must be processed from their beginning.
        """
        self._must_own(shard)
        self._abandon(shard)
        writer = ShardWriter(self._settings, shard)
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
        """See ``Broker.seek``."""
        self._must_own(shard)
        oldest, ends = self.bounds(shard)
        for side, topic in self._topics.items():
            require_offset(shard, topic, positions.of(side), (oldest.of(side), ends.of(side)))
        with errors(self._settings, f"positioning the inputs of shard {shard}"):
            for side in InputTopic:
                self._members.seek((shard, side), int(positions.of(side)))
                self._reported_drained.discard((shard, side))

    def bounds(self, shard: int) -> tuple[InputOffsets, InputOffsets]:
        """See ``Broker.bounds``."""
        with errors(self._settings, f"reading the bounds of shard {shard}'s inputs"):
            return input_bounds(self._settings, self._consumer, shard)

    def commit(self, commit: Commit) -> None:
        """See ``Broker.commit``."""
        self.begin(commit).wait()

    def begin(self, commit: Commit) -> AsyncCommit:
        """See ``Broker.begin``."""
        writer = self._writers.get(commit.shard)
        if writer is None:
            raise FencedError(f"Shard {commit.shard} is not owned and loaded.")
        write = partial(writer.commit, commit, self._group)
        return AsyncCommit(self._threads, write, partial(self._on_finished, commit.shard))

    def _on_finished(self, shard: int, error: BrokerError | None) -> None:
        if error is None:
            self._ends.heard()
            return
        del self._writers[shard]
        self._members.forget(shard)
        if isinstance(error, FencedError):
            self._members.mark_lost(shard)
        if (
            isinstance(error.__cause__, kafka_errors.FencedInstanceIdError)
            and not self._consumer.may_have_fenced_itself()
        ):
            self._fatal = error

    def lag(self) -> dict[int, dict[InputTopic, int]]:
        """See ``Broker.lag``."""
        return self._ends.lag()

    def close(self) -> None:
        """See ``Broker.close``."""
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
