"""The tables of an application's shards on the embedded broker: offsets, journal and snapshots.

A snapshot is written in chunks (``worker_api.SnapshotChunk``), all within the transactions of commits:

1. With the first chunk, delete the chunks of an abandoned snapshot under the same number.
2. Insert the chunk's rows, each with its digest, and free up to twice as many rows of dropped snapshots: to free a
   large snapshot at once takes as long as to write it.
3. With the last chunk, insert the row of the snapshot, which completes it; mark superseded snapshots as dropped, prune
   the journal and expire records.
"""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

from stream_ad.brokers.snapshot_retention import journal_floor, next_number, next_snapshot, superseded
from stream_ad.brokers.sqlite.database import OFFSET_MASK
from stream_ad.brokers.worker_api import SNAPSHOT_CHUNK_BYTES, InputOffsets, KeptSnapshot

if TYPE_CHECKING:
    from collections.abc import Collection

    from stream_ad.brokers.sqlite.database import Database
    from stream_ad.brokers.worker_api import SnapshotChunk
    from stream_ad.settings import Settings

CHUNK_BYTES = SNAPSHOT_CHUNK_BYTES  # of one row: SQLite cannot hold a value of a gigabyte


class StateTables:
    """Statements on the tables of one application.

    Call all methods but ``all_positions`` and ``bounds`` within ``Database.errors`` or ``Database.write``.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._application = settings.application_id

    def take_over(self, shard: int) -> tuple[int, InputOffsets]:
        """Make the commits of an earlier owner fail; return the new epoch and the committed offsets."""
        ((epoch, events, labels),) = self._database.cursor(
            """INSERT INTO shards (application, shard, epoch) VALUES (?, ?, 1)
               ON CONFLICT DO UPDATE SET epoch = epoch + 1 RETURNING epoch, events, labels""",
            self._application,
            shard,
        ).fetchall()
        return epoch, InputOffsets(events, labels)

    def move(self, shard: int, positions: InputOffsets, epoch: int) -> bool:
        """Set the committed offsets; return False where a later epoch has begun."""
        done = self._database.cursor(
            "UPDATE shards SET events = ?, labels = ? WHERE application = ? AND shard = ? AND epoch = ?",
            positions.events, positions.labels, self._application, shard, epoch,
        )  # fmt: skip
        return bool(done.rowcount)

    def all_positions(self) -> dict[int, InputOffsets]:
        """Return the committed offsets by shard."""
        with self._database.errors():
            rows = self._database.cursor(
                "SELECT shard, events, labels FROM shards WHERE application = ?", self._application
            ).fetchall()
        return {shard: InputOffsets(events, labels) for shard, events, labels in rows}

    def bounds(self, shard: int) -> tuple[InputOffsets, InputOffsets]:
        """Return the oldest offsets kept and the next offsets to be written; see ``worker_api.Broker.bounds``."""
        topics, database, heads = self._settings.topics, self._database, self._database.heads()
        inputs = [topic if (topic, shard) in database.logs else None for topic in (topics.events, topics.labels)]
        oldest = InputOffsets(*(0 if topic is None else database.oldest(topic, shard) for topic in inputs))
        return oldest, InputOffsets(*(0 if topic is None else heads[database.logs[topic, shard]] for topic in inputs))

    def journal(self, shard: int) -> list[InputOffsets]:
        """Return the step boundaries of a shard, in increasing order."""
        rows = self._database.cursor(
            "SELECT events, labels FROM journal WHERE application = ? AND shard = ? ORDER BY events, labels",
            self._application,
            shard,
        )
        return [InputOffsets(*row) for row in rows]

    def add_boundaries(self, shard: int, step_boundaries: Collection[InputOffsets]) -> None:
        """Add step boundaries to the journal of a shard."""
        key = self._application, shard
        for boundary in step_boundaries:
            self._database.cursor(
                "INSERT OR IGNORE INTO journal VALUES (?, ?, ?, ?)", *key, boundary.events, boundary.labels
            )

    def kept(self, shard: int, application: str | None = None) -> list[KeptSnapshot]:
        """Return all snapshots of a shard, by increasing number.

        Args:
            shard: The shard's number.
            application: The application's id; None for this application.
        """
        rows = self._database.cursor(
            """SELECT seq, events, labels, line, origin, saved_ms, size FROM snapshots
               WHERE application = ? AND shard = ? AND NOT dropped ORDER BY seq""",
            application or self._application,
            shard,
        )
        return [
            KeptSnapshot(number, InputOffsets(events, labels), *rest)
            for number, events, labels, *rest in rows.fetchall()
        ]

    def data(self, shard: int, number: int) -> bytes | None:
        """Return the data of a snapshot; None where it is not what was written."""
        key = self._application, shard, number
        ((size,),) = self._database.cursor(
            "SELECT size FROM snapshots WHERE application = ? AND shard = ? AND seq = ?", *key
        ).fetchall()
        chunks = self._database.cursor(
            "SELECT digest, data FROM snapshot_parts WHERE application = ? AND shard = ? AND seq = ? ORDER BY start",
            *key,
        ).fetchall()
        if any(hashlib.sha256(data).digest() != digest for digest, data in chunks):
            return None
        whole = b"".join(data for _, data in chunks)
        return whole if len(whole) == size else None

    def save(self, shard: int, chunk: SnapshotChunk, lineage_reason: str) -> None:
        """Write a chunk of a snapshot; with the last one, drop what the snapshot supersedes. See the steps above."""
        key, kept = (self._application, shard), self.kept(shard)
        number = next_number(kept)
        if chunk.start == 0:
            self._delete_chunks(shard, number)  # of an abandoned snapshot
        starts = range(chunk.start, chunk.stop, CHUNK_BYTES)
        for start in starts:
            data = memoryview(chunk.data)[start : min(start + CHUNK_BYTES, chunk.stop)]
            self._database.cursor(
                "INSERT INTO snapshot_parts VALUES (?, ?, ?, ?, ?, ?)",
                *key, number, start, hashlib.sha256(data).digest(), data,
            )  # fmt: skip
        self._free(shard, 2 * len(starts))
        if chunk.last:
            self._close(shard, chunk, lineage_reason, kept)

    def _close(self, shard: int, chunk: SnapshotChunk, lineage_reason: str, kept: list[KeptSnapshot]) -> None:
        key, now_ms = (self._application, shard), int(time.time() * 1000)
        at, size = chunk.positions, len(chunk.data)
        new = next_snapshot(kept, positions=at, lineage_reason=lineage_reason, saved_ms=now_ms, size_bytes=size)
        self._database.cursor(
            """INSERT INTO snapshots (application, shard, seq, events, labels, line, origin, saved_ms, size)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            *key, new.number, at.events, at.labels, new.lineage, new.lineage_reason, new.saved_ms, new.size_bytes,
        )  # fmt: skip
        kept.append(new)
        for old in superseded(kept, self._settings):
            self._database.cursor(
                "UPDATE snapshots SET dropped = 1 WHERE application = ? AND shard = ? AND seq = ?", *key, old.number
            )
            kept.remove(old)
        if new.lineage_reason:
            self._database.cursor("DELETE FROM journal WHERE application = ? AND shard = ?", *key)
        elif (floor := journal_floor(kept)) is not None:
            self._database.cursor(
                "DELETE FROM journal WHERE application = ? AND shard = ? AND (events, labels) <= (?, ?)",
                *key, floor.events, floor.labels,
            )  # fmt: skip
        self.expire(shard)

    def expire(self, shard: int) -> None:
        """Delete records older than ``topics.retention_seconds``, a bounded number at a time.

        Records of the inputs are kept as long as any application may have to read them again.
        """
        topics = self._settings.topics
        if topics.retention_seconds is None:
            return
        until_ms = int((time.time() - topics.retention_seconds) * 1000)
        floor = self._replay_floor(shard)
        self._database.expire(topics.events, shard, before=floor.events, until_ms=until_ms)
        self._database.expire(topics.labels, shard, before=floor.labels, until_ms=until_ms)
        for topic in (topics.scores, topics.incidents, topics.dead_letters):
            self._database.expire(topic, shard, before=OFFSET_MASK, until_ms=until_ms)

    def _replay_floor(self, shard: int) -> InputOffsets:
        """Return the offsets before which no application reads again, even if its newest snapshot is damaged."""
        rows = self._database.cursor("SELECT application FROM shards WHERE shard = ?", shard).fetchall()
        kept = [self.kept(shard, application) for (application,) in rows]
        floors = [(journal_floor(snapshots) if snapshots else None) or InputOffsets() for snapshots in kept]
        return InputOffsets(min(floor.events for floor in floors), min(floor.labels for floor in floors))

    def drop(self, shard: int, number: int) -> None:
        """Delete a snapshot, and free all of its space."""
        self._delete_chunks(shard, number)
        self._database.cursor(
            "DELETE FROM snapshots WHERE application = ? AND shard = ? AND seq = ?", self._application, shard, number
        )

    def _delete_chunks(self, shard: int, number: int) -> None:
        self._database.cursor(
            "DELETE FROM snapshot_parts WHERE application = ? AND shard = ? AND seq = ?",
            self._application,
            shard,
            number,
        )

    def _free(self, shard: int, chunks: int) -> None:
        """Free the space of so many chunks of snapshots that were dropped."""
        key = self._application, shard
        self._database.cursor(
            """DELETE FROM snapshot_parts WHERE rowid IN (
                   SELECT part.rowid FROM snapshots JOIN snapshot_parts AS part USING (application, shard, seq)
                   WHERE application = ? AND shard = ? AND dropped LIMIT ?)""",
            *key,
            chunks,
        )
        self._database.cursor(
            """DELETE FROM snapshots WHERE application = ? AND shard = ? AND dropped AND NOT EXISTS (
                   SELECT 1 FROM snapshot_parts AS part WHERE part.application = snapshots.application
                   AND part.shard = snapshots.shard AND part.seq = snapshots.seq)""",
            *key,
        )
