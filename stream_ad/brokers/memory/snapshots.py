"""The snapshots of the broker in memory, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ad.brokers.snapshot_retention import damaged_data, no_such_snapshot, refuse_newest
from stream_ad.errors import ShardBusyError

if TYPE_CHECKING:
    from stream_ad.brokers.memory.store import ShardState, Store
    from stream_ad.brokers.worker_api import InputOffsets, KeptSnapshot
    from stream_ad.settings import Settings


class MemorySnapshots:
    """See ``tools_api.Snapshots``."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings

    def kept(self, shard: int) -> list[KeptSnapshot]:
        """See ``Snapshots.kept``."""
        with self._store.changed:
            return self._state(shard).kept[::-1]

    def read(self, shard: int, number: int) -> bytes:
        """See ``Snapshots.read``."""
        with self._store.changed:
            state = self._state(shard)
            if number not in state.data:
                raise no_such_snapshot(shard, number, state.kept)
            if (data := state.data[number]) is None:
                raise damaged_data(shard, number)
            return data

    def positions(self, shard: int) -> InputOffsets | None:
        """See ``Snapshots.positions``."""
        with self._store.changed:
            return self._state(shard).positions

    def bounds(self, shard: int) -> tuple[InputOffsets, InputOffsets]:
        """See ``Snapshots.bounds``."""
        with self._store.changed:
            return self._store.bounds(self._settings.topics, shard)

    def start_lineage(self, shard: int, data: bytes, *, positions: InputOffsets, lineage_reason: str) -> KeptSnapshot:
        """See ``Snapshots.start_lineage``."""
        with self._store.changed:
            self._refuse_owned(shard)
            state = self._state(shard)
            state.epoch += 1
            state.positions = positions
            return state.add(positions, data, lineage_reason, self._settings)

    def delete(self, shard: int, number: int) -> None:
        """See ``Snapshots.delete``."""
        with self._store.changed:
            self._refuse_owned(shard)
            state = self._state(shard)
            refuse_newest(shard, number, state.kept)
            state.drop(next(snapshot for snapshot in state.kept if snapshot.number == number))

    def _state(self, shard: int) -> ShardState:
        return self._store.shards[self._settings.application_id, shard]

    def _refuse_owned(self, shard: int) -> None:
        if (self._settings.application_id, shard) in self._store.owners:
            raise ShardBusyError(
                f"Shard {shard} of {self._settings.application_id} is held by a worker; its snapshots cannot be "
                "changed now.",
                hint="Close that worker first.",
            )

    def close(self) -> None:
        """Do nothing: nothing is kept open."""
