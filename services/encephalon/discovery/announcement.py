"""Keeps one instance announced for as long as it is there, whatever happens to the store meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

import structlog

from encephalon.api.discovery.v1.instance_pb2 import Instance
from encephalon.core.errors import EncephalonError, NotFound
from encephalon.core.tasks import background
from encephalon.discovery import record
from encephalon.state import KeyValue, Lease

__all__ = ["Announcement", "announced"]

_log = structlog.get_logger(__name__)

LEASE_S: Final = 5.0
"""How long an instance that died stays announced."""

LOAD_INTERVAL_S: Final = 1.0
"""The load changes with every request; each change that is told costs a write in the store and a wake-up in every
coordinator.
"""

_LOAD_STEP: Final = 0.01
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0


@contextlib.asynccontextmanager
async def announced(
    store: KeyValue,
    namespace: str,
    instance: Instance,
    *,
    lease_s: float = LEASE_S,
    load_interval_s: float = LOAD_INTERVAL_S,
) -> AsyncIterator[Announcement]:
    """`instance` is announced while the block lasts; leaving takes the announcement back at once.

    Raises InvalidInput for an instance that nobody could use, Unavailable when the store cannot be reached on
    entering. Later losses of the store or of its data are mended by announcing again.
    """
    announcement = Announcement(store, namespace, instance, lease_s, load_interval_s)
    await announcement.write()
    try:
        async with background(f"announce {instance.region}/{instance.id}", announcement.keep()):
            yield announcement
    finally:
        await announcement.leave()


class Announcement:
    def __init__(
        self, store: KeyValue, namespace: str, instance: Instance, lease_s: float, load_interval_s: float
    ) -> None:
        record.check(instance)
        self._key = record.key_of(namespace, instance)
        self._store = store
        self._instance = Instance()
        self._instance.CopyFrom(instance)
        self._lease_s = lease_s
        self._load_interval_s = load_interval_s
        self._lease: Lease | None = None
        self._written = b""
        self._revision = 0
        self._writing = asyncio.Lock()
        self._changed = asyncio.Event()
        self._load_timer: asyncio.TimerHandle | None = None

    async def update(self, *, state: Instance.State.ValueType | None = None, load: float | None = None) -> None:
        """Tells a new state at once, a new load (0 to 1) within the load interval.

        Does not raise when the store is out of reach: then the change is told when it is back.
        """
        if load is not None:
            self._set_load(min(1.0, max(0.0, load)))
        if state is not None and state != self._instance.state:
            self._instance.state = state
            record.check(self._instance)
            try:
                await self.write()
            except EncephalonError as error:
                _log.warning("a change of state could not be announced yet", key=self._key, cause=str(error))
                self._changed.set()

    def now_serves(self, network: str, version: str) -> None:
        """Tells that another network or version is in service, as soon as the store can be reached."""
        if (network, version) != (self._instance.network, self._instance.version):
            self._instance.network, self._instance.version = network, version
            self._changed.set()

    def _set_load(self, load: float) -> None:
        if abs(load - self._instance.load) < _LOAD_STEP:
            return
        self._instance.load = load
        if self._load_timer is None:
            self._load_timer = asyncio.get_running_loop().call_later(self._load_interval_s, self._load_is_due)

    def _load_is_due(self) -> None:
        self._load_timer = None
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
        if self._lease is not None and self._written == record.value_of(self._instance):
            await self._lease.keep()
            entry = await self._store.get(self._key)
            if entry is not None and (entry.revision, entry.value) == (self._revision, self._written):
                return
            _log.warning("an announcement was changed by somebody else and is written again", key=self._key)
        await self.write()

    async def write(self) -> None:
        """Raises Unavailable; NotFound when the lease was lost just now."""
        async with self._writing:
            value = record.value_of(self._instance)
            if self._lease is None or self._lease.lost.is_set():
                self._lease = await self._store.lease(self._lease_s)
            self._revision = await self._store.put(self._key, value, lease=self._lease)
            self._written = value

    async def leave(self) -> None:
        """Gives the lease back; when the store is out of reach the lease runs out by itself."""
        if self._load_timer is not None:
            self._load_timer.cancel()
        lease, self._lease = self._lease, None
        if lease is None:
            return
        try:
            await lease.revoke()
        except EncephalonError as error:
            _log.warning("an announcement could not be taken back and runs out", key=self._key, cause=str(error))
