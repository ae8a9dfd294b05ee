"""What a shard leaves in the state topic: snapshots in chunks, and the journal of marks.

The state topic is compacted; the partition is the shard; keys begin with the application's id::

    <application>/snapshot/<number>/<chunk>     bytes of the state
    <application>/snapshot/<number>/manifest    positions, number of chunks, digest
    <application>/journal/<events>/<labels>     marks of one commit; the key is the last one

Tombstones remove what is no longer needed. Everything is written in the transaction of its commit; the manifest comes
after all chunks, so a reader of committed records finds a snapshot whole or not at all; the digest finds what
happened to it later. Whoever may write to the topic may write nonsense: it is read as such.

Chunks of a large snapshot go along with several commits, whose marks come before its manifest. The next commit repeats
them: a load may begin right behind the manifest.
"""

from __future__ import annotations

import hashlib
import re
import time
from typing import TYPE_CHECKING

import msgspec

from stream_ad.brokers.kafka.snapshot_manifest import Manifest, Older, read_manifest
from stream_ad.brokers.kafka.state_journal import KafkaJournal
from stream_ad.brokers.snapshot_retention import (
    KEPT_FOR_REPLAY,
    following,
    for_replay,
    journal_floor,
    next_number,
    superseded,
)
from stream_ad.brokers.worker_api import PART_BYTES, InputOffsets, KeptSnapshot, Snapshot
from stream_ad.errors import TopicError
from stream_ad.records.columns import OutRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stream_ad.brokers.kafka.state_journal import Written
    from stream_ad.brokers.worker_api import Commit, SnapshotChunk
    from stream_ad.settings import Settings

CHUNK_BYTES = PART_BYTES
PART_CHUNKS = 64  # of a snapshot in one transaction: 32 MiB
_KEY = re.compile(r"(journal|snapshot)/(\d{1,18})/(\d{1,18}|manifest)", re.ASCII)


