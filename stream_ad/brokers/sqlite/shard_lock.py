"""Ownership of a shard on the embedded broker: a lock of the operating system on a file beside the database.

Unlike a row in a table, the lock vanishes with its process, however the process ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stream_ad.errors import BrokerError

if TYPE_CHECKING:
    from pathlib import Path

PROBE_S = 1.0
"""Longer than ``held`` of another process keeps a lock."""
_PAUSE_S = 0.01  # between attempts to take a lock


class ShardLock:
    """A lock, held from ``acquire`` until ``release`` or the end of the process."""

    def __init__(self, database: Path, application_id: str, shard: int) -> None:
        self.path = database.with_name(f"{database.name}.{application_id}.shard-{shard}.lock")
        self._fd: int | None = None

    def acquire(self, *, wait_s: float = 0.0) -> bool:
        """Take the lock if it is free, or becomes free within ``wait_s`` seconds; return whether it was taken."""
        deadline = time.monotonic() + wait_s
        while not (taken := self._take()) and time.monotonic() < deadline:
            time.sleep(_PAUSE_S)
        return taken

    def _take(self) -> bool:
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise BrokerError(
                f"The lock file {self.path} cannot be opened ({error.strerror}).",
                hint="Make the folder of broker.path writable.",
            ) from error
        try:
            # flock, not lockf: it also keeps two workers of one process apart
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now(UTC).isoformat("T", "seconds")}
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(owner).encode(), 0)
        self._fd = fd
        return True

    def held(self) -> bool:
        """Return whether any process has the lock.

        The check takes a shared lock for an instant, so whoever wants to acquire the lock must be ready to wait for
        ``PROBE_S``.
        """
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False  # without a file, nobody can have the lock
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(fd)
        return False

    def owner(self) -> str:
        """Return who holds the lock, as text for people."""
        try:
            owner = json.loads(self.path.read_bytes())
            return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
        except (OSError, ValueError, KeyError, TypeError):  # just taken, nothing written yet
            return "another process"

    def release(self) -> None:
        """Release the lock; does nothing where it is not held."""
        if self._fd is not None:
            os.close(self._fd)  # the file stays: deleting it would race with a process that opens it
            self._fd = None
