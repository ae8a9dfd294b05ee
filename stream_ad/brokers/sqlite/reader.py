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
    from stream_ad.settings import Settings


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

    def read_records(self, topic: str, *, timeout_s: float = 0.0) -> list[OutRecord]:
        """See ``Reader.read_records``."""
        if (topic, 0) not in self._database.logs:
            with self._database.errors():
                self._database.read_logs()  # it may have been created since
        if (topic, 0) not in self._database.logs:
            raise TopicError(
                f"There is no topic {topic} in {self._database.path}.", hint="Check the names in the section topics."
            )
        deadline = time.monotonic() + timeout_s
        while True:
            records: list[OutRecord] = []
            try:
                version = self._database.data_version()
                for partition in range(self._partitions):
                    records += self._new(self._database.logs[topic, partition])
                if records or not self._database.wait_for_change(version, deadline):
                    return records
            except ChangedError:  # from now on the file is read beside the writer
                if records:
                    return records

    def _new(self, log: int) -> list[OutRecord]:
        first, last = log << OFFSET_BITS | self._next[log], log << OFFSET_BITS | OFFSET_MASK
        with self._database.errors():
            rows = self._database.cursor(
                "SELECT key, value, time_ms, headers, id FROM records WHERE id >= ? AND id <= ? ORDER BY id",
                first,
                last,
            ).fetchall()
        if rows:
            self._next[log] = (rows[-1][4] & OFFSET_MASK) + 1
        return [OutRecord(key, value, time_ms, decode_headers(headers)) for key, value, time_ms, headers, _ in rows]

    def close(self) -> None:
        """Close the database."""
        self._database.close()
