"""The database of the embedded broker: its tables, its transactions and the errors of its file.

Records of all topics are in one table, whose integer key combines the number of the log (a partition of a topic) and
the offset (``log << 40 | offset``): a B-tree on one integer is appended and scanned far faster than a composite key,
and keeps large records compact.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from stream_ad.brokers.sqlite.error_mapping import REASONS
from stream_ad.errors import BrokerError, TopicError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream_ad.records.columns import OutRecord
    from stream_ad.settings import Settings

OFFSET_BITS = 40
OFFSET_MASK = (1 << OFFSET_BITS) - 1

_MAGIC = 0x5AD0_5AD0  # PRAGMA application_id: distinguishes this program's files from those of others
FORMAT = 3  # PRAGMA user_version
_EXPIRE_RECORDS = 50_000  # in one transaction, so that a commit stays fast
_BUSY_S = 0.25  # that SQLite waits for a lock in C, where signals wait; ``_retry_while_busy`` tries again
CONNECTION: dict[str, Any] = {
    "timeout": _BUSY_S,
    "isolation_level": None,
    "check_same_thread": False,
    "cached_statements": 256,
}
_POLL_INTERVAL_S = (0.0005, 0.004)  # between checks of an idle database: shortest, longest

_TABLES = (
    """CREATE TABLE logs (
        id INTEGER PRIMARY KEY, topic TEXT NOT NULL, partition INTEGER NOT NULL,
        next_offset INTEGER NOT NULL DEFAULT 0, UNIQUE (topic, partition))""",
    "CREATE TABLE records (id INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, key BLOB, value BLOB, headers BLOB)",
    """CREATE TABLE shards (
        application TEXT NOT NULL, shard INTEGER NOT NULL, epoch INTEGER NOT NULL,
        events INTEGER NOT NULL DEFAULT 0, labels INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (application, shard)) WITHOUT ROWID""",
    """CREATE TABLE journal (
        application TEXT NOT NULL, shard INTEGER NOT NULL, events INTEGER NOT NULL, labels INTEGER NOT NULL,
        PRIMARY KEY (application, shard, events, labels)) WITHOUT ROWID""",
    """CREATE TABLE snapshots (
        application TEXT NOT NULL, shard INTEGER NOT NULL, seq INTEGER NOT NULL,
        events INTEGER NOT NULL, labels INTEGER NOT NULL,
        line INTEGER NOT NULL DEFAULT 0, origin TEXT NOT NULL DEFAULT '', saved_ms INTEGER NOT NULL DEFAULT 0,
        size INTEGER NOT NULL DEFAULT 0, dropped INTEGER NOT NULL DEFAULT 0,
        UNIQUE (application, shard, seq))""",
    _PARTS := """CREATE TABLE snapshot_parts (
        application TEXT NOT NULL, shard INTEGER NOT NULL, seq INTEGER NOT NULL, start INTEGER NOT NULL,
        digest BLOB NOT NULL, data BLOB NOT NULL,
        UNIQUE (application, shard, seq, start))""",
)
_UPGRADES = {  # statements by the format that they lead to from the previous one
    2: (
        "ALTER TABLE snapshots ADD COLUMN line INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE snapshots ADD COLUMN origin TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE snapshots ADD COLUMN saved_ms INTEGER NOT NULL DEFAULT 0",
    ),
    3: (
        _PARTS,
        "INSERT INTO snapshot_parts SELECT application, shard, seq, 0, digest, data FROM snapshots",
        "ALTER TABLE snapshots ADD COLUMN size INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE snapshots ADD COLUMN dropped INTEGER NOT NULL DEFAULT 0",
        "UPDATE snapshots SET size = length(data)",
        "ALTER TABLE snapshots DROP COLUMN data",
        "ALTER TABLE snapshots DROP COLUMN digest",
    ),
}


def topic_roles(settings: Settings) -> dict[str, str]:
    """Return the topic names by role of every topic that the embedded broker keeps (the state has its own tables)."""
    topics = settings.topics
    return {role: getattr(topics, role) for role in ("events", "labels", "scores", "incidents", "dead_letters")}


def encode_headers(headers: tuple[tuple[str, bytes], ...]) -> bytes | None:
    """Encode the headers of a record; None where there are none."""
    return msgspec.msgpack.encode(headers) if headers else None


def decode_headers(data: bytes | None) -> tuple[tuple[str, bytes], ...]:
    """Decode the headers of a record."""
    return msgspec.msgpack.decode(data, type=tuple[tuple[str, bytes], ...]) if data else ()


class Database:
    """A connection to the database file, which is created, or upgraded, where necessary.

    A connection may be passed between threads, but not be used by two at a time. To read only, see ``read_only``.

    Raises:
        BrokerError: The file cannot be used.
        TopicError: The file was created with another number of partitions.
    """

    logs: dict[tuple[str, int], int]
    """The numbers of the logs, by topic and partition."""

    def __init__(self, settings: Settings) -> None:
        self.path = Path(settings.broker.path).expanduser()
        self._give_up_s = settings.broker.give_up_seconds
        self.logs = {}
        with self.errors():
            self._connection = self._connect()
        try:
            with self.errors():
                self._open(settings)
        except BaseException:
            self._connection.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, **CONNECTION)

    def _open(self, settings: Settings) -> None:
        self._format()
        self._create(settings)
        self.read_logs()

    def _format(self) -> int:
        """Return the format of the file, 0 for an empty one; raise BrokerError for a foreign or a newer file."""
        pragma = self._connection.execute
        kind, version = pragma("PRAGMA application_id").fetchone()[0], pragma("PRAGMA user_version").fetchone()[0]
        foreign = kind != _MAGIC and pragma("SELECT count(*) FROM sqlite_master").fetchone()[0] > 0
        if foreign or version > FORMAT:
            raise BrokerError(
                f"{self.path} is {'a database of another program' if foreign else f'of format {version}'}, "
                f"not an embedded broker of format {FORMAT}.",
                hint="Set broker.path to another file.",
            )
        return int(version)

    def read_logs(self) -> None:
        """Read which logs there are."""
        rows = self._connection.execute("SELECT topic, partition, id FROM logs").fetchall()
        self.logs = {(topic, partition): log for topic, partition, log in rows}

    def require_partitions(self, partitions: int) -> None:
        """Raise TopicError where the file was created with another number of partitions."""
        with self.errors():
            created_with = self._connection.execute("SELECT count(DISTINCT partition) FROM logs").fetchone()[0]
        if created_with not in (0, partitions):
            raise TopicError(
                f"{self.path} was created with {created_with} partitions, topics.partitions is {partitions}.",
                hint=f"Set topics.partitions to {created_with}, or broker.path to a new file.",
            )

    def _create(self, settings: Settings) -> None:
        execute, partitions = self._connection.execute, settings.topics.partitions
        self._retry_while_busy("PRAGMA journal_mode=WAL")
        execute(f"PRAGMA synchronous={settings.broker.synchronous.upper()}")
        with self.write():
            if (version := execute("PRAGMA user_version").fetchone()[0]) < FORMAT:
                upgrades = [statement for new in range(version + 1, FORMAT + 1) for statement in _UPGRADES.get(new, ())]
                for statement in upgrades if version else _TABLES:
                    execute(statement)
                execute(f"PRAGMA application_id={_MAGIC}")
                execute(f"PRAGMA user_version={FORMAT}")
            self.require_partitions(partitions)
            self._connection.executemany(
                "INSERT OR IGNORE INTO logs (topic, partition) VALUES (?, ?)",
                [(topic, partition) for topic in topic_roles(settings).values() for partition in range(partitions)],
            )

    def cursor(self, sql: str, *values: object) -> sqlite3.Cursor:
        """Run a statement; call within ``errors`` or ``write``."""
        return self._connection.execute(sql, values)

    def data_version(self) -> int:
        """Return a number that changes whenever another connection, in this process or another, has committed."""
        with self.errors():
            return int(self.cursor("PRAGMA data_version").fetchone()[0])

    def wait_for_change(self, version: int, deadline: float) -> bool:
        """Sleep until ``data_version`` changes; return False when the deadline, in monotonic seconds, comes first."""
        pause, longest = _POLL_INTERVAL_S
        while (left := deadline - time.monotonic()) > 0:
            if self.data_version() != version:
                return True
            time.sleep(min(pause, left))
            pause = min(2 * pause, longest)
        return False

    def oldest(self, topic: str, partition: int) -> int:
        """Return the oldest offset kept, or the next offset to be written where no record is kept."""
        log = self.logs[topic, partition]
        with self.errors():
            first = self.cursor(
                "SELECT id FROM records WHERE id >= ? AND id <= ? ORDER BY id LIMIT 1",
                log << OFFSET_BITS,
                log << OFFSET_BITS | OFFSET_MASK,
            ).fetchone()
        return int(first[0]) & OFFSET_MASK if first else self.heads()[log]

    def heads(self) -> dict[int, int]:
        """Return the next offset to be written, by log."""
        with self.errors():
            return dict(self.cursor("SELECT id, next_offset FROM logs").fetchall())

    def append(self, topic: str, partition: int, records: Sequence[OutRecord]) -> None:
        """Append records to a log; call within ``write``."""
        if not records:
            return
        log = self.logs[topic, partition]
        ((head,),) = self._connection.execute("SELECT next_offset FROM logs WHERE id = ?", (log,)).fetchall()
        self._connection.executemany(
            "INSERT INTO records VALUES (?, ?, ?, ?, ?)",
            [
                (row, record.time_ms, record.key, record.value, encode_headers(record.headers))
                for row, record in enumerate(records, log << OFFSET_BITS | head)
            ],
        )
        self._connection.execute("UPDATE logs SET next_offset = ? WHERE id = ?", (head + len(records), log))

    def expire(self, topic: str, partition: int, *, before: int, until_ms: int) -> None:
        """Delete the first records of a log that are older than a time; call within ``write``.

        Args:
            topic: The topic of the log.
            partition: The partition of the log.
            before: Records from this offset on are kept.
            until_ms: Milliseconds since the epoch. As on Kafka, everything from the first record of this time or later
                on is kept, however old.
        """
        base = self.logs[topic, partition] << OFFSET_BITS
        last = base | min(before, OFFSET_MASK)
        old = self.cursor(
            "SELECT id, time_ms FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?", base, last, _EXPIRE_RECORDS
        )
        end = None
        for number, time_ms in old:
            if time_ms >= until_ms:
                break
            end = number
        if end is not None:
            self.cursor("DELETE FROM records WHERE id >= ? AND id <= ?", base, end)

    @contextmanager
    def write(self) -> Iterator[None]:
        """Run the body of the ``with`` statement in one transaction, which is rolled back when anything raises."""
        with self.errors():
            self._retry_while_busy("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk has rolled back already
                    self._connection.execute("ROLLBACK")
                raise

    def _retry_while_busy(self, statement: str) -> None:
        """Run a statement, waiting for other processes for ``broker.give_up_seconds``; handles signals meanwhile."""
        deadline = time.monotonic() + self._give_up_s
        while True:
            try:
                self._connection.execute(statement)
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
                if not busy or time.monotonic() > deadline:
                    raise
                time.sleep(0.002)
            else:
                return

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Translate SQLite's errors to BrokerError."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # errors of the Python module have no code
            reason, hint = REASONS.get(code, (str(error), "Check the file and its disk."))
            raise BrokerError(f"Embedded broker {self.path}: {reason} ({error}).", hint=hint) from error

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
