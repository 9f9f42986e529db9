"""Keeps objects from being collected until a record names them, and brings their bytes in.

Before its bytes are written an object has an entry, which the writer touches: as long as the writer's key is there,
nothing that was touched later than that key came is collected. So a commit that holds only while the key is there never
names what is missing. A doomed entry belongs to who deletes its bytes; it is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from typing import Final

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import Conflict, Corrupt, FailedPrecondition, NotFound, Unavailable
from encephalon.library.store.entries import bytes_of, message_or_none
from encephalon.library.store.keys import object_key
from encephalon.library.store.patience import attempts
from encephalon.library.store.registration import Registration
from encephalon.library.store.stores import Stores
from encephalon.state import ABSENT, Change, Entry, Unchanged

__all__ = ["Holder"]

_BATCH: Final = 50
_ROUNDS: Final = 6
_APART_S: Final = 0.3
_KEPT, _DOOMED = pb.StoredObject.STATE_KEPT, pb.StoredObject.STATE_DOOMED


class Holder:
    """What one writer holds."""

    def __init__(self, stores: Stores, registration: Registration) -> None:
        self._stores = stores
        self._registration = registration
        self._held: dict[str, tuple[int, int]] = {}
        """By digest: the revision when it was seen whole, and its size."""

    async def bring(self, object: pb.Object, upload: Callable[[], Awaitable[object]]) -> None:
        """Holds the object, and uploads it unless its bytes are there. Raises Unavailable, and what `upload` does."""
        for _ in range(_ROUNDS):
            if self._registration.lost:
                await self._registration.begin()
            condition = self._registration.condition
            if not await self._touch(object):
                await upload()
                if not await self._is_stored(object):
                    # SeaweedFS loses an object now and then that two put at once, though it confirms both.
                    await asyncio.sleep(random.uniform(0, _APART_S))  # noqa: S311 -- so that they are not at once again
                    continue
            if await self._complete(object, condition):
                return
        raise Unavailable(
            f"the object {object.sha256} was lost again and again while it was written: the store loses it, or is so "
            "slow that it was collected; try later"
        )

    async def hold(self, digests: Iterable[str]) -> dict[str, int]:
        """The sizes of objects that are there already, and now stay.

        Raises FailedPrecondition when one is missing.
        """
        wanted = iter(digests)
        sizes: dict[str, int] = {}
        while batch := list(islice(wanted, _BATCH)):
            new = [sha256 for sha256 in batch if not self._is_held(sha256)]
            if new:
                await self._hold(new)
            sizes.update((sha256, self._held[sha256][1]) for sha256 in batch)
        return sizes

    def _is_held(self, sha256: str) -> bool:
        return sha256 in self._held and self._held[sha256][0] > self._registration.revision

    async def _touch(self, object: pb.Object) -> bool:
        """Puts a KEPT entry that is this writer's; whether the bytes are there as well."""
        key, deletion = self._stores.keys.object(object.sha256), _Deletion(self._stores)
        patient_until = asyncio.get_running_loop().time() + self._stores.timing.retry_s
        async for last in attempts(self._stores.timing.retry_s + self._stores.timing.takeover_s):
            entry = await self._stores.key_value.get(key)
            found = message_or_none(pb.StoredObject, entry)
            if found is not None and found.state == _DOOMED and not await deletion.is_over(found):
                continue
            if asyncio.get_running_loop().time() < patient_until and await self._is_brought(found):
                continue
            whole = found is not None and found.state == _KEPT and found.complete and await self._is_stored(object)
            with contextlib.suppress(Conflict):
                await self._stores.key_value.put(
                    key, self._entry(object.size, whole), expected=entry.revision if entry is not None else ABSENT
                )
                return whole
            if last:
                break
        raise Unavailable(f"the object {object.sha256} is being deleted by somebody who does not end; try later")

    async def _is_brought(self, found: pb.StoredObject | None) -> bool:
        """Whether somebody else is bringing the bytes: to wait costs less than to bring them twice, and SeaweedFS loses
        an object now and then that two put at once.
        """
        if found is None or found.state != _KEPT or found.complete or found.writer == self._registration.id:
            return False
        return await self._stores.key_value.get(self._stores.keys.writer(found.writer)) is not None

    async def _complete(self, object: pb.Object, condition: Unchanged) -> bool:
        """Says that the bytes are there; False when the writer was taken for dead since it touched the object, because
        they may have been collected then, and the entry be of somebody who only begins to bring them.
        """
        key = self._stores.keys.object(object.sha256)
        async for _ in attempts(self._stores.timing.retry_s):
            entry = await self._stores.key_value.get(key)
            found = message_or_none(pb.StoredObject, entry)
            if entry is None or found is None or found.state != _KEPT:
                self._registration.forget(condition.key)
                return False
            if found.complete:
                self._held[object.sha256] = (entry.revision, found.size)
                return True
            change = Change(key, self._entry(object.size, True), expected=entry.revision)
            try:
                revision = await self._stores.key_value.commit([condition, change])
            except Conflict as error:
                if error.details.get("key") == condition.key:
                    self._registration.forget(condition.key)
                    return False
            else:
                self._held[object.sha256] = (revision, object.size)
                return True
        return False

    def _entry(self, size: int, complete: bool) -> bytes:
        entry = pb.StoredObject(state=_KEPT, size=size, writer=self._registration.id, complete=complete)
        entry.touched_time.GetCurrentTime()
        return bytes_of(entry)

    async def _is_stored(self, object: pb.Object) -> bool:
        """Heals a store that lost bytes: who brings them again has them written again."""
        try:
            info = await self._stores.objects.stat(object_key(object.sha256))
        except (NotFound, Corrupt):
            return False
        return info.size == object.size and info.sha256 in ("", object.sha256)

    async def _hold(self, digests: Sequence[str]) -> None:
        """Touches those that were not touched since this writer came; others' touches guard as well as its own."""
        keys = self._stores.keys
        async for last in attempts(self._stores.timing.retry_s):
            entries = await asyncio.gather(*(self._stores.key_value.get(keys.object(each)) for each in digests))
            sizes = [_size(sha256, entry) for sha256, entry in zip(digests, entries, strict=True)]
            known = {
                sha256: (entry.revision, size)
                for sha256, entry, size in zip(digests, entries, sizes, strict=True)
                if entry is not None
            }
            changes = [
                Change(keys.object(sha256), self._entry(size, True), expected=revision)
                for sha256, (revision, size) in known.items()
                if revision < self._registration.revision
            ]
            try:
                revision = await self._stores.key_value.commit(changes) if changes else 0
            except Conflict:
                if last:
                    raise
                continue
            self._held |= {sha256: (max(revision, seen), size) for sha256, (seen, size) in known.items()}
            return


def _size(sha256: str, entry: Entry | None) -> int:
    found = message_or_none(pb.StoredObject, entry)
    if found is None or found.state != _KEPT or not found.complete:
        raise FailedPrecondition(
            f"the record names the object sha256:{sha256}, which is not in the library; put its bytes first",
            sha256=sha256,
        )
    return found.size


class _Deletion:
    """Watches somebody delete an object: over when the entry vanishes, or some time after the deleter did."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._gone: dict[str, float] = {}
        """By deleter: since when it is known to be gone."""

    async def is_over(self, found: pb.StoredObject) -> bool:
        if await self._stores.key_value.get(self._stores.keys.writer(found.writer)) is not None:
            return False
        now = asyncio.get_running_loop().time()
        return now - self._gone.setdefault(found.writer, now) >= self._stores.timing.takeover_s
