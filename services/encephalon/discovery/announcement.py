"""One instance announced for as long as it is there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

import structlog

from encephalon.api.discovery.v1.instance_pb2 import Instance
from encephalon.core.errors import EncephalonError
from encephalon.core.tasks import background
from encephalon.discovery import record
from encephalon.discovery.leased import LEASE_S, Leased
from encephalon.state import KeyValue

__all__ = ["Announcement", "announced"]

_log = structlog.get_logger(__name__)

LOAD_INTERVAL_S: Final = 1.0
"""The load changes with every request; each change that is told costs a write in the store and a wake-up in every
coordinator.
"""

_LOAD_STEP: Final = 0.01
_MAX_REASON = 400
"""Characters of a reason: the record of an instance is small."""


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


class Announcement(Leased):
    def __init__(
        self, store: KeyValue, namespace: str, instance: Instance, lease_s: float, load_interval_s: float
    ) -> None:
        record.check(instance)
        self._instance = Instance()
        self._instance.CopyFrom(instance)
        key = record.key_of(namespace, instance)
        super().__init__(store, key, lambda: record.value_of(self._instance), lease_s)
        self._load_interval_s = load_interval_s
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
                self.touch()

    def now_serves(self, network: str, version: str) -> None:
        """Tells that another network or version is in service, as soon as the store can be reached."""
        if (network, version) != (self._instance.network, self._instance.version):
            self._instance.network, self._instance.version = network, version
            self.touch()

    def now_holds(self, versions: Sequence[str], failed: Mapping[str, str]) -> None:
        """Tells which networks can be asked for by their identity, and why others could not be loaded."""
        reasons = {identity: reason[:_MAX_REASON] for identity, reason in failed.items()}
        if (list(versions), reasons) != (list(self._instance.versions), dict(self._instance.failed)):
            self._instance.versions[:] = versions
            self._instance.failed.clear()
            self._instance.failed.update(reasons)
            self.touch()

    def _set_load(self, load: float) -> None:
        if abs(load - self._instance.load) < _LOAD_STEP:
            return
        self._instance.load = load
        if self._load_timer is None:
            self._load_timer = asyncio.get_running_loop().call_later(self._load_interval_s, self._load_is_due)

    def _load_is_due(self) -> None:
        self._load_timer = None
        self.touch()

    async def leave(self) -> None:
        if self._load_timer is not None:
            self._load_timer.cancel()
        await super().leave()
