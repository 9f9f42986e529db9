"""Gets the bytes of objects, verified against the digest in the record, whatever the store says they are."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Final

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import Corrupt, InvalidInput, NotFound
from encephalon.library.records.bounds import check_object
from encephalon.library.store.cache import Cache
from encephalon.library.store.keys import object_key
from encephalon.library.store.progress import Progress
from encephalon.library.store.stores import Stores
from encephalon.state import read as read_object

__all__ = ["MAX_READ_BYTES", "fetch", "read"]

MAX_READ_BYTES: Final = 64 << 20


async def fetch(stores: Stores, cache: Cache, object: pb.Object, progress: Progress) -> Path:
    """Through the cache. Raises NotFound and Corrupt."""
    check_object("the object", object)

    async def download(path: Path) -> None:
        try:
            info = await stores.objects.download(object_key(object.sha256), path, progress=progress)
        except NotFound:
            raise _missing(object) from None
        if info.sha256 != object.sha256:
            await asyncio.to_thread(path.unlink)
            raise _damaged(object, info.sha256)

    return await cache.fetch(object, download)


async def read(stores: Stores, object: pb.Object) -> bytes:
    """For small ones. Raises NotFound, Corrupt, and InvalidInput for one above 64 MiB."""
    check_object("the object", object)
    if object.size > MAX_READ_BYTES:
        raise InvalidInput(f"an object of {object.size} bytes is not read into memory; fetch it as a file")
    try:
        data = await read_object(stores.objects, object_key(object.sha256), most=object.size)
    except NotFound:
        raise _missing(object) from None
    found = hashlib.sha256(data).hexdigest()
    if found != object.sha256:
        raise _damaged(object, found)
    return data


def _missing(object: pb.Object) -> NotFound:
    return NotFound(
        f"the object sha256:{object.sha256} is not in the library; see `library verify`, or put it again",
        sha256=object.sha256,
    )


def _damaged(object: pb.Object, found: str) -> Corrupt:
    return Corrupt(
        f"the object sha256:{object.sha256} is damaged, its bytes give {found}; put it again", sha256=object.sha256
    )
