"""A file of an earlier release keeps its entries, its leases and its history; one of a later release is left alone."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from encephalon.core.errors import FailedPrecondition
from encephalon.state.key_value import Entry
from encephalon.state.sqlite_file import SqliteFile

_FORMAT_1 = """
CREATE TABLE numbers (name TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO numbers VALUES ('revision', 4), ('compacted', 0), ('history_bytes', 2);
CREATE TABLE entries (key BLOB PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL, lease INTEGER);
CREATE INDEX entries_by_lease ON entries (lease) WHERE lease IS NOT NULL;
CREATE TABLE leases (number INTEGER PRIMARY KEY AUTOINCREMENT, ttl REAL NOT NULL, expires REAL NOT NULL);
CREATE INDEX leases_by_end ON leases (expires);
CREATE TABLE history (revision INTEGER PRIMARY KEY, key BLOB NOT NULL, value BLOB);
INSERT INTO entries VALUES (CAST('b' AS BLOB), CAST('2' AS BLOB), 3, NULL);
INSERT INTO history VALUES (2, CAST('a' AS BLOB), CAST('1' AS BLOB)), (3, CAST('b' AS BLOB), CAST('2' AS BLOB)),
    (4, CAST('a' AS BLOB), NULL);
PRAGMA user_version = 1;
"""


def test_a_file_of_format_1_is_updated(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "store.db")) as db:
        db.executescript(_FORMAT_1)
    with closing(SqliteFile(tmp_path / "store.db", 5)) as file:
        assert file.page(b"a", b"z", 9) == ([Entry("b", b"2", 3)], False)
        assert file.commit([("b", 3), ("a", 0)], [("a", b"3", None), ("b", None, None), ("c", b"4", None)]) == 5
    with closing(SqliteFile(tmp_path / "store.db", 5)) as file:
        changes, last = file.changes(b"a", b"z", 1, 100)
        told = [(change.revision, change.key, change.value) for change in changes or ()]
        assert told == [(2, "a", b"1"), (3, "b", b"2"), (4, "a", b""), (5, "a", b"3"), (5, "b", b""), (5, "c", b"4")]
        assert last == 5
        assert file.changes(b"a", b"z", 1, 4) == (changes, 5)  # a limit does not cut a revision in two


def test_a_file_of_a_later_release_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "store.db")) as db:
        db.execute("PRAGMA user_version = 3")
    with pytest.raises(FailedPrecondition, match="format 3"):
        SqliteFile(tmp_path / "store.db", 5)