class ShardState:
    """What the state topic holds of one shard, kept up to date by the only one who may write it.

    Args:
        settings: Whose.
        shard: Its number.
        records: (key, value, offset) of the shard's partition of the state topic, in order: all, or those from
            ``start`` on.
        start: Offset of the first of them.
        history: Whether to hold the data of older snapshots than a replay may need, too; a worker has no use for it.

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
        self._manifests: dict[int, Manifest | None] = {}  # by number; None: it cannot be read
        self._journal = KafkaJournal(settings, shard)
        self._chunks: dict[int, dict[int, bytes]] = {}  # by number and place
        self._removed: set[int] = set()
        self._after: dict[int, int] = {}  # an offset after a snapshot's manifest, before any later mark
        self._unplaced = False  # a snapshot is being written
        self._digest = hashlib.sha256()  # of the parts so far
        self.start = start
        """Offset from which on the topic holds what a load needs: the newest snapshot, and the journal since the one
        before. Should the newest turn out to be damaged, a load reads everything."""
        prefix = self._prefix.encode()
        for key, value, offset in records:
            if key is not None and key.startswith(prefix):
                self._take(key[len(prefix) :].decode("ascii", "replace"), value, offset)
        self._places = {number: list(chunks) for number, chunks in self._chunks.items()}
        self.kept = sorted([*map(self._entry, self._manifests), *self._not_read()], key=lambda one: one.number)
        """All snapshots, damaged ones included, by rising number."""

    def _take(self, key: str, value: bytes | None, offset: int) -> None:
        if (match := _KEY.fullmatch(key)) is None:
            return  # nobody of ours writes such a key
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
                self._after[number] = offset + 1
                if manifest is not None:
                    self._journal.closed(InputOffsets(manifest.events, manifest.labels))
                for old in () if self._history else sorted(self._manifests)[:-KEPT_FOR_REPLAY]:
                    self._chunks[old] = dict.fromkeys(self._chunks.get(old, ()), b"")  # places are needed to remove it
        elif kind == "snapshot":
            chunks = self._chunks.setdefault(number, {})
            if value is not None:
                chunks[int(second)] = value
            elif chunks.pop(int(second), None) is not None and not chunks:
                del self._chunks[number]

    def _entry(self, number: int) -> KeptSnapshot:
        manifest, size = self._manifests[number], sum(map(len, self._chunks.get(number, {}).values()))
        if manifest is None:
            return KeptSnapshot(number, InputOffsets(), line=number, size_bytes=size)
        positions = InputOffsets(manifest.events, manifest.labels)
        return KeptSnapshot(number, positions, manifest.line, manifest.lineage_reason, manifest.saved_ms, size)

    def _not_read(self) -> list[KeptSnapshot]:
        """Snapshots before ``start``, which only the newest manifest tells of."""
        newest = self._manifests[max(self._manifests)] if self.start and self._manifests else None
        unread = [
            one
            for one in (newest.older if newest else ())
            if one.number not in self._manifests and one.number not in self._removed
        ]
        self._places.update({one.number: list(range(one.chunks)) for one in unread})
        return [
            KeptSnapshot(
                one.number,
                InputOffsets(one.events, one.labels),
                one.line,
                one.lineage_reason,
                one.saved_ms,
                one.size_bytes,
            )
            for one in unread
        ]

    def written_to(self, last: int) -> None:
        """Take note of the last offset that the last ``records`` got, before their commit ends."""
        if self._unplaced:
            self._after[self.kept[-1].number] = last + 1
            self._unplaced = False
            if len(self.kept) >= KEPT_FOR_REPLAY:
                self.start = self._after.get(self.kept[-KEPT_FOR_REPLAY].number, self.start)

    def data(self, number: int) -> bytes | None:
        """A snapshot's data; None where it is not what was written."""
        manifest, chunks = self._manifests.get(number), self._chunks.get(number, {})
        if manifest is None or manifest.chunks > len(chunks):
            return None
        data = b"".join(chunks.get(place, b"") for place in range(manifest.chunks))
        return data if hashlib.sha256(data).hexdigest() == manifest.sha256 else None

    def newest_whole(self, committed: InputOffsets, older_than: int | None = None) -> Snapshot | None:
        """What a replay begins with; see ``recovery.for_replay``.

        Raises:
            TopicError: It was saved with another number of partitions.
        """
        for one in for_replay(self.kept, committed, older_than) if self.kept else ():
            manifest = self._manifests.get(one.number)  # none: it was not read, or cannot be
            wanted = self._settings.topics.partitions
            if manifest is not None and manifest.partitions != wanted:
                raise TopicError(
                    f"Shard {self._shard} was saved when the events topic had {manifest.partitions} partitions, "
                    f"now it has {wanted}; its sensors live in other shards now.",
                    hint="Make topics with the new number of partitions under other names, move the records there, "
                    "and start with another application_id.",
                )
            if (data := self.data(one.number)) is not None:
                return Snapshot(one.positions, data, one.number)
        return None

    def forget_data(self) -> None:
        """Let go of the data; what is kept stays known."""
        self._chunks.clear()

    @property
    def empty(self) -> bool:
        """Nothing was ever committed."""
        return not self._manifests and not self._journal

    @property
    def seen(self) -> InputOffsets | None:
        """How far the shard had come at least; None where nothing was ever committed."""
        last = self._journal.last
        return max([*(one.positions for one in self.kept[-1:]), *(() if last is None else (last,))], default=None)

    def journal(self, since: Snapshot | None) -> tuple[InputOffsets, ...]:
        """See ``base.ShardCheckpoint.journal``."""
        return self._journal.since(since)

    def records(self, commit: Commit) -> tuple[list[list[OutRecord]], list[OutRecord]]:
        """What must be written ahead of a commit, in parts, and with it; assumes that it will be written.

        A large snapshot takes longer than a transaction may. So most of its chunks go ahead, in transactions of their
        own: without the manifest, which the commit writes, they are nothing.
        """
        written = self._journal.add(commit.step_boundaries)
        ahead: list[list[OutRecord]] = []
        if (part := commit.piece) is not None:
            chunks = self._chunk_records(part)
            while len(chunks) > PART_CHUNKS:
                ahead.append(self._as_records(chunks[:PART_CHUNKS]))
                chunks = chunks[PART_CHUNKS:]
            written += chunks
            if part.last:
                written += self._closing_records(part, commit.lineage_reason)
                self._journal.closed(part.positions)
                self._unplaced = True
        return ahead, self._as_records(written)

    def removal(self, number: int) -> list[OutRecord]:
        """What removes a snapshot; assumes that it will be written."""
        return self._as_records(self._remove(number))

    def _as_records(self, written: Sequence[Written]) -> list[OutRecord]:
        now_ms = int(time.time() * 1000)
        return [OutRecord(f"{self._prefix}{key}".encode(), value, now_ms) for key, value in written]

    def _chunk_records(self, part: SnapshotChunk) -> list[Written]:
        if part.start == 0:
            self._digest = hashlib.sha256()
        self._digest.update(memoryview(part.data)[part.start : part.stop])
        number = next_number(self.kept)
        starts = range(part.start, part.stop, CHUNK_BYTES)
        left_behind = self._places.get(number, [])  # by a commit that did not come about
        self._places[number] = sorted({*left_behind, *(start // CHUNK_BYTES for start in starts)})
        return [
            (f"snapshot/{number}/{start // CHUNK_BYTES}", part.data[start : min(start + CHUNK_BYTES, part.stop)])
            for start in starts
        ]

    def _closing_records(self, part: SnapshotChunk, lineage_reason: str) -> list[Written]:
        """The manifest, and what removes all that it supersedes."""
        positions, size = part.positions, len(part.data)
        now_ms, count = int(time.time() * 1000), -(-size // CHUNK_BYTES)
        new = following(self.kept, positions=positions, lineage_reason=lineage_reason, saved_ms=now_ms, size_bytes=size)
        manifest = Manifest(
            positions.events,
            positions.labels,
            count,
            self._digest.hexdigest(),
            self._settings.topics.partitions,
            new.line,
            new.lineage_reason,
            new.saved_ms,
            tuple(self._older()),
        )
        self.kept.append(new)
        self._manifests[new.number] = manifest
        prefix = f"snapshot/{new.number}"
        written: list[Written] = [(f"{prefix}/manifest", msgspec.json.encode(manifest))]
        written += [(f"{prefix}/{place}", None) for place in self._places[new.number] if place >= count]
        self._places[new.number] = list(range(count))
        for old in superseded(self.kept, self._settings):
            written += self._remove(old.number)
        floor = journal_floor(self.kept)
        if lineage_reason or floor is not None:
            written += self._journal.prune(None if lineage_reason else floor)
        return written

    def _older(self) -> Iterable[Older]:
        for one in self.kept:
            at, chunks = one.positions, len(self._places.get(one.number, ()))
            yield Older(
                one.number, at.events, at.labels, one.line, one.lineage_reason, one.saved_ms, one.size_bytes, chunks
            )

    def _remove(self, number: int) -> list[Written]:
        self.kept = [one for one in self.kept if one.number != number]
        self._manifests.pop(number, None)
        self._after.pop(number, None)
        places = self._places.pop(number, [])
        removed: list[Written] = [(f"snapshot/{number}/{place}", None) for place in places]
        return [*removed, (f"snapshot/{number}/manifest", None)]
