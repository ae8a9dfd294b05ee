"""What a shard leaves in the state topic: snapshots in chunks, and the journal of marks.

The state topic is compacted; the partition is the shard; keys begin with the application's id::

    <application>/snapshot/<seq>/<chunk>     bytes of the state
    <application>/snapshot/<seq>/manifest    positions, number of chunks, digest
    <application>/journal/<events>/<labels>  marks of one commit; the key is the last one

Tombstones remove what is no longer needed. Everything is written in the transaction of its commit,
so a reader of committed records finds a snapshot whole or not at all; the digest finds what
happened to it later.
"""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

import msgspec

from stream_ad.brokers.base import Positions, Snapshot
from stream_ad.brokers.recovery import refuse_without_snapshot
from stream_ad.columns import OutRecord
from stream_ad.errors import TopicError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_ad.brokers.base import Commit

CHUNK_BYTES = 512 * 1024
KEPT_SNAPSHOTS = 2


class Manifest(msgspec.Struct, frozen=True):
    """Closes a snapshot."""

    events: int
    labels: int
    chunks: int
    sha256: str
    partitions: int
    """Of the events topic at the time: with another number sensors live in other shards."""

    @property
    def positions(self) -> Positions:
        return Positions(self.events, self.labels)


class ShardState:
    """What the state topic holds of one shard, kept up to date by the only one who may write it.

    Args:
        records: All (key, value) of the shard's partition of the state topic, in order.
    """

    def __init__(
        self, application_id: str, shard: int, partitions: int, records: Iterable[tuple[bytes | None, bytes | None]]
    ) -> None:
        self._shard = shard
        self._partitions = partitions
        self._prefix = f"{application_id}/"
        self._manifests: dict[int, Manifest] = {}  # by seq, rising
        self._marks: dict[Positions, tuple[Positions, ...]] = {}  # of a commit, by the last one, in order
        chunks: dict[str, bytes] = {}
        for key, value in records:
            if key is not None and key.startswith(self._prefix.encode()):
                self._take(key.decode().removeprefix(self._prefix), value, chunks)
        self._manifests = dict(sorted(self._manifests.items()))
        self._last_seq = max(self._manifests, default=0)
        self.snapshot = self._newest_whole(chunks)

    def _take(self, key: str, value: bytes | None, chunks: dict[str, bytes]) -> None:
        kind, *place = key.split("/")
        if kind == "journal":
            mark = Positions(int(place[0]), int(place[1]))
            if value is None:
                self._marks.pop(mark, None)
            else:
                self._marks[mark] = tuple(Positions(*m) for m in msgspec.json.decode(value, type=list[tuple[int, int]]))
        elif place[1] == "manifest":
            if value is None:
                self._manifests.pop(int(place[0]), None)
            else:
                self._manifests[int(place[0])] = msgspec.json.decode(value, type=Manifest)
        elif value is None:
            chunks.pop(key, None)
        else:
            chunks[key] = value

    def _newest_whole(self, chunks: dict[str, bytes]) -> Snapshot | None:
        for seq, manifest in reversed(self._manifests.items()):
            if manifest.partitions != self._partitions:
                raise TopicError(
                    f"Shard {self._shard} was saved when the events topic had {manifest.partitions} partitions, "
                    f"now it has {self._partitions}; its sensors live in other shards now.",
                    hint="Make topics with the new number of partitions under other names, move the records there, "
                    "and start with another application_id.",
                )
            data = b"".join(chunks.get(f"snapshot/{seq}/{n}", b"") for n in range(manifest.chunks))
            if hashlib.sha256(data).hexdigest() == manifest.sha256:
                return Snapshot(manifest.positions, data)
        refuse_without_snapshot(self._shard, len(self._manifests))
        return None

    @property
    def empty(self) -> bool:
        """Nothing was ever committed."""
        return not self._manifests and not self._marks

    @property
    def journal(self) -> tuple[Positions, ...]:
        """See ``base.Stored.journal``."""
        marks = dict.fromkeys(mark for commit in self._marks.values() for mark in commit)  # a repeated one counts once
        return tuple(mark for mark in marks if self.snapshot is None or mark > self.snapshot.positions)

    def records(self, commit: Commit) -> list[OutRecord]:
        """What a commit must write; assumes that it will be written."""
        written: list[tuple[str, bytes | None]] = []
        if commit.marks:
            last = commit.marks[-1]
            self._marks[last] = commit.marks
            value = msgspec.json.encode([(mark.events, mark.labels) for mark in commit.marks])
            written.append((_journal_key(last), value))
        if commit.snapshot is not None:
            written += self._snapshot_records(commit.positions, commit.snapshot)
        now_ms = int(time.time() * 1000)
        return [OutRecord(f"{self._prefix}{key}".encode(), value, now_ms) for key, value in written]

    def _snapshot_records(self, positions: Positions, data: bytes) -> list[tuple[str, bytes | None]]:
        self._last_seq += 1
        seq = self._last_seq
        starts = range(0, len(data), CHUNK_BYTES)
        manifest = Manifest(
            positions.events, positions.labels, len(starts), hashlib.sha256(data).hexdigest(), self._partitions
        )
        self._manifests[seq] = manifest
        written: list[tuple[str, bytes | None]] = [
            (f"snapshot/{seq}/{n}", data[start : start + CHUNK_BYTES]) for n, start in enumerate(starts)
        ]
        written.append((f"snapshot/{seq}/manifest", msgspec.json.encode(manifest)))
        for old in list(self._manifests)[:-KEPT_SNAPSHOTS]:
            written += [(f"snapshot/{old}/{n}", None) for n in range(self._manifests.pop(old).chunks)]
            written.append((f"snapshot/{old}/manifest", None))
        if len(self._manifests) > 1:  # a damaged snapshot falls back to the one before, a damaged only one to the start
            oldest = next(iter(self._manifests.values())).positions
            for mark in [mark for mark in self._marks if mark <= oldest]:
                del self._marks[mark]
                written.append((_journal_key(mark), None))
        return written


def _journal_key(mark: Positions) -> str:
    return f"journal/{mark.events}/{mark.labels}"
