"""Brings objects and records in, for as long as one piece of work lasts."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import stat
from collections.abc import AsyncIterator
from pathlib import Path

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import InvalidInput
from encephalon.library.store.committing import Committer
from encephalon.library.store.holding import Holder
from encephalon.library.store.keys import object_key
from encephalon.library.store.progress import Progress, silent
from encephalon.library.store.registration import Registration, registered
from encephalon.library.store.stores import Stores

__all__ = ["Writer", "writing"]


@contextlib.asynccontextmanager
async def writing(stores: Stores, doing: str) -> AsyncIterator[Writer]:
    """What is put within the block is not collected until the block ends, or a record names it."""
    async with registered(stores, doing) as registration:
        yield Writer(stores, registration)


class Writer:
    def __init__(self, stores: Stores, registration: Registration) -> None:
        self._stores = stores
        self._holder = Holder(stores, registration)
        self._committer = Committer(stores, registration, self._holder)

    async def put_file(self, path: Path, *, progress: Progress = silent) -> pb.Object:
        """The file's bytes as an object; nothing is uploaded that is there already. An upload that was cut off goes on
        where it ended. InvalidInput when there is no such file.
        """
        found = await asyncio.to_thread(_digest_of_file, path)

        async def upload() -> None:
            await self._stores.objects.upload(object_key(found.sha256), path, sha256=found.sha256, progress=progress)

        await self._holder.bring(found, upload)
        progress(found.size)
        return found

    async def put_bytes(self, data: bytes) -> pb.Object:
        found = pb.Object(sha256=hashlib.sha256(data).hexdigest(), size=len(data))

        async def upload() -> None:
            await self._stores.objects.put(object_key(found.sha256), data)

        await self._holder.bring(found, upload)
        return found

    async def commit(self, draft: pb.Record, *, reuse: bool = False, alias: str | None = None) -> pb.Record:
        """Writes the draft under the next version of its name, with time, author and code version.

        Its objects must be in the library already. reuse: gives the latest version instead when that says the same.
        alias: moves it to the version in the same step.

        Raises InvalidInput for a draft that breaks a rule, NotFound for a parent and FailedPrecondition for an object
        that is not there.
        """
        return await self._committer.commit(draft, reuse=reuse, alias=alias)

    async def put_record(self, record: pb.Record) -> bool:
        """Writes a record of another library with the number, time and author that it has; parents need not be there.

        False when this very record is there already. Raises AlreadyExists when another has its number, else as
        `commit`.
        """
        return await self._committer.put(record)


def _digest_of_file(path: Path) -> pb.Object:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InvalidInput(f"{path} is not a file; give the path of one", path=path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
            return pb.Object(sha256=digest.hexdigest(), size=file.tell())
    except OSError as error:
        raise InvalidInput(f"the file {path} cannot be read: {error.strerror}", path=path) from error
