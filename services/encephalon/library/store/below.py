"""The part of an object store that belongs to one namespace.

Two libraries in one bucket must not collect each other's garbage, so what they keep is kept apart. The objects of the
namespace `default` stand at the top, where regions and other programs look for `sha256/HEX`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Final, Self

from encephalon.library.store.keys import segment
from encephalon.state import ObjectEntry, ObjectInfo, Objects
from encephalon.state.objects import Progress, unseen

__all__ = ["DEFAULT", "objects_of"]

DEFAULT: Final = "default"


def objects_of(objects: Objects, namespace: str) -> Objects:
    """What a library of this namespace sees of an object store that is open."""
    return objects if namespace == DEFAULT else Below(objects, f"namespace/{segment(namespace)}/")


class Below:
    """Objects whose keys stand below a prefix. The store behind is opened and closed by who opened it."""

    def __init__(self, objects: Objects, prefix: str) -> None:
        self._objects = objects
        self._prefix = prefix

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None

    async def put(self, key: str, source: bytes | AsyncIterator[bytes]) -> ObjectInfo:
        return self._info(await self._objects.put(self._prefix + key, source))

    async def get(self, key: str, start: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        async with contextlib.aclosing(self._objects.get(self._prefix + key, start, length)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def stat(self, key: str) -> ObjectInfo:
        return self._info(await self._objects.stat(self._prefix + key))

    async def list(self, prefix: str) -> AsyncGenerator[ObjectEntry, None]:
        async with contextlib.aclosing(self._objects.list(self._prefix + prefix)) as entries:
            async for entry in entries:
                yield dataclasses.replace(entry, key=entry.key.removeprefix(self._prefix))

    async def delete(self, key: str) -> None:
        await self._objects.delete(self._prefix + key)

    async def upload(self, key: str, path: Path, *, sha256: str, progress: Progress = unseen) -> ObjectInfo:
        return self._info(await self._objects.upload(self._prefix + key, path, sha256=sha256, progress=progress))

    async def download(self, key: str, path: Path, *, progress: Progress = unseen) -> ObjectInfo:
        return self._info(await self._objects.download(self._prefix + key, path, progress=progress))

    def _info(self, info: ObjectInfo) -> ObjectInfo:
        return dataclasses.replace(info, key=info.key.removeprefix(self._prefix))
