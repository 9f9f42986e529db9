"""An object on its way into a file.

In one stream: ranges side by side cost a gateway (JuiceFS) half as much again, and with the server on the same two
cores they were not faster.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from minio.error import S3Error

from encephalon.core.errors import Conflict, Corrupt
from encephalon.state import names
from encephalon.state.filling import fill
from encephalon.state.minio_bucket import PUT, SHA256, Bucket
from encephalon.state.objects import CHUNK_BYTES, ObjectInfo, Progress
from encephalon.state.opening import opened
from encephalon.state.spool import finished
from encephalon.state.target import Target

__all__ = ["download"]

# How much is moved, and for how long, between two looks at the event loop.
_STEP_BYTES: Final = 16 * 1024 * 1024
_STEP_S: Final = 0.2


async def download(bucket: Bucket, key: str, path: Path, progress: Progress) -> ObjectInfo:
    """As `Objects.download`."""
    found = await bucket.run(bucket.client.stat_object, bucket.name, names.name_of(key), key=key)
    target = await opened(bucket.run, lambda: Target(path), Target.close)
    try:
        return await _Download(bucket, key, found, target, progress).run()
    finally:
        await finished(asyncio.to_thread(target.close))


class _Download:
    def __init__(self, bucket: Bucket, key: str, found: Any, target: Target, progress: Progress) -> None:
        metadata = found.metadata or {}
        self._bucket = bucket
        self._key = key
        self._put = metadata.get(PUT, "")
        self._info = ObjectInfo(key, int(found.size or 0), metadata.get(SHA256, ""))
        self._target = target
        self._progress = progress
        self._answer: Any = None

    async def run(self) -> ObjectInfo:
        if not self._info.sha256:
            raise Corrupt(f"{self._key!r} has no digest: another program has put it", key=self._key)
        if not await fill(self._target, self._info, step=self._step, fetch=self._fetch, progress=self._progress):
            await self._refuse()
        await self._step(self._target.finish)
        return self._info

    async def _step(self, step: Callable[..., None], *args: object) -> None:
        await finished(self._bucket.run(step, *args, bounded=False))

    async def _fetch(self, tell: Progress) -> None:
        if self._target.size == self._info.size:
            return
        try:
            await finished(self._bucket.run_part(self._ask, key=self._key))
            while self._target.size < self._info.size:
                await finished(self._bucket.run_part(self._move, key=self._key))
                tell(self._target.size)
        finally:
            self._hang_up()

    def _hang_up(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            # A connection with unread bytes cannot be used again.
            if self._target.size < self._info.size:
                answer.close()
            answer.release_conn()

    def _ask(self) -> None:
        start, name = self._target.size, names.name_of(self._key)
        try:
            self._answer = self._bucket.client.get_object(self._bucket.name, name, start, self._info.size - start)
        except S3Error as error:
            if error.code == "InvalidRange":
                raise self._replaced() from None
            raise
        if self._answer.headers.get(PUT, "") != self._put:
            raise self._replaced()

    def _move(self) -> None:
        end, until = min(self._info.size, self._target.size + _STEP_BYTES), time.monotonic() + _STEP_S
        while self._target.size < end and time.monotonic() < until:
            chunk = self._answer.read(min(CHUNK_BYTES, end - self._target.size))
            if not chunk:
                raise self._replaced()
            self._target.write(chunk)

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
