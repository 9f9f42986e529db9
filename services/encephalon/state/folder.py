"""Objects as files below one folder, for several processes.

A file holds the object's bytes and, behind them, their SHA-256 and a mark. It is written in `.incoming` and moved to
its name when it is safe on disk, so a name never shows half an object, whoever dies when.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import os
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Final, Self, TypeVar

from encephalon.core.errors import Corrupt, EncephalonError, NotFound, Unavailable
from encephalon.state import names
from encephalon.state.filling import fill
from encephalon.state.objects import CHUNK_BYTES, ObjectEntry, ObjectInfo, Progress, check_range, unseen
from encephalon.state.opening import opened
from encephalon.state.source import Source
from encephalon.state.spool import Digest, finished, spool
from encephalon.state.target import Target

__all__ = ["Folder"]

_Result = TypeVar("_Result")

_MARK: Final = b"encobj1\n"
_FOOTER_BYTES: Final = 32 + len(_MARK)
_INCOMING: Final = ".incoming"  # no key gives a name with a leading dot
_THREADS: Final = 8
_COPIED_BYTES: Final = 4 * 1024 * 1024  # at once, between two looks at the event loop
# A file in `.incoming` that nobody holds is left from a process that died. One as young as this may not have been
# locked yet.
_ORPHAN_AGE_S: Final = 60.0


class Folder:
    def __init__(self, path: Path, *, deadline_s: float) -> None:
        """`path` is created when it is not there; `deadline_s` bounds every small step on the disk."""
        self._path = path
        self._deadline_s = deadline_s
        self._turns = asyncio.Semaphore(_THREADS)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="folder")

    async def __aenter__(self) -> Self:
        await self._run(self._prepare)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._threads.shutdown(wait=False)

    async def put(self, key: str, source: bytes | AsyncIterator[bytes]) -> ObjectInfo:
        target = self._path / names.name_of(key)
        incoming = self._path / _INCOMING / uuid.uuid4().hex
        file = await opened(self._run, lambda: _create(incoming), lambda file: _give_up(file, incoming))
        try:
            digest = await spool(source, file)
            await self._run(_publish, file, incoming, target, digest.sha256, bounded=False)
        finally:
            _give_up(file, incoming)
        return ObjectInfo(key, digest.size, digest.sha256)

    async def upload(self, key: str, path: Path, *, sha256: str, progress: Progress = unseen) -> ObjectInfo:
        target = self._path / names.name_of(key)
        incoming = self._path / _INCOMING / uuid.uuid4().hex
        source = await opened(self._run, lambda: Source(path, sha256), Source.drop)
        try:
            file = await opened(self._run, lambda: _create(incoming), lambda file: _give_up(file, incoming))
            try:
                await self._copy(file, source, progress)
                await finished(self._run(_publish, file, incoming, target, sha256, bounded=False))
            finally:
                _give_up(file, incoming)
        finally:
            source.drop()
        return ObjectInfo(key, source.size, sha256)

    async def _copy(self, file: BinaryIO, source: Source, progress: Progress) -> None:
        buffer, left = memoryview(bytearray(_COPIED_BYTES)), source.size
        while left:
            part = buffer[: min(left, len(buffer))]
            await finished(self._run(_copy_from, source, part, file, bounded=False))
            left -= len(part)
            progress(source.size - left)
        source.verify()

    async def download(self, key: str, path: Path, *, progress: Progress = unseen) -> ObjectInfo:
        file, info = await self._opened(key)
        try:
            target = await opened(self._run, lambda: Target(path), Target.close)
            try:
                await self._fill_target(file, info, target, progress)
            finally:
                await finished(asyncio.to_thread(target.close))
        finally:
            file.close()
        return info

    async def _fill_target(self, file: BinaryIO, info: ObjectInfo, target: Target, progress: Progress) -> None:
        async def step(work: Callable[..., None], *args: object) -> None:
            await finished(self._run(work, *args, bounded=False))

        async def fetch(tell: Progress) -> None:
            while target.size < info.size:
                await step(_copy_to, file, info, target)
                tell(target.size)

        if not await fill(target, info, step=step, fetch=fetch, progress=progress):
            await step(target.discard)
            raise _damaged(info, target.sha256)
        await step(target.finish)

    async def get(self, key: str, start: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        check_range(start, length)
        file, info = await self._opened(key)
        digest = Digest()
        try:
            left = max(0, info.size - start) if length is None else max(0, min(length, info.size - start))
            whole = start == 0 and left == info.size
            await finished(self._run(file.seek, start))
            while left:
                chunk = await finished(self._run(file.read, min(left, CHUNK_BYTES)))
                if not chunk:
                    raise Corrupt(f"{key!r} was cut while it was read", key=key)
                left -= len(chunk)
                if whole:
                    await self._run(digest.update, chunk)
                yield chunk
            if whole and digest.sha256 != info.sha256:
                raise _damaged(info, digest.sha256)
        finally:
            file.close()

    async def stat(self, key: str) -> ObjectInfo:
        file, info = await self._opened(key)
        file.close()
        return info

    async def list(self, prefix: str) -> AsyncGenerator[ObjectEntry, None]:
        walk = self._walk(prefix)
        while batch := await self._run(_take, walk, 1000):
            for entry in batch:
                yield entry

    async def delete(self, key: str) -> None:
        def remove() -> None:
            with contextlib.suppress(FileNotFoundError):
                (self._path / names.name_of(key)).unlink()

        await self._run(remove)

    async def _run(self, step: Callable[..., _Result], *args: object, bounded: bool = True) -> _Result:
        """Making a large object safe on disk takes as long as it takes; all other steps are small."""
        try:
            async with asyncio.timeout(self._deadline_s if bounded else None), self._turns:
                return await asyncio.get_running_loop().run_in_executor(self._threads, step, *args)
        except EncephalonError:
            raise
        except TimeoutError as error:
            raise Unavailable(f"{self._path} did not answer within {self._deadline_s:g} s", path=self._path) from error
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be used: {error.strerror}", path=self._path) from error
        except RuntimeError as error:
            raise Unavailable(f"the store {self._path} is closed", path=self._path) from error

    async def _opened(self, key: str) -> tuple[BinaryIO, ObjectInfo]:
        return await opened(self._run, lambda: self._open(key), lambda found: found[0].close())

    def _prepare(self) -> None:
        (self._path / _INCOMING).mkdir(parents=True, exist_ok=True)
        for left in (self._path / _INCOMING).iterdir():
            with contextlib.suppress(OSError), left.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - left.stat().st_mtime > _ORPHAN_AGE_S:
                    left.unlink()

    def _open(self, key: str) -> tuple[BinaryIO, ObjectInfo]:
        try:
            file = (self._path / names.name_of(key)).open("rb", buffering=0)
        except FileNotFoundError:
            raise NotFound(f"there is no object {key!r} in {self._path}", key=key) from None
        try:
            size = os.fstat(file.fileno()).st_size - _FOOTER_BYTES
            footer = os.pread(file.fileno(), _FOOTER_BYTES, size) if size >= 0 else b""
            if footer[32:] != _MARK:
                raise Corrupt(f"{key!r} is damaged: its end is missing", key=key)
            return file, ObjectInfo(key, size, footer[:32].hex())
        except BaseException:
            file.close()
            raise

    def _walk(self, prefix: str) -> Iterator[ObjectEntry]:
        """Goes only into folders that can hold such keys."""
        wanted = names.prefix_of(prefix)
        pending = [wanted.rpartition("/")[0]]
        while pending:
            folder = pending.pop()
            with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(self._path / folder) as found:
                for item in found:
                    name = f"{folder}/{item.name}" if folder else item.name
                    if item.name == _INCOMING or not name.startswith(wanted):
                        continue
                    if item.is_dir():
                        pending.append(name)
                    elif (entry := _entry(name, item)) is not None and entry.key.startswith(prefix):
                        yield entry


def _create(path: Path) -> BinaryIO:
    file = path.open("xb")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _give_up(file: BinaryIO, incoming: Path) -> None:
    """Harmless after `_publish`."""
    file.close()
    incoming.unlink(missing_ok=True)


def _copy_from(source: Source, buffer: memoryview, file: BinaryIO) -> None:
    source.read(buffer)
    file.write(buffer)


def _copy_to(file: BinaryIO, info: ObjectInfo, target: Target) -> None:
    end = min(info.size, target.size + _COPIED_BYTES)
    while target.size < end:
        data = os.pread(file.fileno(), min(CHUNK_BYTES, end - target.size), target.size)
        if not data:
            raise Corrupt(f"{info.key!r} was cut while it was read", key=info.key)
        target.write(data)


def _damaged(info: ObjectInfo, found: str) -> Corrupt:
    return Corrupt(f"{info.key!r} does not match its digest: {found} was read, {info.sha256} was put", key=info.key)


def _publish(file: BinaryIO, incoming: Path, target: Path, sha256: str) -> None:
    file.write(bytes.fromhex(sha256) + _MARK)
    file.flush()
    os.fsync(file.fileno())
    target.parent.mkdir(parents=True, exist_ok=True)
    incoming.replace(target)
    # The new name must survive a loss of power as well as the bytes.
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _entry(name: str, item: os.DirEntry[str]) -> ObjectEntry | None:
    key = names.key_of(name)
    if key is None:
        return None
    try:
        status = item.stat()
    except FileNotFoundError:
        return None  # deleted meanwhile
    return ObjectEntry(key, status.st_size - _FOOTER_BYTES)


def _take(found: Iterator[ObjectEntry], count: int) -> list[ObjectEntry]:
    return list(itertools.islice(found, count))
