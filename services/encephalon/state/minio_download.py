"""An object on its way into a file: ranges of it, several at once, written and digested in their order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from minio.error import S3Error

from encephalon.core.errors import Conflict, Corrupt
from encephalon.state import names
from encephalon.state.filling import fill
from encephalon.state.minio_bucket import PUT, SHA256, Bucket
from encephalon.state.objects import CHUNK_BYTES, ObjectInfo, Progress
from encephalon.state.spool import finished
from encephalon.state.target import Target

__all__ = ["download"]

RANGE_BYTES: Final = 8 * 1024 * 1024


async def download(bucket: Bucket, key: str, path: Path, progress: Progress) -> ObjectInfo:
    """As `Objects.download`."""
    found = await bucket.run(bucket.client.stat_object, bucket.name, names.name_of(key), key=key)
    target = await bucket.run(Target, path, bounded=False)
    try:
        return await _Download(bucket, key, found, target, progress).run()
    finally:
        target.close()


class _Download:
    def __init__(self, bucket: Bucket, key: str, found: Any, target: Target, progress: Progress) -> None:
        metadata = found.metadata or {}
        self._bucket = bucket
        self._key = key
        self._put = metadata.get(PUT, "")
        self._info = ObjectInfo(key, int(found.size or 0), metadata.get(SHA256, ""))
        self._target = target
        self._progress = progress
        self._stopped = threading.Event()
        self._spare: list[bytearray] = []

    async def run(self) -> ObjectInfo:
        if not self._info.sha256:
            raise Corrupt(f"{self._key!r} has no digest: another program has put it", key=self._key)
        try:
            right = await fill(self._target, self._info, step=self._step, fetch=self._fetch, progress=self._progress)
        finally:
            self._stopped.set()
        if not right:
            await self._refuse()
        await self._step(self._target.finish)
        return self._info

    async def _step(self, step: Callable[..., None], *args: object) -> None:
        await finished(self._bucket.run(step, *args, bounded=False))

    async def _fetch(self, tell: Progress) -> None:
        written = asyncio.Event()
        written.set()
        try:
            async with asyncio.TaskGroup() as fetching:
                for start in range(self._target.size, self._info.size, RANGE_BYTES):
                    await self._bucket.parts.acquire()
                    before, written = written, asyncio.Event()
                    part = fetching.create_task(self._range(start, before, written, tell))
                    part.add_done_callback(lambda _: self._bucket.parts.release())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _range(self, start: int, before: asyncio.Event, written: asyncio.Event, tell: Progress) -> None:
        buffer = self._spare.pop() if self._spare else bytearray(RANGE_BYTES)
        data = memoryview(buffer)[: self._info.size - start]
        await self._bucket.run_part(self._read, start, data, key=self._key)
        await before.wait()
        await self._step(self._target.write, data)
        self._spare.append(buffer)
        written.set()
        tell(self._target.size)

    def _read(self, start: int, data: memoryview) -> None:
        name, filled = names.name_of(self._key), 0
        try:
            answer = self._bucket.client.get_object(self._bucket.name, name, start, len(data))
        except S3Error as error:
            if error.code == "InvalidRange":
                raise self._replaced() from None
            raise
        try:
            if answer.headers.get(PUT, "") != self._put:
                raise self._replaced()
            while filled < len(data):
                chunk = b"" if self._stopped.is_set() else answer.read(CHUNK_BYTES)
                if not chunk:
                    raise self._replaced()
                data[filled : filled + len(chunk)] = chunk
                filled += len(chunk)
        finally:
            # A connection with unread bytes cannot be used again.
            if filled != len(data):
                answer.close()
            answer.release_conn()

    def _replaced(self) -> Conflict:
        return Conflict(f"{self._key!r} was replaced while it was read; read it again", key=self._key)

    async def _refuse(self) -> None:
        """The bytes that came are not the object's."""
        found = self._target.sha256
        await self._step(self._target.discard)
        name = names.name_of(self._key)
        present = await self._bucket.run(self._bucket.client.stat_object, self._bucket.name, name, key=self._key)
        if (present.metadata or {}).get(PUT, "") != self._put:
            raise self._replaced()
        raise Corrupt(
            f"{self._key!r} does not match its digest: {found} was read, {self._info.sha256} was put", key=self._key
        )
