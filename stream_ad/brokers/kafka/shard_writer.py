"""One shard's place to write to on Kafka: a transactional producer and what the state topic holds.

The transactional id is ``<application_id>-<shard>``: whoever makes the next producer with it fences
this one, whatever the consumer group believes. A producer that has met any error is of no further
use: a partly failed transaction may look committed to the client, and offsets of an aborted one may
be sent again (see the steps in ``commit``). So an error ends it, and the shard is loaded anew.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from kafka import errors as kafka_errors

from stream_ad.brokers.kafka.client_api import client_of
from stream_ad.brokers.kafka.connection import errors, translated
from stream_ad.brokers.kafka.hanging_transactions import (
    CommitMetadata,
    commit_offsets,
    marked,
    settle_shard,
    standalone_group_metadata,
)
from stream_ad.errors import BrokerError, FencedError, TopicError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kafka.structs import ConsumerGroupMetadata

    from stream_ad.brokers.kafka.client_api import SettlingProducer
    from stream_ad.brokers.kafka.state_topic import ShardState
    from stream_ad.brokers.worker_api import Commit, InputOffsets
    from stream_ad.records.columns import OutRecord
    from stream_ad.settings import Settings

FENCED = (
    kafka_errors.ProducerFencedError,
    kafka_errors.InvalidProducerEpochError,
    kafka_errors.CommitFailedError,  # the group has moved on without this worker
    kafka_errors.IllegalGenerationError,
    kafka_errors.UnknownMemberIdError,
    kafka_errors.RebalanceInProgressError,
)
_TOO_LARGE = (
    "If this comes back, Kafka needs longer than broker.transaction_timeout_seconds for outputs of a step or 32 MiB "
    "of a snapshot: give it more time, or make steps smaller (worker.step_records)."
)


class ShardWriter:
    """Commits of one shard.

    Args:
        shard: Fences whoever wrote this shard before.

    Raises:
        BrokerError: Kafka did not answer, or refuses.
    """

    def __init__(self, settings: Settings, shard: int) -> None:
        self._settings = settings
        self._topics = settings.topics
        self._shard = shard
        self._timeout_s = settings.broker.transaction_timeout_seconds
        self._note = CommitMetadata()
        outputs = (self._topics.scores, self._topics.incidents, self._topics.dead_letters, self._topics.state)

        def settle(producer: SettlingProducer) -> None:
            self._note = settle_shard(settings, producer, shard, outputs)

        with errors(settings, f"taking over shard {shard}"):
            self._producer = client_of(settings).open_producer(
                settings, f"{settings.application_id}-{shard}", outputs, settle
            )
        self.state: ShardState | None = None  # read after this, so that nobody can add to it any more

    @property
    def state_start(self) -> int:
        """The offset of the state topic that the shard's last commit named as enough for a load; 0: read all of it."""
        return self._note.state_start

    def commit(self, commit: Commit, group: ConsumerGroupMetadata) -> None:
        """See ``base.Broker.commit``. After an error this writer is closed.

        Args:
            commit: Of this shard.
            group: The worker's membership when it last polled. Its own idea of it is live, and empty once it is
                lost; brokers take an empty one unchecked.
        """
        if group.generation_id < 0:
            self.abandon()
            raise self._explained(kafka_errors.CommitFailedError("the worker has left its group"))
        topics = self._topics
        outputs = {
            topics.scores: commit.scores,
            topics.incidents: commit.incidents,
            topics.dead_letters: commit.dead_letters,
            topics.state: self._state_records(commit),
        }
        self._write(outputs, commit.positions, group)

    def _state_records(self, commit: Commit) -> list[OutRecord]:
        """What the commit writes of the state, once what goes ahead of it is written."""
        ahead, records = self._known.records(commit)
        for part in ahead:
            self._write({self._topics.state: part}, None, None)
        return records

    def commit_alone(self, commit: Commit) -> None:
        """A commit while nobody is in the group."""
        self._write(
            {self._topics.state: self._state_records(commit)},
            commit.positions,
            standalone_group_metadata(self._settings),
        )

    def remove_snapshot(self, number: int) -> None:
        """Delete a snapshot from the state topic."""
        self._write({self._topics.state: self._known.removal(number)}, None, None)

    @property
    def _known(self) -> ShardState:
        assert self.state is not None, "it is read right after this was made"
        return self.state

    def _write(
        self,
        outputs: Mapping[str, Sequence[OutRecord]],
        positions: InputOffsets | None,
        group: ConsumerGroupMetadata | None,
    ) -> None:
        try:
            self._transaction(outputs, positions, group)
        except (kafka_errors.KafkaError, ValueError, TypeError) as error:
            reason = self._producer.last_error() or error  # the first one says more than what followed from it
            self.abandon()
            raise self._explained(reason) from reason
        except BaseException:
            self.abandon()
            raise

    def _transaction(
        self,
        outputs: Mapping[str, Sequence[OutRecord]],
        positions: InputOffsets | None,
        group: ConsumerGroupMetadata | None,
    ) -> None:
        if positions is not None:
            application = self._settings.application_id
            outputs = {topic: marked(records, application, positions) for topic, records in outputs.items()}
        self._producer.begin_transaction()
        sent = {
            # to compress a snapshot takes a third of the time to write it, and saves a fifth
            topic: self._producer.send_batches(topic, self._shard, records, plain=topic == self._topics.state)
            for topic, records in outputs.items()
        }
        # Every record must be acknowledged before the transaction is asked to end: kafka-python commits what is left of
        # it when a batch has timed out, and calls it committed when the last batch fails while it is committed.
        self._producer.flush(self._timeout_s)
        self._producer.check([one for some in sent.values() for one in some])
        last_offsets = {topic: self._producer.last_offset(some) for topic, some in sent.items() if some}
        if positions is not None and group is not None:
            if self._topics.state in last_offsets:
                self._known.written_to(last_offsets[self._topics.state])
            self._note = CommitMetadata(self._known.start, self._note.last_offsets | last_offsets)
            offsets = commit_offsets(self._settings, self._shard, positions, self._note)
            self._producer.send_offsets(self._timeout_s, offsets, group)
        self._producer.end_transaction(self._timeout_s)

    def _explained(self, error: BaseException) -> BrokerError:
        shard = f"Shard {self._shard} of {self._settings.application_id}"
        if isinstance(error, FENCED):
            return FencedError(
                f"{shard} was taken over by another worker, or its transaction timed out "
                f"({str(error) or type(error).__name__}).",
                hint=_TOO_LARGE,
            )
        if isinstance(error, kafka_errors.KafkaTimeoutError):
            return BrokerError(
                f"{shard} could not be committed within broker.transaction_timeout_seconds, {self._timeout_s:g} s "
                f"({error}).",
                hint=f"Check that Kafka runs and can be reached. {_TOO_LARGE}",
            )
        if isinstance(error, (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)):
            return TopicError(
                f"{shard} has a record that is too large for its topic ({error}).",
                hint="Raise max.message.bytes of the output topics, above all of the dead letters, over that of the "
                "events topic.",
            )
        return translated(self._settings, f"committing shard {self._shard}", error)

    def close(self) -> None:
        with suppress(kafka_errors.KafkaError):
            self._producer.close(timeout=self._timeout_s)

    def abandon(self) -> None:
        self._producer.abandon()
