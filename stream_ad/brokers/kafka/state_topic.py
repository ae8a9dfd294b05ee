"""A shard's part of the state topic: snapshots in chunks, and the journal of step boundaries.

The state topic is compacted; the partition is the shard; keys begin with the application's id::

    <application>/snapshot/<number>/<chunk>     bytes of the state
    <application>/snapshot/<number>/manifest    offsets, number of chunks, digest
    <application>/journal/<events>/<labels>     step boundaries of one commit; the key is the last of them

A snapshot is written in these steps, all within the transactions of commits:

1. Its chunks, of ``CHUNK_BYTES`` each. A snapshot written with one commit that has more than ``TRANSACTION_CHUNKS``
   writes the first ones ahead, in transactions of their own; a ``SnapshotChunk`` goes with each of several commits.
2. With the last chunk, the manifest. A reader of committed records therefore finds a snapshot whole or not at all, and
   the digest reveals damage that happened later.
3. In the same transaction, tombstones for surplus chunks that an abandoned snapshot left under the same number, for the
   snapshots that this one supersedes, and for journal records that no replay needs any more.
4. With the next commit, the step boundaries that lie after the snapshot but were written before its manifest: they are
   repeated, since a load may begin to read right behind the manifest.

Anybody who may write to the topic may write nonsense: it is skipped, or read as a damaged snapshot.
"""

from __future__ import annotations

import hashlib
import re
import time
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec

from stream_ad.brokers.kafka.snapshot_manifest import Manifest, Older, read_manifest
from stream_ad.brokers.kafka.state_journal import KafkaJournal
from stream_ad.brokers.snapshot_retention import (
    KEPT_FOR_REPLAY,
    for_replay,
    journal_floor,
    next_number,
    next_snapshot,
    superseded,
)
from stream_ad.brokers.worker_api import SNAPSHOT_CHUNK_BYTES, InputOffsets, KeptSnapshot, Snapshot
from stream_ad.errors import TopicError
from stream_ad.records.columns import OutRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stream_ad.brokers.kafka.state_journal import StateRecord
    from stream_ad.brokers.worker_api import Commit, SnapshotChunk
    from stream_ad.settings import Settings

CHUNK_BYTES = SNAPSHOT_CHUNK_BYTES  # of one record, below the default max.message.bytes of 1 MiB
TRANSACTION_CHUNKS = (
    64  # of a snapshot in one transaction (32 MiB): more could exceed broker.transaction_timeout_seconds
)
_KEY = re.compile(r"(journal|snapshot)/(\d{1,18})/(\d{1,18}|manifest)", re.ASCII)


