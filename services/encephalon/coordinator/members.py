"""Who serves the regions of one brain: what discovery tells, what the manifest names, what lives in this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

from encephalon.api.discovery.v1.instance_pb2 import Instance
from encephalon.coordinator.link import Link
from encephalon.coordinator.remote import RemoteReplica
from encephalon.coordinator.replicas import Answering, InProcessReplica
from encephalon.core.errors import Retryable
from encephalon.core.tasks import spawn
from encephalon.library.brains import Brain, Region

__all__ = ["Connections", "Hosting", "Members", "Supplied", "Watch"]

LOG = logging.getLogger(__name__)

# Every change gives all instances of the brain that are announced then.
Watch = Callable[[str], AsyncGenerator[Sequence[Instance], None]]

RETRY_S = 0.5


class Hosting(Protocol):
    """The regions of a followed brain that are in this process; their actors come and go with its versions."""

    def listen(self, changed: Callable[[], None]) -> None:
        """`changed` is called whenever other actors are there, or one could not be loaded."""
        ...

    def hosts(self, region: str) -> bool: ...

    def actors(self, region: str, identity: str) -> Iterable[tuple[str, Answering]]:
        """Those that serve this network, each with a name that stays its own."""
        ...

    def failed(self, region: str, identity: str) -> str:
        """Why it could not be loaded; empty when it could, or may still be."""
        ...


@dataclass(frozen=True, slots=True)
class Connections:
    """How replicas are reached. `colocated`: brain to region to the actors of that region in this process; `hosting`:
    the same of brains that follow the library.

    `host` is this machine's identity in discovery: replicas with the same one are reached by their Unix socket.
    `pressure` says how many requests are on their way; `share`: large tensors go through shared memory on this machine.
    """

    host: str = ""
    max_message_bytes: int = 64 << 20
    share: bool = False
    pressure: Callable[[], int] = lambda: 0
    colocated: Mapping[str, Mapping[str, Sequence[Answering]]] = field(default_factory=dict)
    hosting: Mapping[str, Hosting] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Supplied:
    """A version of a brain and the links that it uses."""

    brain: Brain
    links: Mapping[str, Link]


class Members:
    """Keeps the links of a brain supplied; the links may change with the manifest, the instances stay known."""

    def __init__(self, brain: str, connections: Connections) -> None:
        self._connections = connections
        self._actors = connections.colocated.get(brain, {})
        self._hosting = connections.hosting.get(brain)
        self._instances: dict[str, Instance] = {}
        self._supplied: tuple[Supplied, ...] = ()
        self._name = brain
        self._following: asyncio.Task[None] | None = None
        if self._hosting is not None:
            self._hosting.listen(self._update_all)

    def supply(self, *versions: Supplied) -> None:
        """From now on these are the versions whose links are kept; new links get what is known."""
        old = {id(link) for version in self._supplied for link in version.links.values()}
        self._supplied = versions
        for region, link in self._links():
            if id(link) not in old:
                self._seed(region, link)
                self._update(region, link)

    def told(self, instances: Iterable[Instance]) -> None:
        """Every instance of the brain that is announced now."""
        self._instances = {instance.id: instance for instance in instances}
        self._update_all()

    def expects(self, region: Region) -> bool:
        """Whether somebody is there who may serve the region, if not yet with the network that is meant."""
        if region.address or region.name in self._actors:
            return True
        if self._hosting is not None and self._hosting.hosts(region.name):
            return True
        return any(
            instance.region == region.name and instance.state == Instance.STATE_READY
            for instance in self._instances.values()
        )

    def failed(self, region: Region, identity: str) -> str:
        """Why nobody could load the network; empty when somebody could, or still may."""
        if self._hosting is not None and self._hosting.hosts(region.name):
            return self._hosting.failed(region.name, identity)
        reasons = [
            instance.failed.get(identity, "")
            for instance in self._instances.values()
            if instance.region == region.name and instance.state == Instance.STATE_READY
        ]
        return reasons[0] if reasons and all(reasons) else ""

    def _links(self) -> list[tuple[Region, Link]]:
        """Each link once: versions share those of regions that are the same in both."""
        found = {
            id(version.links[region.name]): (region, version.links[region.name])
            for version in self._supplied
            for region in version.brain.regions
        }
        return list(found.values())

    def _update_all(self) -> None:
        for region, link in self._links():
            self._update(region, link)

    def follow(self, watch: Watch) -> None:
        """Hears from `watch` who is announced, until `stop`."""
        self._following = spawn(f"watch brain {self._name}", self._follow(watch))

    def stop(self) -> None:
        """Hears no more. Harmless when repeated."""
        if self._following is not None:
            self._following.cancel()

    async def _follow(self, watch: Watch) -> None:
        """For ever: once it has begun, a watch survives the store; until then it is tried again and again."""
        while True:
            try:
                async with aclosing(watch(self._name)) as changes:
                    async for instances in changes:
                        self.told(instances)
            except Retryable as error:
                LOG.warning("instances cannot be watched yet", extra={"brain": self._name, "error": error.message})
                await asyncio.sleep(RETRY_S)

    def _seed(self, region: Region, link: Link) -> None:
        for number, actor in enumerate(self._actors.get(region.name, ())):
            link.add(InProcessReplica(f"{region.name}-here-{number}", actor))
        if region.address:
            size = self._connections.max_message_bytes
            address, pressure = region.address, self._connections.pressure
            link.add(
                RemoteReplica(address, [address], region.model, size, max_rows=shared_rows(region), pressure=pressure)
            )

    def _update(self, region: Region, link: Link) -> None:
        if region.address or region.name in self._actors:
            return
        here = dict(self._hosting.actors(region.name, link.version)) if self._hosting is not None else {}
        # A region that comes into this process is served where it was until it is loaded here.
        there = [each for each in self._instances.values() if each.region == region.name] if not here else []
        for id, actor in here.items():
            if id not in link.replicas:
                link.add(InProcessReplica(id, actor))
        known = {*here, *(instance.id for instance in there)}
        for id in list(link.replicas):
            if id not in known:
                link.drain(id)
        for instance in there:
            self._place(region, link, instance)

    def _place(self, region: Region, link: Link, instance: Instance) -> None:
        if instance.state != Instance.STATE_READY or not serves(instance, region, link):
            link.drain(instance.id)
            return
        replica = link.replicas.get(instance.id)
        if replica is None:
            link.add(self._connect(region, link, instance))
        else:
            replica.instance = instance

    def _connect(self, region: Region, link: Link, instance: Instance) -> RemoteReplica:
        near = bool(instance.host) and instance.host == self._connections.host
        addresses = [instance.local_address, instance.address] if near else [instance.address]
        return RemoteReplica(
            instance.id,
            [address for address in addresses if address],
            region.name,
            self._connections.max_message_bytes,
            version=link.version,
            max_rows=shared_rows(region),
            pressure=self._connections.pressure,
            share=near and self._connections.share,
            instance=instance,
        )


def serves(instance: Instance, region: Region, link: Link) -> bool:
    """While a brain is being replaced, instances of its old networks are still there."""
    return link.version in instance.versions if link.version else instance.network == region.network


def shared_rows(region: Region) -> int:
    """Rows that requests may share a message for: a batch, when everything the region takes and gives has rows."""
    specs = (*region.contract.inputs, *region.contract.outputs) if region.contract else ()
    return region.max_batch if specs and all(spec.shape[:1] == (-1,) for spec in specs) else 1
