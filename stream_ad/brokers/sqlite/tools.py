"""The producer, reader and topic administration of the embedded broker."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from stream_ad.brokers.partitioner import partition_for
from stream_ad.brokers.sqlite.database import OFFSET_BITS, OFFSET_MASK, Database, decode_headers, topic_roles
from stream_ad.brokers.sqlite.doctor import examine
from stream_ad.brokers.sqlite.read_only import ChangedError, DatabaseView
from stream_ad.brokers.tools_api import TopicPlan
from stream_ad.brokers.worker_api import InputTopic
from stream_ad.errors import BrokerError, TopicError
from stream_ad.records.columns import OutRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream_ad.settings import Settings
    from stream_ad.util.findings import Finding


class SqliteProducer:
    """See ``tools_api.Producer``. Each ``send`` is one transaction: send many records at a time."""

    def __init__(self, settings: Settings) -> None:
        self._topics = {InputTopic.EVENTS: settings.topics.events, InputTopic.LABELS: settings.topics.labels}
        self._partitions = settings.topics.partitions
        self._database = Database(settings)

    def send(self, side: InputTopic, records: Sequence[OutRecord]) -> None:
        """See ``Producer.send``."""
        by_partition: defaultdict[int, list[OutRecord]] = defaultdict(list)
        for record in records:
            by_partition[partition_for(record.key, self._partitions)].append(record)
        with self._database.write():
            for partition, batch in by_partition.items():
                self._database.append(self._topics[side], partition, batch)

    def flush(self) -> None:
        """Do nothing: ``send`` returns once its records are durable."""

    def close(self) -> None:
        """Close the database."""
        self._database.close()


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


class SqliteAdmin:
    """See ``tools_api.Admin``. The topics are created with the file."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._path = Path(settings.broker.path).expanduser()

    def plan(self) -> list[TopicPlan]:
        """See ``Admin.plan``."""
        self.ping()
        existing: defaultdict[str, int] = defaultdict(int)
        if self._path.exists():
            database = DatabaseView(self._settings)
            database.close()
            for topic, _ in database.logs:
                existing[topic] += 1
        wanted = self._settings.topics.partitions
        others = set(existing.values()) - {wanted}
        problem = (
            f"{self._path} was created with {others.pop()} partitions; that cannot be changed, use another broker.path."
            if others
            else ""
        )
        return [
            TopicPlan(topic, role, wanted, exists=topic in existing, problem=problem)
            for role, topic in topic_roles(self._settings).items()
        ]

    def apply(self) -> list[TopicPlan]:
        """See ``Admin.apply``."""
        plan = self.plan()
        if not any(topic.problem for topic in plan):
            Database(self._settings).close()
        return plan

    def examine(self) -> Iterator[Finding]:
        """See ``Admin.examine``."""
        yield from examine(self._settings, self._path, self.plan())

    def ping(self) -> None:
        """See ``Admin.ping``."""
        if self._path.exists():
            DatabaseView(self._settings).close()
        elif not os.access(self._path.parent, os.W_OK | os.X_OK):
            raise BrokerError(
                f"The embedded broker cannot create {self._path}: its folder is missing or read-only.",
                hint="Create the folder and make it writable, or set broker.path to another file.",
            )

    def close(self) -> None:
        """Do nothing: nothing is kept open."""
