"""What the embedded broker keeps of an application's shards: positions, journal and snapshots, as tables."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

from stream_ad.brokers.snapshot_retention import following, journal_floor, next_number, superseded
from stream_ad.brokers.sqlite.database import OFFSET_MASK
from stream_ad.brokers.worker_api import PART_BYTES, InputOffsets, KeptSnapshot

if TYPE_CHECKING:
    from collections.abc import Collection

    from stream_ad.brokers.sqlite.database import Database
    from stream_ad.brokers.worker_api import SnapshotChunk
    from stream_ad.settings import Settings

CHUNK_BYTES = PART_BYTES  # of a row: SQLite holds no value of a gigabyte


class StateTables:
    """Statements over the tables of one application; all but ``all_positions`` within ``errors`` or ``write``."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._application = settings.application_id

    def take_over(self, shard: int) -> tuple[int, InputOffsets]:
        """Make an earlier owner's commits fail; the new epoch, and the positions as committed."""
        ((epoch, events, labels),) = self._database.cursor(
            """INSERT INTO shards (application, shard, epoch) VALUES (?, ?, 1)
               ON CONFLICT DO UPDATE SET epoch = epoch + 1 RETURNING epoch, events, labels""",
            self._application,
            shard,
        ).fetchall()
        return epoch, InputOffsets(events, labels)

    def move(self, shard: int, positions: InputOffsets, epoch: int) -> bool:
        """Set the positions; False where the epoch is over."""
        done = self._database.cursor(
            "UPDATE shards SET events = ?, labels = ? WHERE application = ? AND shard = ? AND epoch = ?",
            positions.events, positions.labels, self._application, shard, epoch,
        )  # fmt: skip
        return bool(done.rowcount)

    def all_positions(self) -> dict[int, InputOffsets]:
        """As committed, by shard."""
        with self._database.errors():
            rows = self._database.cursor(
                "SELECT shard, events, labels FROM shards WHERE application = ?", self._application
            ).fetchall()
        return {shard: InputOffsets(events, labels) for shard, events, labels in rows}

    def bounds(self, shard: int) -> tuple[InputOffsets, InputOffsets]:
        """See ``base.Broker.bounds``."""
        topics, database, heads = self._settings.topics, self._database, self._database.heads()
        inputs = [topic if (topic, shard) in database.logs else None for topic in (topics.events, topics.labels)]
        oldest = InputOffsets(*(0 if topic is None else database.oldest(topic, shard) for topic in inputs))
        return oldest, InputOffsets(*(0 if topic is None else heads[database.logs[topic, shard]] for topic in inputs))

    def journal(self, shard: int) -> list[InputOffsets]:
        rows = self._database.cursor(
            "SELECT events, labels FROM journal WHERE application = ? AND shard = ? ORDER BY events, labels",
            self._application,
            shard,
        )
        return [InputOffsets(*row) for row in rows]

    def mark(self, shard: int, step_boundaries: Collection[InputOffsets]) -> None:
        """Add to the journal."""
        for mark in step_boundaries:
            self._database.cursor(
                "INSERT OR IGNORE INTO journal VALUES (?, ?, ?, ?)", self._application, shard, mark.events, mark.labels
            )

    def kept(self, shard: int, application: str | None = None) -> list[KeptSnapshot]:
        """All of a shard, by rising number; of this application unless told otherwise."""
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
        """The data of a snapshot; None where it is not what was written."""
        one = self._application, shard, number
        ((size,),) = self._database.cursor(
            "SELECT size FROM snapshots WHERE application = ? AND shard = ? AND seq = ?", *one
        ).fetchall()
        parts = self._database.cursor(
            "SELECT digest, data FROM snapshot_parts WHERE application = ? AND shard = ? AND seq = ? ORDER BY start",
            *one,
        ).fetchall()
        if any(hashlib.sha256(data).digest() != digest for digest, data in parts):
            return None
        whole = b"".join(data for _, data in parts)
        return whole if len(whole) == size else None

    def save(self, shard: int, piece: SnapshotChunk, lineage_reason: str) -> None:
        """Add a piece of a snapshot; with the last one drop what is of no use beside it.

        What is dropped gives its room back piece by piece, too: to free all of it takes as long as to write it.
        """
        mine, kept = (self._application, shard), self.kept(shard)
        number = next_number(kept)
        if piece.start == 0:
            self._delete_parts(shard, number)  # of one that was given up
        starts = range(piece.start, piece.stop, CHUNK_BYTES)
        for start in starts:
            data = memoryview(piece.data)[start : min(start + CHUNK_BYTES, piece.stop)]
            self._database.cursor(
                "INSERT INTO snapshot_parts VALUES (?, ?, ?, ?, ?, ?)",
                *mine, number, start, hashlib.sha256(data).digest(), data,
            )  # fmt: skip
        self._free(shard, 2 * len(starts))
        if piece.last:
            self._close(shard, piece, lineage_reason, kept)

    def _close(self, shard: int, piece: SnapshotChunk, lineage_reason: str, kept: list[KeptSnapshot]) -> None:
        mine, now_ms = (self._application, shard), int(time.time() * 1000)
        at, size = piece.positions, len(piece.data)
        new = following(kept, positions=at, lineage_reason=lineage_reason, saved_ms=now_ms, size_bytes=size)
        self._database.cursor(
            """INSERT INTO snapshots (application, shard, seq, events, labels, line, origin, saved_ms, size)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            *mine, new.number, at.events, at.labels, new.line, new.lineage_reason, new.saved_ms, new.size_bytes,
        )  # fmt: skip
        kept.append(new)
        for one in superseded(kept, self._settings):
            self._database.cursor(
                "UPDATE snapshots SET dropped = 1 WHERE application = ? AND shard = ? AND seq = ?", *mine, one.number
            )
            kept.remove(one)
        if new.lineage_reason:
            self._database.cursor("DELETE FROM journal WHERE application = ? AND shard = ?", *mine)
        elif (floor := journal_floor(kept)) is not None:
            self._database.cursor(
                "DELETE FROM journal WHERE application = ? AND shard = ? AND (events, labels) <= (?, ?)",
                *mine, floor.events, floor.labels,
            )  # fmt: skip
        self.expire(shard)

    def expire(self, shard: int) -> None:
        """Drop what ``topics.retention_seconds`` allows to, a bounded number of records at a time.

        Of the inputs only what no application may have to read again.
        """
        topics = self._settings.topics
        if topics.retention_seconds is None:
            return
        until_ms = int((time.time() - topics.retention_seconds) * 1000)
        floor = self._read_by_all(shard)
        self._database.expire(topics.events, shard, before=floor.events, until_ms=until_ms)
        self._database.expire(topics.labels, shard, before=floor.labels, until_ms=until_ms)
        for topic in (topics.scores, topics.incidents, topics.dead_letters):
            self._database.expire(topic, shard, before=OFFSET_MASK, until_ms=until_ms)

    def _read_by_all(self, shard: int) -> InputOffsets:
        """Positions behind which no application goes back, however its newest snapshot fares."""
        rows = self._database.cursor("SELECT application FROM shards WHERE shard = ?", shard).fetchall()
        kept = [self.kept(shard, application) for (application,) in rows]
        floors = [(journal_floor(one) if one else None) or InputOffsets() for one in kept]
        return InputOffsets(min(one.events for one in floors), min(one.labels for one in floors))

    def drop(self, shard: int, number: int) -> None:
        """Delete a snapshot, and give all of its room back."""
        self._delete_parts(shard, number)
        self._database.cursor(
            "DELETE FROM snapshots WHERE application = ? AND shard = ? AND seq = ?", self._application, shard, number
        )

    def _delete_parts(self, shard: int, number: int) -> None:
        self._database.cursor(
            "DELETE FROM snapshot_parts WHERE application = ? AND shard = ? AND seq = ?",
            self._application,
            shard,
            number,
        )

    def _free(self, shard: int, parts: int) -> None:
        """Give back the room of so many parts of snapshots that were dropped."""
        mine = self._application, shard
        self._database.cursor(
            """DELETE FROM snapshot_parts WHERE rowid IN (
                   SELECT part.rowid FROM snapshots JOIN snapshot_parts AS part USING (application, shard, seq)
                   WHERE application = ? AND shard = ? AND dropped LIMIT ?)""",
            *mine,
            parts,
        )
        self._database.cursor(
            """DELETE FROM snapshots WHERE application = ? AND shard = ? AND dropped AND NOT EXISTS (
                   SELECT 1 FROM snapshot_parts AS part WHERE part.application = snapshots.application
                   AND part.shard = snapshots.shard AND part.seq = snapshots.seq)""",
            *mine,
        )
