"""A key-value store and an object store in memory, without threads, so that they live in virtual time."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from encephalon.core.errors import Conflict, NotFound, Unavailable
from encephalon.state import Entry, ObjectEntry, ObjectInfo

__all__ = ["MemoryKeyValue", "MemoryObjects"]


class MemoryKeyValue:
    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.away = False
        self._revision = 0

    async def get(self, key: str) -> Entry | None:
        self._check()
        return self.entries.get(key)

    async def put(self, key: str, value: bytes, *, lease: object = None, expected: int | None = None) -> int:
        self._check()
        found = self.entries[key].revision if key in self.entries else 0
        if expected is not None and expected != found:
            raise Conflict(f"{key} is at {found}")
        self._revision += 1
        self.entries[key] = Entry(key, value, self._revision)
        return self._revision

    def _check(self) -> None:
        if self.away:
            raise Unavailable("the store is away")


class MemoryObjects:
    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.away = False

    async def put(self, key: str, source: bytes) -> ObjectInfo:
        self._check()
        self.objects[key] = source
        return ObjectInfo(key, len(source), "")

    async def get(self, key: str, start: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        self._check()
        if key not in self.objects:
            raise NotFound(key)
        yield self.objects[key]

    async def list(self, prefix: str) -> AsyncGenerator[ObjectEntry, None]:
        self._check()
        for key in [key for key in self.objects if key.startswith(prefix)]:
            yield ObjectEntry(key, len(self.objects[key]))

    async def delete(self, key: str) -> None:
        self._check()
        self.objects.pop(key, None)

    def _check(self) -> None:
        if self.away:
            raise Unavailable("the object store is away")
