"""Which versions of a brain coordinators still send requests to: regions keep the networks of these."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from typing import Final
from urllib.parse import quote

import structlog
from google.protobuf.message import DecodeError

from encephalon.api.discovery.v1.instance_pb2 import Serving
from encephalon.core.errors import Retryable
from encephalon.core.tasks import background
from encephalon.discovery.leased import LEASE_S, Leased
from encephalon.state import Event, EventKind, KeyValue

__all__ = ["announced_serving", "watch_serving"]

_log = structlog.get_logger(__name__)

RETRY_S: Final = 0.5


def prefix_of(namespace: str, brain: str) -> str:
    return f"/encephalon/{quote(namespace, safe='')}/serving/{quote(brain, safe='')}/"


@contextlib.asynccontextmanager
async def announced_serving(
    store: KeyValue,
    namespace: str,
    brain: str,
    id: str,
    versions: Callable[[], Iterable[int]],
    *,
    lease_s: float = LEASE_S,
) -> AsyncIterator[Leased]:
    """Announces `versions()` while the block lasts; call `touch` of what it yields when they have changed.

    Never raises for the store: what cannot be told now is told when the store is back.
    """

    def value() -> bytes:
        return Serving(brain=brain, id=id, versions=sorted(versions())).SerializeToString(deterministic=True)

    leased = Leased(store, prefix_of(namespace, brain) + quote(id, safe=""), value, lease_s)
    try:
        async with background(f"announce what serves {brain}", leased.keep()):
            yield leased
    finally:
        await leased.leave()


async def watch_serving(store: KeyValue, namespace: str, brain: str) -> AsyncGenerator[frozenset[int], None]:
    """The versions of a brain that some coordinator serves: now, and after each change. For ever.

    A coordinator whose lease has run out counts no more, even if it is only cut off from the store: whoever acts on a
    version that has gone should wait a while.
    """
    while True:
        try:
            async with contextlib.aclosing(store.watch(prefix_of(namespace, brain))) as events:
                async for versions in followed(events):
                    yield versions
        except Retryable as error:
            _log.warning("coordinators cannot be watched yet", brain=brain, cause=str(error))
            await asyncio.sleep(RETRY_S)


async def followed(events: AsyncGenerator[Event, None]) -> AsyncGenerator[frozenset[int], None]:
    known: dict[str, frozenset[int]] = {}
    told: frozenset[int] | None = None
    listed = False
    async for event in events:
        match event.kind:
            case EventKind.PUT:
                known[event.key] = read(event)
            case EventKind.DELETE:
                known.pop(event.key, None)
            case EventKind.LISTED:
                listed = True
            case EventKind.RESUMED:
                continue
        present = frozenset[int]().union(*known.values())
        if listed and present != told:
            told = present
            yield present


def read(event: Event) -> frozenset[int]:
    try:
        return frozenset(Serving.FromString(event.value).versions)
    except DecodeError as error:
        _log.warning("a damaged record of a coordinator is skipped", key=event.key, cause=str(error))
        return frozenset()
