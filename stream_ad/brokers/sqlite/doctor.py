"""Looks at the embedded broker for ``stream-ad doctor``: file, topics, disk, clock, and who works on it."""

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

LEAST_FREE = 500_000_000  # bytes: a snapshot is written whole before an older one goes
CHECKED_BYTES = 2_000_000_000  # of a file that is looked through; a larger one would take minutes
AHEAD_S = 60.0


def examine(settings: Settings, path: Path, plan: Sequence[TopicPlan]) -> Iterator[Finding]:
    """See ``tools.Admin.examine``."""
    yield ok("versions", f"SQLite {sqlite3.sqlite_version}.")
    if not path.exists():
        yield ok("connection", f"{path} is not there yet; the first command that writes makes it.")
    else:
        yield from _file(settings, path)
    if problems := {topic.problem for topic in plan if topic.problem}:
        for text in sorted(problems):
            yield problem("topics", text, "Set topics.partitions to what the file was made with.")
    elif missing := [topic.topic for topic in plan if not topic.exists]:
        yield ok("topics", f"{', '.join(missing)}: made by the first command that writes.")
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
            "Copy it before, if you may want to go back to the version that wrote it.",
        )
    if size <= CHECKED_BYTES:
        with closing(DatabaseView(settings)) as database, database.errors():
            told = str(database.cursor("PRAGMA quick_check(1)").fetchone()[0])
        if told == "ok":
            yield ok("file", "no damage found.")
        else:
            yield problem(
                "file", f"it is damaged: {told}.", "Restore it from a backup, or set broker.path to a new file."
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
