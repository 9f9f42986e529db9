"""Writes what is put, counting and digesting it, with a bounded part of it in memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import BinaryIO, TypeVar

from encephalon.core.errors import InvalidInput
from encephalon.state.objects import CHUNK_BYTES

__all__ = ["Digest", "finished", "spool"]

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
        await _in_thread(write, bytes(source))
        return digest
    gathered = bytearray()
    async for chunk in source:
        if not isinstance(chunk, bytes | bytearray | memoryview):
            raise InvalidInput(f"an object is made of bytes, its source gave {type(chunk).__name__}")
        gathered += chunk
        if len(gathered) >= CHUNK_BYTES:
            part, gathered = bytes(gathered), bytearray()
            await _in_thread(write, part)
    await _in_thread(write, bytes(gathered))
    return digest


async def finished(work: Awaitable[_Result]) -> _Result:
    """Awaits `work` and, when cancelled, still waits for its end: nobody may close a file under a thread that uses
    it.
    """
    running = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # who was cancelled does not ask for it
        raise


def _in_thread(step: Callable[[bytes], None], chunk: bytes) -> Awaitable[None]:
    return finished(asyncio.to_thread(step, chunk))
