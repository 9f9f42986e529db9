"""Keeps one key in the store for as long as its owner is there, whatever happens to the store meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import structlog

from encephalon.core.errors import EncephalonError, NotFound
from encephalon.state import KeyValue, Lease

__all__ = ["LEASE_S", "Leased"]

_log = structlog.get_logger(__name__)

LEASE_S: Final = 5.0
"""How long something that died stays announced."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0


class Leased:
    """The key has `value()`, which is asked for again whenever `touch` was called."""

    def __init__(self, store: KeyValue, key: str, value: Callable[[], bytes], lease_s: float = LEASE_S) -> None:
        self._store = store
        self._key = key
        self._value = value
        self._lease_s = lease_s
        self._lease: Lease | None = None
        self._written = b""
        self._revision = 0
        self._writing = asyncio.Lock()
        self._changed = asyncio.Event()

    def touch(self) -> None:
        """The value has changed: it is written as soon as the store can be reached."""
        self._changed.set()

    async def keep(self) -> None:
        """Keeps the lease for ever, and writes what has changed or was lost."""
        failures = 0
        while True:
            try:
                await self._keep_once()
            except NotFound:
                _log.warning("the lease of an announcement was lost and is taken anew", key=self._key)
                self._lease = None
                await asyncio.sleep(_FIRST_PAUSE_S)
                continue
            except EncephalonError as error:
                # Even a refusal is no reason to end: who is here serves those who know it, and a store can be mended.
                failures += 1
                if failures == 1:
                    _log.warning("the store of discovery is out of reach", key=self._key, cause=str(error))
                await asyncio.sleep(min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(failures - 1, 10)))
                continue
            if failures:
                _log.info("the store of discovery is back", key=self._key, failures=failures)
                failures = 0
            with contextlib.suppress(TimeoutError):
                # Two attempts may fail before the lease runs out.
                await asyncio.wait_for(self._changed.wait(), self._lease_s / 3)

    async def _keep_once(self) -> None:
        self._changed.clear()
        lease = self._lease
        if lease is None or self._written != self._value():
            await self.write()
            if lease is not None and lease is self._lease:
                await lease.keep()  # which a write does not, and what changes all the time is written all the time
            return
        await lease.keep()
        entry = await self._store.get(self._key)
        if entry is None or (entry.revision, entry.value) != (self._revision, self._written):
            _log.warning("an announcement was changed by somebody else and is written again", key=self._key)
            await self.write()

    async def write(self) -> None:
        """Raises Unavailable; NotFound when the lease was lost just now."""
        async with self._writing:
            value = self._value()
            if self._lease is None or self._lease.lost.is_set():
                self._lease = await self._store.lease(self._lease_s)
            self._revision = await self._store.put(self._key, value, lease=self._lease)
            self._written = value

    async def leave(self) -> None:
        """Gives the lease back; when the store is out of reach the lease runs out by itself."""
        lease, self._lease = self._lease, None
        if lease is None:
            return
        try:
            await lease.revoke()
        except EncephalonError as error:
            _log.warning("an announcement could not be taken back and runs out", key=self._key, cause=str(error))
