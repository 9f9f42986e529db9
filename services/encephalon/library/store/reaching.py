"""Goes through all records and finds what they reach."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from encephalon.core.errors import Corrupt, FailedPrecondition, InvalidInput, NotFound
from encephalon.library.records.kinds import KINDS
from encephalon.library.records.named import digests_of
from encephalon.library.store.entries import record_in
from encephalon.library.store.shards import indexed
from encephalon.library.store.stores import Stores
from encephalon.state import Entry

__all__ = ["reached", "record_entries"]


async def record_entries(stores: Stores) -> AsyncGenerator[Entry, None]:
    """Of all records, a page of the store at a time."""
    for kind in KINDS:
        async with contextlib.aclosing(stores.key_value.pages(stores.keys.records(kind))) as pages:
            async for page in pages:
                for entry in page:
                    yield entry


async def reached(stores: Stores) -> set[bytes]:
    """The digests, 32 bytes each, of all objects that any record names, itself or in an index.

    Raises FailedPrecondition when a record or an index cannot be read: nobody can say then what it needs.
    """
    found: set[bytes] = set()
    async with contextlib.aclosing(record_entries(stores)) as entries:
        async for entry in entries:
            try:
                record = record_in(stores.keys, entry)
                found.update(map(bytes.fromhex, digests_of(record)))
                async for shard in indexed(stores.objects, record):
                    found.add(bytes.fromhex(shard.sha256))
            except (Corrupt, NotFound, InvalidInput, ValueError) as error:
                raise FailedPrecondition(
                    f"what the record at {entry.key} needs cannot be read ({error}); see `library verify`, and repair "
                    "or remove it first",
                    key=entry.key,
                ) from error
    return found
