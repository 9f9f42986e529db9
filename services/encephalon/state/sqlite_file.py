"""The tables and transactions of the embedded key-value store: plain blocking code, used by one thread."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Final

from encephalon.core.errors import FailedPrecondition, NotFound, Unavailable
from encephalon.state.key_value import ABSENT, Entry, Event, EventKind, conflict
from encephalon.state.sqlite_schema import prepare

__all__ = ["SqliteFile"]

# A watch that falls further behind than the history reaches is told the difference instead, so these bound only the
# file.
MAX_HISTORY_CHANGES: Final = 20_000
MAX_HISTORY_BYTES: Final = 64 * 1024 * 1024
# A page of a list holds at most so much, and one entry.
MAX_PAGE_BYTES: Final = 8 * 1024 * 1024


class SqliteFile:
    """Raises sqlite3.OperationalError when the file stays locked for longer than `busy_s`."""

    def __init__(self, path: Path, busy_s: float) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Opened in the thread that uses it, closed at interpreter exit perhaps by another.
            self._db = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.OperationalError) as error:
            raise Unavailable(f"the store {path} cannot be opened: {error}", path=path) from error
        try:
            prepare(self._db, path, busy_s)
        except sqlite3.OperationalError as error:
            self._db.close()
            raise Unavailable(f"the store {path} cannot be opened: {error}", path=path) from error
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise FailedPrecondition(f"{path} is not a store of Encephalon: {error}", path=path) from error
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        yield from self._transaction()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """What is read inside belongs to one revision; leases that have run out are gone."""
        expired = self._db.execute(
            "SELECT 1 FROM leases WHERE expires <= ? OR expires > ? + ttl + 1", self._now()
        ).fetchone()
        self._db.execute("BEGIN IMMEDIATE" if expired else "BEGIN")
        if expired:
            self._expire()
        yield from self._transaction()

    def _transaction(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def get(self, key: bytes) -> Entry | None:
        with self._reading():
            row = self._db.execute("SELECT key, value, revision FROM entries WHERE key = ?", (key,)).fetchone()
        return _entry(row) if row else None

    def page(self, start: bytes, end: bytes, limit: int) -> tuple[list[Entry], bool]:
        """At most `limit` entries, fewer where they are large; whether there may be more."""
        found, size = list[Entry](), 0
        with self._reading(), contextlib.closing(self._entries(start, end, limit)) as entries:
            for entry in entries:
                found.append(entry)
                size += len(entry.value)
                if size > MAX_PAGE_BYTES:
                    return found, True
        return found, len(found) == limit

    def snapshot(self, start: bytes, end: bytes) -> tuple[list[Entry], int]:
        with self._reading():
            return list(self._entries(start, end, -1)), self._number("revision")

    def delete(self, key: str, expected: int | None) -> bool:
        with self._writing():
            self._expire()
            if expected is not None:
                self._check(key, expected)
            present = self._present(key.encode())
            if present:
                self._record([(key.encode(), None, None)])
            return present

    def commit(
        self, conditions: Sequence[tuple[str, int]], writes: Sequence[tuple[str, bytes | None, int | None]]
    ) -> int:
        """Conditions are keys and expected revisions; writes are keys, values (None deletes) and leases."""
        with self._writing():
            self._expire()
            for key, expected in conditions:
                self._check(key, expected)
            for key, _, lease in writes:
                self._check_lease(key, lease)
            changes = [(key.encode(), value, lease) for key, value, lease in writes]
            return self._record([change for change in changes if change[1] is not None or self._present(change[0])])

    def grant(self, ttl: float) -> int:
        with self._writing():
            cursor = self._db.execute("INSERT INTO leases (ttl, expires) VALUES (?, ?)", (ttl, time.monotonic() + ttl))
            return int(cursor.lastrowid or 0)

    def keep(self, lease: int) -> bool:
        with self._writing():
            self._expire()
            cursor = self._db.execute("UPDATE leases SET expires = ? + ttl WHERE number = ?", (time.monotonic(), lease))
            return cursor.rowcount == 1

    def revoke(self, lease: int) -> None:
        with self._writing():
            self._end(lease)

    def keys_at(self, start: bytes, end: bytes, revision: int) -> list[Entry]:
        """Every entry that was there at `revision` (with those that came since: a watch may take them for known
        without harm).

        Raises FailedPrecondition when the history does not reach there.
        """
        with self._reading():
            first, last = self._number("compacted"), self._number("revision")
            if not first <= revision <= last:
                raise FailedPrecondition(
                    f"the history of {self._path} reaches from {first} to {last}, not to {revision}"
                )
            where, bounds = _between(start, end)
            changed = self._db.execute(
                f"SELECT DISTINCT key FROM history WHERE revision > ? AND {where}",  # noqa: S608
                (revision, *bounds),
            )
            return [*self._entries(start, end, -1), *(Entry(_text(key), b"", 0) for (key,) in changed)]

    def changes(self, start: bytes, end: bytes, after: int, limit: int) -> tuple[list[Event] | None, int]:
        """What came after revision `after`, and the revision up to which that tells all; None when the history is cut
        there.
        """
        with self._reading():
            revision = self._number("revision")
            if after < self._number("compacted"):
                return None, after
            if after >= revision:
                return [], after
            where, bounds = _between(start, end)
            columns = "SELECT key, value, revision, step FROM history"
            rows = self._db.execute(
                f"{columns} WHERE revision > ? AND {where} ORDER BY revision, step LIMIT ?",
                (after, *bounds, limit),
            ).fetchall()
            if len(rows) == limit:
                # The changes of one revision are told together, or a break between them would hide the rest.
                revision, step = rows[-1][2:]
                rows += self._db.execute(
                    f"{columns} WHERE revision = ? AND step > ? AND {where} ORDER BY step", (revision, step, *bounds)
                )
        events = [
            Event(EventKind.DELETE if value is None else EventKind.PUT, _text(key), value or b"", changed)
            for key, value, changed, _ in rows
        ]
        return events, revision

    def compact(self, revision: int) -> None:
        with self._writing():
            self._compact(min(revision, self._number("revision")))

    def _entries(self, start: bytes, end: bytes, limit: int) -> Generator[Entry, None, None]:
        where, bounds = _between(start, end)
        rows = self._db.execute(
            f"SELECT key, value, revision FROM entries WHERE {where} ORDER BY key LIMIT ?",  # noqa: S608
            (*bounds, limit),
        )
        with contextlib.closing(rows):
            yield from map(_entry, rows)

    def _check(self, key: str, expected: int) -> None:
        row = self._db.execute("SELECT revision FROM entries WHERE key = ?", (key.encode(),)).fetchone()
        found = row[0] if row else ABSENT
        if found != expected:
            raise conflict(key, expected, found)

    def _check_lease(self, key: str, lease: int | None) -> None:
        if lease is not None and not self._db.execute("SELECT 1 FROM leases WHERE number = ?", (lease,)).fetchone():
            raise NotFound(f"cannot put {key!r}: lease {lease:x} has run out; take a new one", lease=lease)

    def _present(self, key: bytes) -> bool:
        return self._db.execute("SELECT 1 FROM entries WHERE key = ?", (key,)).fetchone() is not None

    def _record(self, changes: Sequence[tuple[bytes, bytes | None, int | None]]) -> int:
        """Makes the changes (key, value, lease) in the next revision, and writes them into the history."""
        if not changes:
            return self._number("revision")
        self._db.execute("UPDATE numbers SET number = number + 1 WHERE name = 'revision'")
        size = sum(len(key) + len(value or b"") for key, value, _ in changes)
        self._db.execute("UPDATE numbers SET number = number + ? WHERE name = 'history_bytes'", (size,))
        revision = self._number("revision")
        puts = [(key, bytes(value), revision, lease) for key, value, lease in changes if value is not None]
        self._db.executemany(
            "DELETE FROM entries WHERE key = ?", [(key,) for key, value, _ in changes if value is None]
        )
        self._db.executemany(
            "INSERT INTO entries VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET (value, revision, lease) = "
            "(excluded.value, excluded.revision, excluded.lease)",
            puts,
        )
        self._db.executemany(
            "INSERT INTO history VALUES (?, ?, ?, ?)",
            [
                (revision, step, key, None if value is None else bytes(value))
                for step, (key, value, _) in enumerate(changes)
            ],
        )
        if self._number("history_bytes") > MAX_HISTORY_BYTES:
            self._compact(revision - 1)
        elif revision - self._number("compacted") > MAX_HISTORY_CHANGES:
            self._compact(revision - MAX_HISTORY_CHANGES // 2)
        return revision

    def _compact(self, revision: int) -> None:
        self._db.execute("DELETE FROM history WHERE revision <= ?", (revision,))
        self._db.execute("UPDATE numbers SET number = max(number, ?) WHERE name = 'compacted'", (revision,))
        self._db.execute(
            "UPDATE numbers SET number = (SELECT total(length(key) + ifnull(length(value), 0)) FROM history) "
            "WHERE name = 'history_bytes'"
        )

    def _expire(self) -> None:
        # The clock of leases is the machine's monotonic one, the same in every process and deaf to changes of the date.
        # It starts again at a reboot: an end further away than the whole time of the lease can only be from before one.
        for (lease,) in self._db.execute(
            "SELECT number FROM leases WHERE expires <= ? OR expires > ? + ttl + 1", self._now()
        ).fetchall():
            self._end(lease)

    def _end(self, lease: int) -> None:
        keys = self._db.execute("SELECT key FROM entries WHERE lease = ? ORDER BY key", (lease,))
        self._record([(key, None, None) for (key,) in keys.fetchall()])
        self._db.execute("DELETE FROM leases WHERE number = ?", (lease,))

    def _number(self, name: str) -> int:
        return int(self._db.execute("SELECT number FROM numbers WHERE name = ?", (name,)).fetchone()[0])

    @staticmethod
    def _now() -> tuple[float, float]:
        now = time.monotonic()
        return now, now


def _between(start: bytes, end: bytes) -> tuple[str, tuple[bytes, ...]]:
    return ("key >= ? AND key < ?", (start, end)) if end else ("key >= ?", (start,))


def _entry(row: tuple[bytes, bytes, int]) -> Entry:
    return Entry(_text(row[0]), bytes(row[1]), row[2])


def _text(key: bytes) -> str:
    return key.decode()
