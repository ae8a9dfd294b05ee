"""The snapshots of the embedded broker, for people."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from stream_ad.brokers.snapshot_retention import damaged_data, no_such_snapshot, refuse_newest
from stream_ad.brokers.sqlite.database import Database
from stream_ad.brokers.sqlite.read_only import DatabaseView
from stream_ad.brokers.sqlite.shard_lock import PROBE_S, ShardLock
from stream_ad.brokers.sqlite.state_tables import StateTables
from stream_ad.brokers.worker_api import SnapshotChunk
from stream_ad.errors import ShardBusyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ad.brokers.worker_api import InputOffsets, KeptSnapshot
    from stream_ad.settings import Settings


class SqliteSnapshots:
    """See ``tools_api.Snapshots``. The file is opened read-only until something is to be changed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._application = settings.application_id
        self._database = DatabaseView(settings)
        self._state = StateTables(self._database, settings)
        try:
            self._database.require_made(settings)
        except BaseException:
            self.close()
            raise

    def kept(self, shard: int) -> list[KeptSnapshot]:
        """See ``Snapshots.kept``."""
        with self._database.errors():
            return self._state.kept(shard)[::-1]

    def read(self, shard: int, number: int) -> bytes:
        """See ``Snapshots.read``."""
        kept = self.kept(shard)
        if number not in {snapshot.number for snapshot in kept}:
            raise no_such_snapshot(shard, number, kept)
        with self._database.errors():
            data = self._state.data(shard, number)
        if data is None:
            raise damaged_data(shard, number)
        return data

    def positions(self, shard: int) -> InputOffsets | None:
        """See ``Snapshots.positions``."""
        return self._state.all_positions().get(shard)

    def bounds(self, shard: int) -> tuple[InputOffsets, InputOffsets]:
        """See ``Snapshots.bounds``."""
        return self._state.bounds(shard)

    def start_lineage(self, shard: int, data: bytes, *, positions: InputOffsets, lineage_reason: str) -> KeptSnapshot:
        """See ``Snapshots.start_lineage``."""
        with self._exclusive_state(shard) as state:
            epoch, _ = state.take_over(shard)
            state.move(shard, positions, epoch)
            state.save(shard, SnapshotChunk(positions, data, 0, len(data)), lineage_reason)
            return state.kept(shard)[-1]

    def delete(self, shard: int, number: int) -> None:
        """See ``Snapshots.delete``."""
        with self._exclusive_state(shard) as state:
            refuse_newest(shard, number, state.kept(shard))
            state.drop(shard, number)

    @contextmanager
    def _exclusive_state(self, shard: int) -> Iterator[StateTables]:
        """Open one transaction on the tables while no worker owns the shard."""
        lock = ShardLock(self._database.path, self._application, shard)
        if not lock.acquire(wait_s=PROBE_S):
            raise ShardBusyError(
                f"Shard {shard} of {self._application} is held by {lock.owner()}; its snapshots cannot be changed now.",
                hint="Stop that worker first.",
            )
        try:
            with closing(Database(self._settings)) as database, database.write():
                yield StateTables(database, self._settings)
        finally:
            lock.release()

    def close(self) -> None:
        """See ``Snapshots.close``."""
        self._database.close()
