"""Deletes objects that no record reaches.

An object's entry is doomed before its bytes are deleted, and goes last. It is doomed only while it is as it was before
the records were read, and only when nobody touched it since the oldest living writer came: whoever is about to commit a
record that names it has touched it later than that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import Conflict, InvalidInput, Unavailable
from encephalon.library.store.entries import bytes_of
from encephalon.library.store.keys import object_key
from encephalon.library.store.progress import Counted
from encephalon.library.store.registration import Registration, registered
from encephalon.library.store.stores import Stores
from encephalon.library.store.surveying import Garbage, Survey
from encephalon.state import Change

__all__ = ["Collected", "collect"]

_AT_ONCE: Final = 8
_DOOMED: Final = pb.StoredObject.STATE_DOOMED


@dataclass(frozen=True, slots=True)
class Collected:
    objects: int
    """Deleted; in a dry run, those that would be."""
    bytes: int
    left: int
    """Objects that stay."""
    spared: int
    """Of these, how many no record reaches: too young, or in the hands of a writer."""


async def collect(stores: Stores, *, grace_s: float, dry_run: bool, progress: Counted) -> Collected:
    """Deletes what no record reaches and nobody touched for `grace_s` seconds; `progress` counts objects.

    Safe beside writers and other collections, whoever dies when. Raises FailedPrecondition when a record cannot be
    read, and Unavailable when this process was so slow that others took it for dead.
    """
    if not 0 <= grace_s < 1e9:
        raise InvalidInput(f"the grace period must be 0 seconds or more, not {grace_s:g}")
    async with registered(stores, "gc") as registration:
        survey = await Survey.taken(stores, grace_s)
        gone = survey.garbage
        if not dry_run:
            gone = await _delete(stores, registration, gone, progress)
    left = survey.total - len(gone)
    return Collected(len(gone), sum(found.size for found in gone), left, survey.unreached - len(gone))


async def _delete(
    stores: Stores, registration: Registration, garbage: Sequence[Garbage], progress: Counted
) -> list[Garbage]:
    """Those that were deleted; what somebody has touched meanwhile stays."""
    gone: list[Garbage] = []
    for start in range(0, len(garbage), _AT_ONCE):
        progress(start, len(garbage))
        batch = garbage[start : start + _AT_ONCE]
        # All of them end before the writer's key is given back, also when one fails.
        ended = await asyncio.gather(
            *(_delete_one(stores, registration, found) for found in batch), return_exceptions=True
        )
        for failure in ended:
            if isinstance(failure, BaseException):
                raise failure
        gone += [found for found, deleted in zip(batch, ended, strict=True) if deleted]
    progress(len(garbage), len(garbage))
    return gone


async def _delete_one(stores: Stores, registration: Registration, found: Garbage) -> bool:
    key = stores.keys.object(found.sha256)
    doomed = pb.StoredObject(state=_DOOMED, size=found.size, writer=registration.id)
    doomed.touched_time.GetCurrentTime()
    try:
        revision = await stores.key_value.commit(
            [registration.condition, Change(key, bytes_of(doomed), expected=found.revision)]
        )
    except Conflict as error:
        if error.details.get("key") == key:
            return False
        raise _taken_for_dead() from error
    # Who finds the entry doomed waits for this writer's end and a while longer, so this must not come late.
    if not await registration.prove():
        raise _taken_for_dead()
    await stores.objects.delete(object_key(found.sha256))
    with contextlib.suppress(Conflict):
        await stores.key_value.delete(key, expected=revision)
    return True


def _taken_for_dead() -> Unavailable:
    return Unavailable("the collection was taken for dead, the store or this machine is too slow; run it again")
