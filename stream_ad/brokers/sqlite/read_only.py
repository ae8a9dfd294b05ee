"""Read-only access to the database of the embedded broker: nothing is created, upgraded, blocked or left behind.

SQLite itself would leave two files beside a database that it has read, owned by the reader's user. So while no process
has the file open, it is read as immutable; once a process has, it is read as usual beside a writer.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stream_ad.brokers.sqlite.database import CONNECTION, FORMAT, Database
from stream_ad.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ad.settings import Settings

_VIEWS = {  # statements by older format that show its tables in the present form
    1: (
        """CREATE TEMP VIEW snapshots AS SELECT application, shard, seq, events, labels, 0 AS line, '' AS origin,
           0 AS saved_ms, length(data) AS size, 0 AS dropped FROM main.snapshots""",
        _PARTS := """CREATE TEMP VIEW snapshot_parts AS
           SELECT application, shard, seq, 0 AS start, digest, data FROM main.snapshots""",
    ),
    2: (
        """CREATE TEMP VIEW snapshots AS SELECT application, shard, seq, events, labels, line, origin,
           saved_ms, length(data) AS size, 0 AS dropped FROM main.snapshots""",
        _PARTS,
    ),
}


class ChangedError(BrokerError):
    """A process began to write while the file was read as immutable."""


class DatabaseView(Database):
    """A connection that only reads.

    Raises:
        BrokerError: There is no file, or it cannot be read.
    """

    _resting: tuple[int, int] | None = None
    """Time of modification in nanoseconds and size in bytes of a file that no process has open; None while one has."""
    _connections = 0

    def older_format(self) -> int | None:
        """Return the format of a file that an earlier version wrote; None where it is up to date."""
        return self.version if 0 < self.version < FORMAT else None

    def require_made(self, settings: Settings) -> None:
        """Raise BrokerError where the tables do not exist yet, TopicError where the number of partitions differs."""
        if not self.version:
            raise self._missing()
        self.require_partitions(settings.topics.partitions)

    def cursor(self, sql: str, *values: object) -> sqlite3.Cursor:
        """Run a statement; connects again where the file has changed since the last one."""
        if self._connections and self._resting != self._state():
            self._connection.close()
            self._connection = self._connect()
            self._prepare()
        return super().cursor(sql, *values)

    def data_version(self) -> int:
        """See ``Database.data_version``; also changes with every new connection."""
        return super().data_version() | self._connections << 32

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Translate SQLite's errors; raise ChangedError where the file changed while it was read as immutable."""
        try:
            with super().errors():
                yield
        except BrokerError as error:
            self._require_rest(error)
            raise
        self._require_rest(None)

    def _require_rest(self, error: BrokerError | None) -> None:
        if self._resting is not None and self._resting != self._state():
            raise ChangedError(
                f"{self.path} was written to while it was read.", hint="Run the command again."
            ) from error

    def _state(self) -> tuple[int, int] | None:
        """See ``_resting``."""
        path = self.path.resolve()
        log, index = (path.with_name(path.name + end) for end in ("-wal", "-shm"))
        try:
            if log.exists() and (index.exists() or log.stat().st_size):
                return None
            status = path.stat()
        except OSError as error:
            raise self._missing() from error
        return status.st_mtime_ns, status.st_size

    def _missing(self) -> BrokerError:
        return BrokerError(
            f"There is no embedded broker in {self.path}.",
            hint="Set broker.path to the right file; the first command that writes creates it.",
        )

    def _connect(self) -> sqlite3.Connection:
        if not self.path.exists():
            raise self._missing()
        self._resting = self._state()
        self._connections += 1
        mode = "mode=ro" if self._resting is None else "mode=ro&immutable=1"
        return sqlite3.connect(f"{self.path.absolute().as_uri()}?{mode}", uri=True, **CONNECTION)

    def _open(self, settings: Settings) -> None:  # noqa: ARG002 -- nothing is created
        self._prepare()

    def _prepare(self) -> None:
        self.version = self._format()
        for statement in _VIEWS.get(self.version, ()):
            self._connection.execute(statement)
        if self.version:
            self.read_logs()
