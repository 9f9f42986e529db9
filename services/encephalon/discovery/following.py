"""Follows the instances of a brain through whatever happens to the store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Final

import structlog

from encephalon.api.discovery.v1.instance_pb2 import Instance
from encephalon.discovery import record
from encephalon.state import Entry, Event, EventKind, KeyValue

__all__ = ["watch"]

_log = structlog.get_logger(__name__)

GRACE_S: Final = 5.0
"""One lease: within this time after the store came back, every living instance has announced itself again."""


async def watch(
    store: KeyValue, namespace: str, brain: str, *, grace_s: float = GRACE_S
) -> AsyncGenerator[tuple[Instance, ...], None]:
    """The whole set of instances, in the order of their keys: the present one, and a new one whenever it has changed.

    An instance leaves the set only when the store says that it is gone, never because the store is out of reach. A
    store that has just come back may have let leases run out, or have lost its data, though the instances live: what
    it reports gone within `grace_s` after that is kept for `grace_s`, unless the instance was draining. Raises
    Unavailable when the store cannot be reached at the beginning.
    """
    prefix = record.prefix_of(namespace, brain)
    instances = _Instances(grace_s)
    clock = asyncio.get_running_loop().time
    async with contextlib.aclosing(store.watch(prefix)) as events:
        coming = asyncio.ensure_future(anext(events))
        told: tuple[Instance, ...] | None = None
        try:
            while True:
                await asyncio.wait([coming], timeout=instances.next_release(clock()))
                if coming.done():
                    instances.take(coming.result(), clock())
                    coming = asyncio.ensure_future(anext(events))
                instances.release(clock())
                if instances.listed and (present := instances.present()) != told:
                    told = present
                    yield present
        finally:
            coming.cancel()
            await asyncio.wait([coming])


class _Instances:
    def __init__(self, grace_s: float) -> None:
        self.listed = False
        self._grace_s = grace_s
        self._known: dict[str, Instance] = {}
        self._held: dict[str, float] = {}
        """Reported gone, but kept until then."""
        self._lenient_until = 0.0

    def present(self) -> tuple[Instance, ...]:
        return tuple(self._known[key] for key in sorted(self._known))

    def take(self, event: Event, now: float) -> None:
        match event.kind:
            case EventKind.PUT:
                self._put(Entry(event.key, event.value, event.revision))
            case EventKind.DELETE:
                self._delete(event.key, now)
            case EventKind.LISTED:
                self.listed = True
            case EventKind.RESUMED:
                self._lenient_until = now + self._grace_s

    def _put(self, entry: Entry) -> None:
        # A damaged record says nothing about the instance, so the last good one stays.
        if (instance := record.instance_of(entry)) is not None:
            self._known[entry.key] = instance
            self._held.pop(entry.key, None)

    def _delete(self, key: str, now: float) -> None:
        known = self._known.get(key)
        if known is None:
            return
        if now < self._lenient_until and known.state != Instance.STATE_DRAINING:
            _log.info("an instance is gone from a store that has just come back; it is kept for a while", key=key)
            self._held[key] = now + self._grace_s
        else:
            del self._known[key]
            self._held.pop(key, None)

    def next_release(self, now: float) -> float | None:
        """Seconds until a kept instance is let go; None when there is none."""
        return max(0.0, min(self._held.values()) - now) if self._held else None

    def release(self, now: float) -> None:
        for key in [key for key, until in self._held.items() if until <= now]:
            _log.info("an instance has not come back and is let go", key=key)
            del self._held[key]
            del self._known[key]
