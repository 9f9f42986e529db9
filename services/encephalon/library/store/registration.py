"""The key by which a writer shows that it lives. The garbage collection spares what was touched since the oldest of
them, and a commit holds only while its own is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from typing import Final

import structlog

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import EncephalonError, NotFound, Unavailable
from encephalon.core.tasks import background
from encephalon.library.store.author import author
from encephalon.library.store.entries import bytes_of
from encephalon.library.store.stores import Stores
from encephalon.state import ABSENT, Lease, Unchanged

__all__ = ["Registration", "registered"]

_log = structlog.get_logger(__name__)

_BEGINNINGS: Final = 5


@contextlib.asynccontextmanager
async def registered(stores: Stores, doing: str) -> AsyncIterator[Registration]:
    """A writer is registered while the block lasts. Raises Unavailable when the store cannot be reached on entering."""
    registration = Registration(stores, doing)
    await registration.begin()
    try:
        # Without its keeper a writer loses its key, and its next step says so; the program may go on.
        async with background(f"library: {doing}", registration.keep(), ended=lambda *_: registration.forget()):
            yield registration
    finally:
        await registration.end()


class Registration:
    def __init__(self, stores: Stores, doing: str) -> None:
        self._stores = stores
        self._doing = doing
        self._lease: Lease | None = None
        self._kept = 0.0
        self._beginning = asyncio.Lock()
        self.id = ""
        self.revision = 0
        """Of the writer's key. What is touched later is safe from the garbage collection while the key is there."""

    @property
    def condition(self) -> Unchanged:
        """For a commit: this writer is still known to live."""
        return Unchanged(self._stores.keys.writer(self.id), self.revision)

    @property
    def lost(self) -> bool:
        return self._lease is None or self._lease.lost.is_set()

    async def begin(self) -> None:
        """Takes a key, unless it has one; a new one after the last was lost. What was touched before is no longer safe
        then. Raises Unavailable.
        """
        async with self._beginning:
            if not self.lost:
                return  # somebody else of this writer was quicker
            for _ in range(_BEGINNINGS):
                try:
                    await self._begin_once()
                except NotFound:
                    continue
                return
            raise Unavailable("the store is so slow that a writer's lease runs out before it is used; try later")

    async def _begin_once(self) -> None:
        store, now = self._stores.key_value, _now()
        id = uuid.uuid4().hex
        writer = pb.Writer(host=author(), doing=self._doing)
        writer.started_time.GetCurrentTime()
        lease = await store.lease(self._stores.timing.lease_s)
        key = self._stores.keys.writer(id)
        revision = await store.put(key, bytes_of(writer), lease=lease, expected=ABSENT)
        self.id, self.revision, self._lease, self._kept = id, revision, lease, now

    async def keep(self) -> None:
        """Keeps the lease for ever; one that is lost is taken anew by who needs it."""
        pause = self._stores.timing.lease_s / 3
        while True:
            await asyncio.sleep(pause)
            pause = self._stores.timing.lease_s / (3 if await self._kept_once() else 15)

    async def prove(self) -> bool:
        """Whether the key is there for at least two thirds of the lease's time from now on."""
        age = _now() - self._kept
        return not self.lost and (age < self._stores.timing.lease_s / 3 or await self._kept_once())

    def forget(self, key: str | None = None) -> None:
        """The store has said that the key is gone; unless `key` is one that this writer had before."""
        if self._lease is not None and key in (None, self.condition.key):
            self._lease.lost.set()

    async def end(self) -> None:
        """Gives the key back; when the store is out of reach it runs out by itself."""
        lease, self._lease = self._lease, None
        if lease is None:
            return
        try:
            await lease.revoke()
        except EncephalonError as error:
            _log.warning("a writer's key could not be given back and runs out", writer=self.id, cause=str(error))

    async def _kept_once(self) -> bool:
        lease, now = self._lease, _now()
        if lease is None or lease.lost.is_set():
            return False
        try:
            await lease.keep()
        except NotFound:
            # An embedded store tells it by the error alone.
            _log.warning("the writer was not heard of for too long and begins again", writer=self.id, doing=self._doing)
            lease.lost.set()
            return False
        except EncephalonError as error:
            _log.warning("a writer's key could not be kept and is tried again", writer=self.id, cause=str(error))
            return False
        if self._lease is lease:
            self._kept = now
        return True


def _now() -> float:
    """Seconds that go on while the machine sleeps, as the store's do."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
