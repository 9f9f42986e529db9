"""Writes what is put, counting and digesting it, with a bounded part of it in memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import BinaryIO, TypeVar

from encephalon.core.errors import InvalidInput
from encephalon.state.objects import CHUNK_BYTES

__all__ = ["Digest", "spool"]

_Result = TypeVar("_Result")


class Digest:
    """Size and SHA-256 of what has passed."""

    def __init__(self) -> None:
        self.size = 0
        self._hash = hashlib.sha256()

    def update(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self._hash.update(chunk)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


async def spool(source: bytes | AsyncIterator[bytes], target: BinaryIO) -> Digest:
    """Copies `source` to `target` in a thread. Small chunks are gathered, so that a byte-wise source costs no thread
    each.
    """
    digest = Digest()

    def write(chunk: bytes) -> None:
        target.write(chunk)
        digest.update(chunk)

    if isinstance(source, bytes | bytearray | memoryview):
        await _finished(lambda: write(bytes(source)))
        return digest
    gathered = bytearray()
    async for chunk in source:
        if not isinstance(chunk, bytes | bytearray | memoryview):
            raise InvalidInput(f"an object is made of bytes, its source gave {type(chunk).__name__}")
        gathered += chunk
        if len(gathered) >= CHUNK_BYTES:
            part, gathered = bytes(gathered), bytearray()
            await _finished(lambda part=part: write(part))  # type: ignore[misc]
    await _finished(lambda: write(bytes(gathered)))
    return digest


async def _finished(step: Callable[[], _Result]) -> _Result:
    """Runs `step` in a thread and, when cancelled, still waits for its end: nobody may close the file under a writing
    thread.
    """
    work = asyncio.ensure_future(asyncio.to_thread(step))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise
