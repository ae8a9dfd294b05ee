"""The writer of one shard on Kafka: a transactional producer, and the shard's part of the state topic.

The transactional id is ``<application_id>-<shard>``: the next producer that is opened with it fences this one, whatever
the consumer group believes.

A commit is one transaction (``ShardWriter.commit``):

1. Refuse to commit where the worker has left its group.
2. Write the chunks of a large snapshot beyond ``state_topic.TRANSACTION_CHUNKS`` in transactions of their own, without
   offsets: without its manifest a snapshot does not exist, so these are invisible until step 8.
3. Begin the transaction.
4. Send scores, incidents, dead letters and state records; the last record of each topic carries the commit marker.
5. Flush, and wait until every record is acknowledged or refused.
6. Check that every record was acknowledged. Only then may the transaction be ended: see ``_transaction``.
7. Send the offsets of both inputs with the group metadata of the last poll and, as metadata of the events offset, where
   the state topic must be read from and the last offset written to each output topic (``CommitMetadata``).
8. End the transaction. When this raises, the outcome is unknown.

Any error ends the producer, and the shard is loaded again: a partly failed transaction may look committed to the
client, and the offsets of an aborted one may be sent again.
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
    resolve_shard_transactions,
    standalone_group_metadata,
    with_commit_marker,
)
from stream_ad.errors import BrokerError, FencedError, TopicError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kafka.structs import ConsumerGroupMetadata

    from stream_ad.brokers.kafka.client_api import ResolvingProducer
    from stream_ad.brokers.kafka.state_topic import ShardState
    from stream_ad.brokers.worker_api import Commit, InputOffsets
    from stream_ad.records.columns import OutRecord
    from stream_ad.settings import Settings

FENCED = (
    kafka_errors.ProducerFencedError,
    kafka_errors.InvalidProducerEpochError,
    kafka_errors.CommitFailedError,  # the group has rebalanced without this worker
    kafka_errors.IllegalGenerationError,
    kafka_errors.UnknownMemberIdError,
    kafka_errors.RebalanceInProgressError,
)
_TOO_LARGE = (
    "If this recurs, Kafka needs longer than broker.transaction_timeout_seconds for outputs of a step or 32 MiB "
    "of a snapshot: give it more time, or make steps smaller (worker.step_records)."
)


class ShardWriter:
    """Commits one shard; opening it fences earlier writers and ends what their transactions left open.

    Args:
        settings: Of the application.
        shard: The shard's number.

    Raises:
        BrokerError: Kafka did not answer, or refuses.
    """

    def __init__(self, settings: Settings, shard: int) -> None:
        self._settings = settings
        self._topics = settings.topics
        self._shard = shard
        self._timeout_s = settings.broker.transaction_timeout_seconds
        self._metadata = CommitMetadata()
        outputs = (self._topics.scores, self._topics.incidents, self._topics.dead_letters, self._topics.state)

        def resolve(producer: ResolvingProducer) -> None:
            self._metadata = resolve_shard_transactions(settings, producer, shard, outputs)

        with errors(settings, f"taking over shard {shard}"):
            self._producer = client_of(settings).open_producer(
                settings, f"{settings.application_id}-{shard}", outputs, resolve
            )
        self.state: ShardState | None = None
        """The shard's part of the state topic. The caller reads it after this object was opened, so that no earlier
        writer can add to it."""

    @property
    def state_start(self) -> int:
        """The offset from which the state topic must be read, as the last commit recorded it; 0: read all of it."""
        return self._metadata.state_start

    def commit(self, commit: Commit, group: ConsumerGroupMetadata) -> None:
        """Write a commit of this shard; see ``Broker.commit`` and the steps above. An error closes this writer.

        Args:
            commit: A commit of this shard.
            group: The group metadata of the worker's last poll. The client's own copy is live and becomes empty when
                membership is lost, and brokers do not validate empty group metadata.
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
        """Write what must precede the commit, and return the state records of the commit itself."""
        ahead, records = self._loaded_state.records(commit)
        for chunks in ahead:
            self._write({self._topics.state: chunks}, None, None)
        return records

    def commit_alone(self, commit: Commit) -> None:
        """Write a commit while the group has no members."""
        self._write(
            {self._topics.state: self._state_records(commit)},
            commit.positions,
            standalone_group_metadata(self._settings),
        )

    def remove_snapshot(self, number: int) -> None:
        """Delete a snapshot from the state topic."""
        self._write({self._topics.state: self._loaded_state.removal(number)}, None, None)

    @property
    def _loaded_state(self) -> ShardState:
        assert self.state is not None, "the caller sets it right after opening the writer"
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
            reason = self._producer.last_error() or error  # the first error says more than its consequences
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
            outputs = {topic: with_commit_marker(records, application, positions) for topic, records in outputs.items()}
        self._producer.begin_transaction()
        sent = {
            # Compressing a snapshot takes a third of the time of writing it, and saves a fifth of its size.
            topic: self._producer.send_batches(topic, self._shard, records, plain=topic == self._topics.state)
            for topic, records in outputs.items()
        }
        # Every record must be acknowledged before the transaction is ended: kafka-python commits the remaining batches
        # when one has timed out, and reports success when the last batch fails during the commit.
        self._producer.flush(self._timeout_s)
        self._producer.check([batch for batches in sent.values() for batch in batches])
        last_offsets = {topic: self._producer.last_offset(batches) for topic, batches in sent.items() if batches}
        if positions is not None and group is not None:
            if self._topics.state in last_offsets:
                self._loaded_state.on_written(last_offsets[self._topics.state])
            self._metadata = CommitMetadata(self._loaded_state.start, self._metadata.last_offsets | last_offsets)
            offsets = commit_offsets(self._settings, self._shard, positions, self._metadata)
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
                hint="Raise max.message.bytes of the output topics, above all of the dead letters, above that of the "
                "events topic.",
            )
        return translated(self._settings, f"committing shard {self._shard}", error)

    def close(self) -> None:
        """Close the producer in good order, after the end of a transaction."""
        with suppress(kafka_errors.KafkaError):
            self._producer.close(timeout=self._timeout_s)

    def abandon(self) -> None:
        """Close the producer at once; an open transaction is lost."""
        self._producer.abandon()
