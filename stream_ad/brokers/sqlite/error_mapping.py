"""The meaning of SQLite's errors for a file of the embedded broker, and what to do about each."""

from __future__ import annotations

import sqlite3

REASONS = {  # reason and hint by primary result code
    sqlite3.SQLITE_FULL: ("the disk is full", "Free some space; nothing that was committed is lost."),
    sqlite3.SQLITE_READONLY: (
        "the file is read-only",
        "Make the file and its folder writable, or set broker.path to another file.",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "the file cannot be opened",
        "Create its folder and make it writable, or set broker.path to another file.",
    ),
    sqlite3.SQLITE_PERM: ("access is denied", "Make the file and its folder writable for this user."),
    sqlite3.SQLITE_BUSY: (
        "another process kept the file locked for longer than broker.give_up_seconds",
        "End the process that holds the lock, for example a database shell with an open transaction.",
    ),
    sqlite3.SQLITE_NOTADB: ("this is not a database", "Set broker.path to another file."),
    sqlite3.SQLITE_CORRUPT: ("the file is damaged", "Restore it from a backup, or set broker.path to a new file."),
    sqlite3.SQLITE_IOERR: ("the disk failed to read or write", "Check the disk and its free space."),
}
