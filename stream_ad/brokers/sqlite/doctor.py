"""Checks of the embedded broker for ``stream-ad doctor``: file, topics, disk, clock, workers."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

from stream_ad.brokers.sqlite.read_only import DatabaseView
from stream_ad.brokers.sqlite.shard_lock import ShardLock
from stream_ad.util.findings import local_disk, ok, problem, warning

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from stream_ad.brokers.tools_api import TopicPlan
    from stream_ad.settings import Settings
    from stream_ad.util.findings import Finding

LEAST_FREE = 500_000_000  # bytes of the disk: a snapshot is complete before an older one is freed
CHECKED_BYTES = 2_000_000_000  # largest file that is checked for damage; a larger one would take minutes
AHEAD_S = 60.0  # tolerated lead of the file's time of modification


def examine(settings: Settings, path: Path, plan: Sequence[TopicPlan]) -> Iterator[Finding]:
    """Yield findings about the embedded broker; see ``tools_api.Admin.examine``.

    Args:
        settings: Of the application.
        path: The database file.
        plan: The topics as they should be and as they are.
    """
    yield ok("versions", f"SQLite {sqlite3.sqlite_version}.")
    if not path.exists():
        yield ok("connection", f"{path} does not exist yet; the first command that writes creates it.")
    else:
        yield from _file(settings, path)
    if problems := {topic.problem for topic in plan if topic.problem}:
        for text in sorted(problems):
            yield problem("topics", text, "Set topics.partitions to what the file was created with.")
    elif missing := [topic.topic for topic in plan if not topic.exists]:
        yield ok("topics", f"{', '.join(missing)}: created by the first command that writes.")
    else:
        yield ok("topics", f"all {len(plan)} are there, with {settings.topics.partitions} partitions.")
    remediation = "Free some space, or move the file and set broker.path."
    yield local_disk(path.parent.resolve(), needed=LEAST_FREE, remediation=remediation)


def _file(settings: Settings, path: Path) -> Iterator[Finding]:
    size = path.stat().st_size
    yield ok("connection", f"{path} is an embedded broker of {size / 1e6:.1f} MB.")
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        yield problem("rights", f"{path} or its folder is read-only.", "Make both writable for the user of the worker.")
    else:
        yield ok("rights", f"{path} and its folder are writable.")
    with closing(DatabaseView(settings)) as database:
        older = database.older_format()
    if older is not None:
        yield warning(
            "file",
            f"format {older}; a worker of this version upgrades it at its next start.",
            "Copy it first, if you may want to return to the version that wrote it.",
        )
    if size <= CHECKED_BYTES:
        with closing(DatabaseView(settings)) as database, database.errors():
            result = str(database.cursor("PRAGMA quick_check(1)").fetchone()[0])
        if result == "ok":
            yield ok("file", "no damage found.")
        else:
            yield problem(
                "file", f"it is damaged: {result}.", "Restore it from a backup, or set broker.path to a new file."
            )
    if (ahead_s := path.stat().st_mtime - time.time()) > AHEAD_S:
        yield warning(
            "clock",
            f"{path} was written {ahead_s:.0f} s in the future.",
            "The clock was set back, or is wrong; keep it with NTP.",
        )
    locks = [ShardLock(path, settings.application_id, shard) for shard in range(settings.topics.partitions)]
    owners = sorted({lock.owner() for lock in locks if lock.held()})
    yield ok("workers", f"{', '.join(owners)} works on it." if owners else "none runs.")
