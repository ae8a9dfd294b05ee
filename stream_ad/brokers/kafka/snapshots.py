"""The snapshots that Kafka keeps, for people.

A change takes these steps:

1. Refuse unless the consumer group has no members.
2. Open a producer under the shard's transactional id, which fences any writer that is still alive.
3. Read the state of the shard again.
4. Write state and offsets in one transaction, like a worker's commit.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from kafka import KafkaAdminClient

from stream_ad.brokers.kafka.connection import connect, errors, group_members
from stream_ad.brokers.kafka.partition_reader import CommittedConsumer, consumer_options
from stream_ad.brokers.kafka.shard_reader import group_positions, input_bounds, read_state
from stream_ad.brokers.kafka.shard_writer import ShardWriter
from stream_ad.brokers.kafka.topics import require_topics
from stream_ad.brokers.snapshot_retention import damaged_data, no_such_snapshot, refuse_newest
from stream_ad.brokers.worker_api import Commit
from stream_ad.errors import ShardBusyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ad.brokers.kafka.state_topic import ShardState
    from stream_ad.brokers.worker_api import InputOffsets, KeptSnapshot
    from stream_ad.settings import Settings


class KafkaSnapshots:
    """See ``tools_api.Snapshots``."""

    def __init__(self, settings: Settings) -> None:
        require_topics(settings)
        self._settings = settings
        self._cached_state: tuple[int, ShardState] | None = None  # of the shard read last
        self._consumer: CommittedConsumer = connect(
            CommittedConsumer, settings, group_id=settings.application_id, **consumer_options()
        )

    def kept(self, shard: int) -> list[KeptSnapshot]:
        """See ``Snapshots.kept``."""
        return self._state(shard).kept[::-1]

    def read(self, shard: int, number: int) -> bytes:
        """See ``Snapshots.read``."""
        state = self._state(shard)
        if number not in {snapshot.number for snapshot in state.kept}:
            raise no_such_snapshot(shard, number, state.kept)
        if (data := state.data(number)) is None:
            raise damaged_data(shard, number)
        return data

    def positions(self, shard: int) -> InputOffsets | None:
        """See ``Snapshots.positions``."""
        with errors(self._settings, f"reading the committed offsets of shard {shard}"):
            return group_positions(self._settings, self._consumer, shard)

    def bounds(self, shard: int) -> tuple[InputOffsets, InputOffsets]:
        """See ``Snapshots.bounds``."""
        with errors(self._settings, f"reading the bounds of shard {shard}'s inputs"):
            return input_bounds(self._settings, self._consumer, shard)

    def start_lineage(self, shard: int, data: bytes, *, positions: InputOffsets, lineage_reason: str) -> KeptSnapshot:
        """See ``Snapshots.start_lineage``."""
        with self._writer(shard) as writer:
            writer.commit_alone(Commit(shard, positions, snapshot=data, lineage_reason=lineage_reason))
        return self.kept(shard)[0]

    def delete(self, shard: int, number: int) -> None:
        """See ``Snapshots.delete``."""
        with self._writer(shard) as writer:
            refuse_newest(shard, number, self.kept(shard))
            writer.remove_snapshot(number)

    def _state(self, shard: int) -> ShardState:
        if self._cached_state is None or self._cached_state[0] != shard:
            with errors(self._settings, f"reading the state of shard {shard}"):
                self._cached_state = shard, read_state(self._settings, shard, history=True)
        return self._cached_state[1]

    @contextmanager
    def _writer(self, shard: int) -> Iterator[ShardWriter]:
        self._refuse_members()
        with closing(ShardWriter(self._settings, shard)) as writer:
            self._cached_state = None  # state read before the shard was taken over may be outdated
            writer.state = self._state(shard)
            try:
                yield writer
            finally:
                self._cached_state = None

    def _refuse_members(self) -> None:
        application = self._settings.application_id
        with (
            errors(self._settings, "reading the group"),
            closing(connect(KafkaAdminClient, self._settings)) as admin,
        ):
            members = group_members(admin, application)
        if members:
            hosts = ", ".join(sorted(set(members)))
            raise ShardBusyError(
                f"{len(members)} workers of {application} run, on {hosts}: no snapshot can be changed now.",
                hint="Stop all of them first. One that was killed is forgotten after broker.session_timeout_seconds.",
            )

    def close(self) -> None:
        """See ``Snapshots.close``."""
        self._consumer.close()
