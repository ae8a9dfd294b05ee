"""The reader of output topics of the embedded broker."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING

from stream_ad.brokers.sqlite.database import OFFSET_BITS, OFFSET_MASK, decode_headers
from stream_ad.brokers.sqlite.read_only import ChangedError, DatabaseView
from stream_ad.errors import TopicError
from stream_ad.records.columns import OutRecord

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from stream_ad.settings import Settings

_NO_LIMIT = -1  # of SQLite


class SqliteReader:
    """See ``tools_api.Reader``."""

    def __init__(self, settings: Settings) -> None:
        self._partitions = settings.topics.partitions
        self._database = DatabaseView(settings)
        self._database.require_made(settings)
        self._next: defaultdict[int, int] = defaultdict(int)

    def read(self, topic: str, *, timeout_s: float = 0.0) -> list[tuple[bytes | None, bytes | None]]:
        """See ``Reader.read``."""
        return [(record.key, record.value) for record in self.read_records(topic, timeout_s=timeout_s)]

    def read_records(self, topic: str, *, timeout_s: float = 0.0, limit: int | None = None) -> list[OutRecord]:
        """See ``Reader.read_records``."""
        self._require(topic)
        deadline = time.monotonic() + timeout_s
        while True:
            records: list[OutRecord] = []
            try:
                version = self._database.data_version()
                for partition in range(self._partitions):
                    records += self._new(self._database.logs[topic, partition], limit)
                if records or not self._database.wait_for_change(version, deadline):
                    return records
            except ChangedError:  # from now on the file is read beside the writer
                if records:
                    return records

    def seek_to_time(self, topic: str, time_ms: int) -> None:
        """See ``Reader.seek_to_time``."""
        self._seek(
            topic,
            lambda first, last: self._database.cursor(
                "SELECT id FROM records WHERE id >= ? AND id <= ? AND time_ms >= ? ORDER BY id LIMIT 1",
                first,
                last,
                time_ms,
            ),
        )

    def seek_to_newest(self, topic: str, count: int) -> None:
        """See ``Reader.seek_to_newest``."""
        self._seek(
            topic,
            lambda first, last: self._database.cursor(
                "SELECT min(id) FROM (SELECT id FROM records WHERE id >= ? AND id <= ? ORDER BY id DESC LIMIT ?)",
                first,
                last,
                count,
            ),
        )

    def _seek(self, topic: str, find: Callable[[int, int], sqlite3.Cursor]) -> None:
        """Begin each partition with the record that a statement finds, or with the next one to be written.

        Args:
            topic: The topic's name.
            find: Runs the statement, given the first and the last id that records of the partition can have.
        """
        self._require(topic)
        for partition in range(self._partitions):
            log = self._database.logs[topic, partition]
            while True:
                try:
                    head = self._database.heads()[log]  # first: a record that is written meanwhile is read later
                    with self._database.errors():
                        row = find(log << OFFSET_BITS, log << OFFSET_BITS | OFFSET_MASK).fetchone()
                except ChangedError:  # from now on the file is read beside the writer
                    continue
                self._next[log] = head if row is None or row[0] is None else row[0] & OFFSET_MASK
                break

    def _require(self, topic: str) -> None:
        if (topic, 0) not in self._database.logs:
            with self._database.errors():
                self._database.read_logs()  # it may have been created since
        if (topic, 0) not in self._database.logs:
            raise TopicError(
                f"There is no topic {topic} in {self._database.path}.", hint="Check the names in the section topics."
            )

    def _new(self, log: int, limit: int | None) -> list[OutRecord]:
        first, last = log << OFFSET_BITS | self._next[log], log << OFFSET_BITS | OFFSET_MASK
        with self._database.errors():
            rows = self._database.cursor(
                "SELECT key, value, time_ms, headers, id FROM records WHERE id >= ? AND id <= ? ORDER BY id LIMIT ?",
                first,
                last,
                _NO_LIMIT if limit is None else limit,
            ).fetchall()
        if rows:
            self._next[log] = (rows[-1][4] & OFFSET_MASK) + 1
        return [OutRecord(key, value, time_ms, decode_headers(headers)) for key, value, time_ms, headers, _ in rows]

    def close(self) -> None:
        """Close the database."""
        self._database.close()
