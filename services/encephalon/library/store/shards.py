"""Data sets whose shards stand in an object of their own."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

from google.protobuf.message import DecodeError

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import Corrupt
from encephalon.library.records.bounds import MAX_INDEX_BYTES, check_object
from encephalon.library.records.named import indexes_of
from encephalon.library.store.keys import object_key
from encephalon.state import Objects, read

__all__ = ["indexed", "read_index"]


async def indexed(objects: Objects, record: pb.Record) -> AsyncIterator[pb.Object]:
    """The objects that the record's indexes name. Raises NotFound, Corrupt."""
    for index in indexes_of(record):
        for shard in (await read_index(objects, index)).shards:
            yield shard.object


async def read_index(objects: Objects, index: pb.Object) -> pb.ShardIndex:
    """Raises NotFound; Corrupt when it is no index, or not the one that is named."""
    data = await read(objects, object_key(index.sha256), most=min(index.size, MAX_INDEX_BYTES))
    try:
        found = pb.ShardIndex.FromString(data)
    except DecodeError:
        raise Corrupt(f"the object sha256:{index.sha256} is no index of shards", sha256=index.sha256) from None
    if hashlib.sha256(data).hexdigest() != index.sha256:
        raise Corrupt(f"the object sha256:{index.sha256} is damaged; put it again", sha256=index.sha256)
    for shard in found.shards:
        check_object("a shard of the index", shard.object)
    return found