class ShardState:
    """The state topic's content for one shard, kept up to date by its only writer.

    Args:
        settings: Of the application.
        shard: The shard's number.
        records: (key, value, offset) of the shard's partition of the state topic, in order: all, or those from
            ``start`` on.
        start: Offset of the first record.
        history: Whether to keep the data of snapshots older than a replay may need; workers do not need it.

    Raises:
        StateError: The journal cannot be read.
    """

    def __init__(
        self,
        settings: Settings,
        shard: int,
        records: Iterable[tuple[bytes | None, bytes | None, int]],
        *,
        start: int = 0,
        history: bool = True,
    ) -> None:
        self._settings = settings
        self._shard = shard
        self._history = history
        self._prefix = f"{settings.application_id}/"
        self._manifests: dict[int, Manifest | None] = {}  # by number; None: unreadable
        self._journal = KafkaJournal(settings, shard)
        self._chunks: dict[int, dict[int, bytes]] = {}  # by number and index
        self._removed: set[int] = set()
        self._offset_after: dict[int, int] = {}  # by number: an offset behind the manifest, before any later boundary
        self._manifest_pending = False  # the manifest of the newest snapshot has no offset yet
        self._digest = hashlib.sha256()  # of the chunks so far
        self.start = start
        """Offset from which the topic holds what a load needs: the newest snapshot, and the journal since the previous
        one. If the newest turns out to be damaged, a load reads everything."""
        prefix = self._prefix.encode()
        for key, value, offset in records:
            if key is not None and key.startswith(prefix):
                self._take(key[len(prefix) :].decode("ascii", "replace"), value, offset)
        self._chunk_indices = {number: list(chunks) for number, chunks in self._chunks.items()}
        self.kept = sorted([*map(self._entry, self._manifests), *self._unread_snapshots()], key=attrgetter("number"))
        """All snapshots, damaged ones included, by increasing number."""

    def _take(self, key: str, value: bytes | None, offset: int) -> None:
        if (match := _KEY.fullmatch(key)) is None:
            return  # not a key that this program writes
        kind, first, second = match.groups()
        number = int(first)
        if kind == "journal" and second != "manifest":
            self._journal.take(InputOffsets(number, int(second)), value)
        elif kind == "snapshot" and second == "manifest":
            if value is None:
                self._manifests.pop(number, None)
                self._removed.add(number)
            else:
                self._manifests[number] = manifest = read_manifest(value)
                self._offset_after[number] = offset + 1
                if manifest is not None:
                    self._journal.on_manifest(InputOffsets(manifest.events, manifest.labels))
                for old in () if self._history else sorted(self._manifests)[:-KEPT_FOR_REPLAY]:
                    self._chunks[old] = dict.fromkeys(
                        self._chunks.get(old, ()), b""
                    )  # indices are needed to remove them
        elif kind == "snapshot":
            chunks = self._chunks.setdefault(number, {})
            if value is not None:
                chunks[int(second)] = value
            elif chunks.pop(int(second), None) is not None and not chunks:
                del self._chunks[number]

    def _entry(self, number: int) -> KeptSnapshot:
        manifest, size = self._manifests[number], sum(map(len, self._chunks.get(number, {}).values()))
        if manifest is None:
            return KeptSnapshot(number, InputOffsets(), lineage=number, size_bytes=size)
        positions = InputOffsets(manifest.events, manifest.labels)
        return KeptSnapshot(number, positions, manifest.lineage, manifest.lineage_reason, manifest.saved_ms, size)

    def _unread_snapshots(self) -> list[KeptSnapshot]:
        """Return the snapshots before ``start``, which only the newest manifest lists."""
        newest = self._manifests[max(self._manifests)] if self.start and self._manifests else None
        unread = [
            older
            for older in (newest.older if newest else ())
            if older.number not in self._manifests and older.number not in self._removed
        ]
        self._chunk_indices.update({older.number: list(range(older.chunks)) for older in unread})
        return [
            KeptSnapshot(
                older.number,
                InputOffsets(older.events, older.labels),
                older.lineage,
                older.lineage_reason,
                older.saved_ms,
                older.size_bytes,
            )
            for older in unread
        ]

    def on_written(self, last: int) -> None:
        """Note the offset of the last record that ``records`` returned; call before the commit ends."""
        if self._manifest_pending:
            self._offset_after[self.kept[-1].number] = last + 1
            self._manifest_pending = False
            if len(self.kept) >= KEPT_FOR_REPLAY:
                self.start = self._offset_after.get(self.kept[-KEPT_FOR_REPLAY].number, self.start)

    def data(self, number: int) -> bytes | None:
        """Return a snapshot's data; None where it is not what was written."""
        manifest, chunks = self._manifests.get(number), self._chunks.get(number, {})
        if manifest is None or manifest.chunks > len(chunks):
            return None
        data = b"".join(chunks.get(index, b"") for index in range(manifest.chunks))
        return data if hashlib.sha256(data).hexdigest() == manifest.sha256 else None

    def newest_whole(self, committed: InputOffsets, older_than: int | None = None) -> Snapshot | None:
        """Return the newest snapshot that a replay may begin with and whose data is complete; None where there is none.

        Args:
            committed: The shard's committed offsets.
            older_than: See ``worker_api.Broker.load``.

        Raises:
            TopicError: The snapshot was saved with another number of partitions.
        """
        for snapshot in for_replay(self.kept, committed, older_than) if self.kept else ():
            manifest = self._manifests.get(snapshot.number)  # None: before ``start``, or unreadable
            wanted = self._settings.topics.partitions
            if manifest is not None and manifest.partitions != wanted:
                raise TopicError(
                    f"Shard {self._shard} was saved when the events topic had {manifest.partitions} partitions, "
                    f"now it has {wanted}; its sensors now belong to other shards.",
                    hint="Create topics with the new number of partitions under other names, move the records to them, "
                    "and start with another application_id.",
                )
            if (data := self.data(snapshot.number)) is not None:
                return Snapshot(snapshot.positions, data, snapshot.number)
        return None

    def forget_data(self) -> None:
        """Free the data of all snapshots; their descriptions stay in ``kept``."""
        self._chunks.clear()

    @property
    def empty(self) -> bool:
        """Whether nothing was ever committed."""
        return not self._manifests and not self._journal

    @property
    def seen(self) -> InputOffsets | None:
        """Offsets that the shard had reached at least; None where nothing was ever committed."""
        last = self._journal.last
        return max(
            [*(snapshot.positions for snapshot in self.kept[-1:]), *(() if last is None else (last,))], default=None
        )

    def journal(self, since: Snapshot | None) -> tuple[InputOffsets, ...]:
        """Return the step boundaries since a snapshot; see ``worker_api.ShardCheckpoint.journal``."""
        return self._journal.since(since)

    def records(self, commit: Commit) -> tuple[list[list[OutRecord]], list[OutRecord]]:
        """Return the state records of a commit, and update this object as if they were written.

        A large snapshot takes longer to write than a transaction may last. So most of its chunks are written ahead, in
        transactions of their own: without the manifest, which the commit writes, they do not count.

        Returns:
            The records of each transaction to write before the commit, and the records to write with it.
        """
        written = self._journal.add(commit.step_boundaries)
        ahead: list[list[OutRecord]] = []
        if (chunk := commit.chunk_to_write) is not None:
            chunks = self._chunk_records(chunk)
            while len(chunks) > TRANSACTION_CHUNKS:
                ahead.append(self._as_records(chunks[:TRANSACTION_CHUNKS]))
                chunks = chunks[TRANSACTION_CHUNKS:]
            written += chunks
            if chunk.last:
                written += self._closing_records(chunk, commit.lineage_reason)
                self._journal.on_manifest(chunk.positions)
                self._manifest_pending = True
        return ahead, self._as_records(written)

    def removal(self, number: int) -> list[OutRecord]:
        """Return the tombstones that remove a snapshot, and update this object as if they were written."""
        return self._as_records(self._remove(number))

    def _as_records(self, written: Sequence[StateRecord]) -> list[OutRecord]:
        now_ms = int(time.time() * 1000)
        return [OutRecord(f"{self._prefix}{key}".encode(), value, now_ms) for key, value in written]

    def _chunk_records(self, chunk: SnapshotChunk) -> list[StateRecord]:
        if chunk.start == 0:
            self._digest = hashlib.sha256()
        self._digest.update(memoryview(chunk.data)[chunk.start : chunk.stop])
        number = next_number(self.kept)
        starts = range(chunk.start, chunk.stop, CHUNK_BYTES)
        left_behind = self._chunk_indices.get(number, [])  # by an abandoned snapshot
        self._chunk_indices[number] = sorted({*left_behind, *(start // CHUNK_BYTES for start in starts)})
        return [
            (f"snapshot/{number}/{start // CHUNK_BYTES}", chunk.data[start : min(start + CHUNK_BYTES, chunk.stop)])
            for start in starts
        ]

    def _closing_records(self, chunk: SnapshotChunk, lineage_reason: str) -> list[StateRecord]:
        """Return the manifest, and the tombstones of everything that the snapshot supersedes."""
        positions, size = chunk.positions, len(chunk.data)
        now_ms, count = int(time.time() * 1000), -(-size // CHUNK_BYTES)
        new = next_snapshot(
            self.kept, positions=positions, lineage_reason=lineage_reason, saved_ms=now_ms, size_bytes=size
        )
        manifest = Manifest(
            positions.events,
            positions.labels,
            count,
            self._digest.hexdigest(),
            self._settings.topics.partitions,
            new.lineage,
            new.lineage_reason,
            new.saved_ms,
            tuple(self._older()),
        )
        self.kept.append(new)
        self._manifests[new.number] = manifest
        prefix = f"snapshot/{new.number}"
        written: list[StateRecord] = [(f"{prefix}/manifest", msgspec.json.encode(manifest))]
        written += [(f"{prefix}/{index}", None) for index in self._chunk_indices[new.number] if index >= count]
        self._chunk_indices[new.number] = list(range(count))
        for old in superseded(self.kept, self._settings):
            written += self._remove(old.number)
        floor = journal_floor(self.kept)
        if lineage_reason or floor is not None:
            written += self._journal.prune(None if lineage_reason else floor)
        return written

    def _older(self) -> Iterable[Older]:
        for snapshot in self.kept:
            yield Older(
                snapshot.number,
                snapshot.positions.events,
                snapshot.positions.labels,
                snapshot.lineage,
                snapshot.lineage_reason,
                snapshot.saved_ms,
                snapshot.size_bytes,
                len(self._chunk_indices.get(snapshot.number, ())),
            )

    def _remove(self, number: int) -> list[StateRecord]:
        self.kept = [snapshot for snapshot in self.kept if snapshot.number != number]
        self._manifests.pop(number, None)
        self._offset_after.pop(number, None)
        indices = self._chunk_indices.pop(number, [])
        removed: list[StateRecord] = [(f"snapshot/{number}/{index}", None) for index in indices]
        return [*removed, (f"snapshot/{number}/manifest", None)]
