"""The tables of the embedded key-value store, and how a file of an earlier release gets them."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Final

from encephalon.core.errors import FailedPrecondition

__all__ = ["prepare"]

SCHEMA_VERSION: Final = 2
# Keys are blobs, so they sort by bytes as in etcd. `value` is NULL in a history row that deletes; `step` is the place
# of a change among those of its revision.
_HISTORY: Final = """
CREATE TABLE history (revision INTEGER, step INTEGER, key BLOB NOT NULL, value BLOB, PRIMARY KEY (revision, step))
WITHOUT ROWID;
"""
_SCHEMA: Final = """
CREATE TABLE numbers (name TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO numbers VALUES ('revision', 1), ('compacted', 0), ('history_bytes', 0);
CREATE TABLE entries (key BLOB PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL, lease INTEGER);
CREATE INDEX entries_by_lease ON entries (lease) WHERE lease IS NOT NULL;
CREATE TABLE leases (number INTEGER PRIMARY KEY AUTOINCREMENT, ttl REAL NOT NULL, expires REAL NOT NULL);
CREATE INDEX leases_by_end ON leases (expires);
"""
# The first format had one change to a revision.
_RENAMED: Final = "ALTER TABLE history RENAME TO history_1;"
_COPIED: Final = "INSERT INTO history SELECT revision, 0, key, value FROM history_1; DROP TABLE history_1;"
_STEPS: Final = {0: _SCHEMA + _HISTORY, 1: _RENAMED + _HISTORY + _COPIED}


def prepare(db: sqlite3.Connection, path: Path, busy_s: float) -> None:
    """Makes or updates the tables. Raises FailedPrecondition for a file of a later release."""
    # Going over to WAL needs the file alone, and SQLite does not wait for that by itself.
    deadline = time.monotonic() + busy_s
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    # As durable as etcd: a change that was answered outlives a loss of power.
    db.execute("PRAGMA synchronous = FULL")
    db.execute("BEGIN IMMEDIATE")
    try:
        _update(db, path)
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _update(db: sqlite3.Connection, path: Path) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version == SCHEMA_VERSION:
        return
    if version not in _STEPS:
        raise FailedPrecondition(
            f"{path} has format {version}, this release of Encephalon reads format {SCHEMA_VERSION}", path=path
        )
    for statement in _STEPS[version].split(";"):
        db.execute(statement)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
