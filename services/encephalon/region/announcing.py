"""What a replica says of itself in discovery."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import uuid
from collections.abc import AsyncIterator

from encephalon.api.discovery.v1.instance_pb2 import Instance
from encephalon.core.errors import FailedPrecondition
from encephalon.core.host import host_identity
from encephalon.core.serving import Server, host_port
from encephalon.core.tasks import background
from encephalon.discovery import Announcement, announced
from encephalon.region.actor import RegionActor
from encephalon.region.group import RegionGroup
from encephalon.region.settings import RegionSettings
from encephalon.state import KeyValue

__all__ = ["announced_group", "announced_region", "instance_of"]

WILDCARDS = ("0.0.0.0", "::", "")  # noqa: S104 - compared with, not bound

TELL_INTERVAL_S = 0.5
LEAVE_S = 1.0
"""For telling that the replica leaves; when the store does not answer, callers learn it from the replica itself."""


@contextlib.asynccontextmanager
async def announced_region(
    settings: RegionSettings, store: KeyValue | None, brain: str, actor: RegionActor, server: Server
) -> AsyncIterator[None]:
    """Announces the replica as READY while the block lasts, with its load; does nothing without a store."""
    if store is None:
        yield
        return
    async with announced(store, settings.namespace, instance_of(settings, brain, actor, server)) as announcement:
        async with background("tell how the region is", tell(actor, announcement)):
            yield
        await leave(announcement)


@contextlib.asynccontextmanager
async def announced_group(
    settings: RegionSettings, store: KeyValue, brain: str, group: RegionGroup, server: Server
) -> AsyncIterator[None]:
    """As `announced_region`, with the networks that can be asked for by their identity."""
    if group.current is None:
        raise FailedPrecondition(f"region '{group.region}' has nothing to serve")
    async with announced(
        store, settings.namespace, instance_of(settings, brain, group.current, server)
    ) as announcement:

        def changed() -> None:
            if group.current is not None:
                announcement.now_serves(group.current.version.config.network, group.current.version.name)
            announcement.now_holds(list(group.actors), group.failed)

        group.changed = changed
        changed()
        try:
            async with background("tell how the region is", tell_group(group, announcement)):
                yield
        finally:
            group.changed = lambda: None
        await leave(announcement)


async def leave(announcement: Announcement) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LEAVE_S):
            await announcement.update(state=Instance.STATE_DRAINING)


async def tell(actor: RegionActor, announcement: Announcement) -> None:
    """Its load, the version in service, and whether there is one."""
    while True:
        await asyncio.sleep(TELL_INTERVAL_S)
        if actor.ready():
            announcement.now_serves(actor.version.config.network, actor.version.name)
        state = Instance.STATE_READY if actor.ready() else Instance.STATE_STARTING
        await announcement.update(state=state, load=actor.load_share)


async def tell_group(group: RegionGroup, announcement: Announcement) -> None:
    while True:
        await asyncio.sleep(TELL_INTERVAL_S)
        state = Instance.STATE_READY if group.ready else Instance.STATE_STARTING
        await announcement.update(state=state, load=group.load_share)


def instance_of(settings: RegionSettings, brain: str, actor: RegionActor, server: Server) -> Instance:
    version = actor.version
    return Instance(
        brain=brain,
        region=actor.region,
        id=uuid.uuid4().hex,
        address=settings.advertise or reachable(server.addresses[0]),
        local_address=f"unix:{os.path.abspath(settings.unix)}" if settings.unix else "",
        network=version.config.network,
        version=version.name,
        host=host_identity(),
        capacity=actor.capacity,
        state=Instance.STATE_READY,
        load=actor.load_share,
    )


def reachable(address: str) -> str:
    """The address that others use: a wildcard becomes this host's name."""
    host, port = host_port(address)
    return f"{socket.getfqdn()}:{port}" if host in WILDCARDS else address
