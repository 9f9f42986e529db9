"""Stores under which a process kills itself at its n-th call: before it, amid it or behind it.

doom = Doom(7, "amid")
library = Library(DyingKeyValue(key_value, doom), DyingObjects(objects, doom))
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from encephalon.state import Change, Entry, Event, KeyValue, Lease, ObjectEntry, ObjectInfo, Objects, Unchanged
from encephalon.state.objects import Progress, unseen

__all__ = ["Doom", "DyingKeyValue", "DyingObjects", "When"]

When = Literal["before", "amid", "behind"]


class Doom:
    def __init__(self, call: int, when: When = "before") -> None:
        """Calls count from 1; 0 is never."""
        self.calls = 0
        self._call = call
        self._when = when

    @contextlib.contextmanager
    def at(self) -> Any:
        self.calls += 1
        due = self.calls == self._call
        if due and self._when == "before":
            die()
        if due and self._when == "amid":
            threading.Timer(random.uniform(0, 0.006), die).start()
        yield
        if due:
            die()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DyingKeyValue:
    def __init__(self, store: KeyValue, doom: Doom) -> None:
        self._store = store
        self._doom = doom

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None

    async def get(self, key: str) -> Entry | None:
        with self._doom.at():
            return await self._store.get(key)

    async def list(self, prefix: str, *, page: int = 1000) -> AsyncGenerator[Entry, None]:
        with self._doom.at():
            found = [entry async for entry in self._store.list(prefix, page=page)]
        for entry in found:
            yield entry

    async def pages(self, prefix: str, *, page: int = 1000, after: str = "") -> AsyncGenerator[Sequence[Entry], None]:
        with self._doom.at():
            found = [entries async for entries in self._store.pages(prefix, page=page, after=after)]
        for entries in found:
            yield entries

    async def put(self, key: str, value: bytes, *, lease: Lease | None = None, expected: int | None = None) -> int:
        with self._doom.at():
            return await self._store.put(key, value, lease=lease, expected=expected)

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        with self._doom.at():
            return await self._store.delete(key, expected=expected)

    async def commit(self, changes: Sequence[Change | Unchanged]) -> int:
        with self._doom.at():
            return await self._store.commit(changes)

    async def lease(self, ttl_seconds: float) -> Lease:
        with self._doom.at():
            return await self._store.lease(ttl_seconds)

    def watch(self, prefix: str, from_revision: int | None = None) -> AsyncGenerator[Event, None]:
        return self._store.watch(prefix, from_revision)

    async def compact(self, revision: int) -> None:
        await self._store.compact(revision)


class DyingObjects:
    def __init__(self, store: Objects, doom: Doom) -> None:
        self._store = store
        self._doom = doom

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None

    async def put(self, key: str, source: bytes | AsyncIterator[bytes]) -> ObjectInfo:
        with self._doom.at():
            return await self._store.put(key, source)

    async def get(self, key: str, start: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        with self._doom.at():
            found = [chunk async for chunk in self._store.get(key, start, length)]
        for chunk in found:
            yield chunk

    async def stat(self, key: str) -> ObjectInfo:
        with self._doom.at():
            return await self._store.stat(key)

    async def list(self, prefix: str) -> AsyncGenerator[ObjectEntry, None]:
        with self._doom.at():
            found = [entry async for entry in self._store.list(prefix)]
        for entry in found:
            yield entry

    async def delete(self, key: str) -> None:
        with self._doom.at():
            await self._store.delete(key)

    async def upload(self, key: str, path: Path, *, sha256: str, progress: Progress = unseen) -> ObjectInfo:
        with self._doom.at():
            return await self._store.upload(key, path, sha256=sha256, progress=progress)

    async def download(self, key: str, path: Path, *, progress: Progress = unseen) -> ObjectInfo:
        with self._doom.at():
            return await self._store.download(key, path, progress=progress)
