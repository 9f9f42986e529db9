"""Keys, values and leases in one SQLite file, for several processes of one machine."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Concatenate, ParamSpec, Self, TypeVar

import structlog

from encephalon.core.errors import Corrupt, NotFound, Unavailable
from encephalon.state import key_value
from encephalon.state.key_value import Change, Entry, Event, EventKind, Unchanged
from encephalon.state.key_value import Lease as AnyLease
from encephalon.state.opening import opened
from encephalon.state.sqlite_file import SqliteFile
from encephalon.state.told import Told

__all__ = ["Sqlite"]

_log = structlog.get_logger(__name__)

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

POLL_S = 0.05
_BATCH = 500


class SqliteLease:
    def __init__(self, store: Sqlite, number: int, ttl_seconds: float) -> None:
        self.number = number
        self._store = store
        self._ttl_seconds = ttl_seconds
        self._lost = asyncio.Event()

    @property
    def ttl_seconds(self) -> float:
        return self._ttl_seconds

    @property
    def lost(self) -> asyncio.Event:
        return self._lost

    async def keep(self) -> None:
        if not await self._store.run(SqliteFile.keep, self.number):
            self._lost.set()
            raise NotFound(f"lease {self.number:x} has run out; take a new one", lease=self.number)

    async def revoke(self) -> None:
        self._lost.set()
        await self._store.run(SqliteFile.revoke, self.number)


class Sqlite:
    def __init__(self, path: Path, *, deadline_s: float) -> None:
        """`path` is created when it is not there, its folder as well; `deadline_s` bounds every call but a watch."""
        self._path = path
        self._deadline_s = deadline_s
        self._file: SqliteFile | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        # A connection belongs to one thread. Calls wait for their turn here, not in the thread's queue, which has no
        # bound.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite")
        try:
            run = partial(asyncio.get_running_loop().run_in_executor, self._thread)
            file = await opened(run, lambda: SqliteFile(self._path, self._deadline_s), lambda file: file.close())
        except BaseException:
            self._thread.shutdown(wait=False)
            raise
        self._file = file
        return self

    async def __aexit__(self, *exc: object) -> None:
        file, self._file = self._file, None
        if file is not None and self._thread is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, file.close)
            self._thread.shutdown()

    async def run(
        self,
        step: Callable[Concatenate[SqliteFile, _Arguments], _Result],
        *args: _Arguments.args,
        **kwargs: _Arguments.kwargs,
    ) -> _Result:
        """Runs one transaction in the store's thread. Raises Unavailable when the file stays locked, or is closed."""
        try:
            async with asyncio.timeout(self._deadline_s), self._turn:
                if self._file is None or self._thread is None:
                    raise Unavailable(f"the store {self._path} is closed")
                file = self._file
                return await asyncio.get_running_loop().run_in_executor(
                    self._thread, lambda: step(file, *args, **kwargs)
                )
        except TimeoutError as error:
            raise Unavailable(f"{self._path} did not answer within {self._deadline_s:g} s", path=self._path) from error
        except sqlite3.OperationalError as error:
            raise Unavailable(f"{self._path} cannot be used: {error}", path=self._path) from error
        except sqlite3.DatabaseError as error:
            raise Corrupt(f"{self._path} is damaged: {error}", path=self._path) from error

    async def get(self, key: str) -> Entry | None:
        return await self.run(SqliteFile.get, key_value.check_key(key))

    async def list(self, prefix: str, *, page: int = 1000) -> AsyncGenerator[Entry, None]:
        async with contextlib.aclosing(self.pages(prefix, page=page)) as pages:
            async for entries in pages:
                for entry in entries:
                    yield entry

    async def pages(self, prefix: str, *, page: int = 1000, after: str = "") -> AsyncGenerator[Sequence[Entry], None]:
        encoded = key_value.check_prefix(prefix)
        start, end = key_value.scan_start(encoded, after), key_value.prefix_end(encoded)
        while True:
            entries, more = await self.run(SqliteFile.page, start, end, page)
            if entries:
                yield entries
            if not more:
                return
            start = entries[-1].key.encode() + b"\x00"

    async def put(self, key: str, value: bytes, *, lease: AnyLease | None = None, expected: int | None = None) -> int:
        return await self.commit([Change(key, value, expected, lease)])

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        key_value.check_key(key)
        return await self.run(SqliteFile.delete, key, expected)

    async def commit(self, changes: Sequence[Change | Unchanged]) -> int:
        key_value.check_commit(changes)
        conditions = [(item.key, item.expected) for item in changes if item.expected is not None]
        writes = [(item.key, item.value, _number(item.lease)) for item in changes if isinstance(item, Change)]
        try:
            return await self.run(SqliteFile.commit, conditions, writes)
        except NotFound as error:
            for item in changes:
                lease = item.lease if isinstance(item, Change) else None
                if lease is not None and str(_number(lease)) == error.details.get("lease"):
                    lease.lost.set()
            raise

    async def lease(self, ttl_seconds: float) -> SqliteLease:
        return SqliteLease(self, await self.run(SqliteFile.grant, ttl_seconds), ttl_seconds)

    async def compact(self, revision: int) -> None:
        await self.run(SqliteFile.compact, revision - 1)

    async def watch(self, prefix: str, from_revision: int | None = None) -> AsyncGenerator[Event, None]:
        start, end = key_value.check_prefix(prefix), key_value.prefix_end(key_value.check_prefix(prefix))
        told = Told()
        if from_revision is None:
            entries, last = await self.run(SqliteFile.snapshot, start, end)
            for entry in entries:
                yield told.put(entry)
            yield Event(EventKind.LISTED, "", b"", last)
        else:
            told.assume(await self.run(SqliteFile.keys_at, start, end, from_revision - 1))
            last = from_revision - 1
        while True:
            events, last = await self._changes(start, end, last, told)
            for event in events:
                yield event
            if not events:
                await asyncio.sleep(POLL_S)

    async def _changes(self, start: bytes, end: bytes, last: int, told: Told) -> tuple[Sequence[Event], int]:
        """What came after revision `last`, and the revision up to which that tells all."""
        try:
            changes, revision = await self.run(SqliteFile.changes, start, end, last, _BATCH)
            if changes is None:
                entries, revision = await self.run(SqliteFile.snapshot, start, end)
                resumed = Event(EventKind.RESUMED, "", b"", revision)
                return [resumed, *told.differences(entries, revision)], revision
        except Unavailable as error:
            if self._file is None:
                raise
            # Locked for longer than the deadline; the watch goes on when the file is free again.
            _log.warning("the watch was interrupted and tries again", path=str(self._path), cause=str(error))
            return [], last
        return [told.repeat(change) for change in changes], revision


def _number(lease: AnyLease | None) -> int | None:
    if not isinstance(lease, SqliteLease | None):
        raise TypeError(f"a lease of another store: {lease!r}")
    return lease.number if lease else None
