"""Whether a record is there to be referred to, and stays until the commit that does so.

A record's summary is the key that says so: who removes the record marks it first, under a writer of its own, and only
then looks who refers to it. So a commit on the condition that the summary is unchanged either comes before the mark,
and is seen, or does not happen.
"""

from __future__ import annotations

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import FailedPrecondition, NotFound
from encephalon.library.records.reference import Reference
from encephalon.library.store.entries import message_or_none
from encephalon.library.store.stores import Stores
from encephalon.state import Unchanged

__all__ = ["lives", "lives_if_there"]


async def lives(stores: Stores, id: pb.Reference) -> Unchanged:
    """The condition for a commit. Raises NotFound, and FailedPrecondition while the record is being removed."""
    condition = await lives_if_there(stores, id)
    if condition is None:
        raise NotFound(f"there is no {Reference.of(id)} in the library", record=Reference.of(id))
    return condition


async def lives_if_there(stores: Stores, id: pb.Reference) -> Unchanged | None:
    """None when there is no such record."""
    key = stores.keys.summary(id)
    entry = await stores.key_value.get(key)
    if entry is None:
        return None
    summary = message_or_none(pb.Summary, entry) or pb.Summary()
    if summary.removing and await stores.key_value.get(stores.keys.writer(summary.removing)) is not None:
        raise FailedPrecondition(
            f"{Reference.of(id)} is being removed; refer to another version", record=Reference.of(id)
        )
    return Unchanged(key, entry.revision)
