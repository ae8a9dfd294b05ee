"""Databases of the embedded broker as earlier versions of the program left them."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing


def bring_down(path, version):
    """Convert a database to an earlier format: 2, before snapshots were written in chunks; 1, before lineages."""
    with closing(sqlite3.connect(path)) as database, database:
        _before_parts(database)
        if version == 1:
            for column in ("line", "origin", "saved_ms"):
                database.execute(f"ALTER TABLE snapshots DROP COLUMN {column}")
            database.execute("PRAGMA user_version=1")


def _before_parts(database):
    database.execute("DELETE FROM snapshots WHERE dropped")
    for column in ("digest", "data"):
        database.execute(f"ALTER TABLE snapshots ADD COLUMN {column} BLOB NOT NULL DEFAULT x''")
    for (row,) in database.execute("SELECT rowid FROM snapshots").fetchall():
        parts = database.execute(
            "SELECT part.data FROM snapshots JOIN snapshot_parts AS part USING (application, shard, seq)"
            " WHERE snapshots.rowid = ? ORDER BY start",
            (row,),
        ).fetchall()
        data = b"".join(part for (part,) in parts)
        database.execute(
            "UPDATE snapshots SET digest = ?, data = ? WHERE rowid = ?", (hashlib.sha256(data).digest(), data, row)
        )
    database.execute("DROP TABLE snapshot_parts")
    for column in ("size", "dropped"):
        database.execute(f"ALTER TABLE snapshots DROP COLUMN {column}")
    database.execute("PRAGMA user_version=2")
