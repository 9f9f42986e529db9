"""A folder of verified objects of bounded size, shared by all processes of a user.

A file is named by its digest and holds exactly the object's bytes. Once it is verified its time of change is made from
the digest, so a file that anybody has written to since shows it, and is verified anew. Its time of access says when it
was last used; what was not used for longest goes first, and stays readable to who has it open.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import BinaryIO, Final

import structlog

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import Corrupt, FailedPrecondition, InvalidInput
from encephalon.library.store.aside import Aside
from encephalon.library.store.locks import locked, try_lock

__all__ = ["DEFAULT_BYTES", "Cache"]

_log = structlog.get_logger(__name__)

DEFAULT_BYTES: Final = 10 << 30
_POLL_S: Final = 0.05
_DIGEST_CHARACTERS: Final = 64
SPARED_S: Final = 5.0
"""What was asked for since then is not removed, because it may not have been opened yet."""

Download = Callable[[Path], Awaitable[object]]
"""Puts the verified object at a path."""


class Cache:
    def __init__(self, folder: Path, max_bytes: int = DEFAULT_BYTES, *, spared_s: float = SPARED_S) -> None:
        """`folder` is created when it is not there. FailedPrecondition when it cannot be written."""
        if max_bytes < 0:
            raise InvalidInput(f"a cache holds 0 bytes or more, not {max_bytes}")
        self.folder = folder
        self.max_bytes = max_bytes
        self._spared_ns = int(spared_s * 1e9)
        self._incoming = folder / ".incoming"
        try:
            self._incoming.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise FailedPrecondition(
                f"the cache {folder} cannot be written ({error.strerror}); choose another folder", path=folder
            ) from error
        self._aside = Aside(folder / ".aside", spared_s)

    async def fetch(self, object: pb.Object, download: Download) -> Path:
        """The object as a file that must not be changed. Open it soon: after some seconds it may go.

        Raises what `download` raises, and Corrupt when that gives other bytes.
        """
        if object.size > self.max_bytes:
            return await self._aside.fetch(object, download)
        if (path := await asyncio.to_thread(self._present, object)) is not None:
            return path
        async with self._turn(object) as lock:
            if (path := await asyncio.to_thread(self._present, object)) is not None:
                return path
            if not await asyncio.to_thread(self._reserve, object, lock):
                return await self._aside.fetch(object, download)
            incoming = self._incoming / object.sha256
            await download(incoming)
            return await asyncio.to_thread(self._enter, object, incoming)

    def used(self) -> int:
        """Bytes of the objects in it."""
        return sum(status.st_size for status in self._files().values())

    def clear(self) -> None:
        """Forgets all objects."""
        for path in self._files():
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Removes what was too large to stay. The cache can be used again."""
        self._aside.clear()

    def _present(self, object: pb.Object) -> Path | None:
        path, stamp = self.folder / object.sha256, _stamp(object.sha256)
        try:
            if self._used_now(path, object, stamp):
                return path
            if not self._is_whole(path, object):
                return None
            os.utime(path, ns=(time.time_ns(), stamp))
        except FileNotFoundError:
            return None
        return path

    def _used_now(self, path: Path, object: pb.Object, stamp: int) -> bool:
        """Whether the file is as it was verified; nobody makes room between the look and the note that it is used."""
        with locked(self.folder / ".lock"):
            status = path.stat()
            if (status.st_size, status.st_mtime_ns) != (object.size, stamp):
                return False
            os.utime(path, ns=(time.time_ns(), stamp))
            return True

    def _is_whole(self, path: Path, object: pb.Object) -> bool:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == object.sha256:
                return True
        _log.warning("a file of the cache was changed by somebody and is fetched again", path=str(path))
        path.unlink(missing_ok=True)
        return False

    @contextlib.asynccontextmanager
    async def _turn(self, object: pb.Object) -> AsyncIterator[BinaryIO]:
        """One process fetches an object at a time; the others find it when their turn comes."""
        path = self._incoming / f"{object.sha256}.lock"
        while (lock := try_lock(path)) is None:  # noqa: ASYNC110 -- the other may be another process
            await asyncio.sleep(_POLL_S)
        try:
            yield lock
        finally:
            path.unlink(missing_ok=True)
            lock.close()

    def _reserve(self, object: pb.Object, lock: BinaryIO) -> bool:
        """Makes room, and says in the lock how much of it this object will need. False when what was used just now and
        what others are fetching need it all.
        """
        with locked(self.folder / ".lock"):
            # In this order: what arrives between the two is counted twice rather than not at all.
            promised = self._promised(but=object)
            present = sorted(self._files().items(), key=lambda file: file[1].st_atime_ns)
            room = self.max_bytes - promised - sum(status.st_size for _, status in present)
            removed: list[Path] = []
            for path, status in present:
                if room >= object.size or status.st_atime_ns > time.time_ns() - self._spared_ns:
                    break
                removed.append(path)
                room += status.st_size
            if room < object.size:
                return False
            for path in removed:
                path.unlink(missing_ok=True)
            lock.write(b"%d" % object.size)
            lock.flush()
            return True

    def _promised(self, but: pb.Object) -> int:
        """What other fetches will need; what a dead one has left is removed."""
        total = 0
        for path in list(self._incoming.iterdir()):
            digest = path.name[:_DIGEST_CHARACTERS]
            if digest == but.sha256:
                continue
            lock = try_lock(self._incoming / f"{digest}.lock")
            if lock is not None:
                with lock:
                    path.unlink(missing_ok=True)
                    (self._incoming / f"{digest}.lock").unlink(missing_ok=True)
            elif path.name.endswith(".lock"):
                total += _number_in(path)
        return total

    def _enter(self, object: pb.Object, incoming: Path) -> Path:
        if incoming.stat().st_size != object.size:
            incoming.unlink()
            raise Corrupt(
                f"the object sha256:{object.sha256} has another size than its record says; see `library verify`",
                sha256=object.sha256,
            )
        incoming.chmod(0o444)
        os.utime(incoming, ns=(time.time_ns(), _stamp(object.sha256)))
        return incoming.replace(self.folder / object.sha256)

    def _files(self) -> dict[Path, os.stat_result]:
        found: dict[Path, os.stat_result] = {}
        with os.scandir(self.folder) as items:
            for item in items:
                if len(item.name) == _DIGEST_CHARACTERS:
                    with contextlib.suppress(FileNotFoundError):
                        found[Path(item.path)] = item.stat()
        return found


def _stamp(sha256: str) -> int:
    """A time of change, in nanoseconds, that no file has by itself: of the years 1970 to 1978."""
    return int(sha256[:7], 16) * 1_000_000_000


def _number_in(path: Path) -> int:
    try:
        return int(path.read_bytes() or b"0")
    except (FileNotFoundError, ValueError):
        return 0
