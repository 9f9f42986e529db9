"""Who serves the regions of one brain: what discovery tells, what the manifest names, what lives in this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from encephalon.api.discovery.v1.instance_pb2 import Instance
from encephalon.coordinator.link import Link
from encephalon.coordinator.remote import RemoteReplica
from encephalon.coordinator.replicas import Answering, InProcessReplica
from encephalon.core.errors import Retryable
from encephalon.core.tasks import spawn
from encephalon.library.brains import Brain, Region

__all__ = ["Connections", "Members", "Watch"]

LOG = logging.getLogger(__name__)

# Every change gives all instances of the brain that are announced then.
Watch = Callable[[str], AsyncGenerator[Sequence[Instance], None]]

RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class Connections:
    """How replicas are reached. `colocated`: brain to region to the actors of that region in this process.

    `host` is this machine's identity in discovery: replicas with the same one are reached by their Unix socket.
    `pressure` says how many requests are on their way; `share`: large tensors go through shared memory on this machine.
    """

    host: str = ""
    max_message_bytes: int = 64 << 20
    share: bool = False
    pressure: Callable[[], int] = lambda: 0
    colocated: Mapping[str, Mapping[str, Sequence[Answering]]] = field(default_factory=dict)


class Members:
    """Keeps the links of a brain supplied; the links may change with the manifest, the instances stay known."""

    def __init__(self, brain: str, connections: Connections) -> None:
        self._connections = connections
        self._actors = connections.colocated.get(brain, {})
        self._instances: dict[str, Instance] = {}
        self._brain: Brain | None = None
        self._links: Mapping[str, Link] = {}
        self._name = brain
        self._following: asyncio.Task[None] | None = None

    def supply(self, brain: Brain, links: Mapping[str, Link]) -> None:
        """From now on these are the links; new ones get what is known."""
        old, self._links, self._brain = self._links, links, brain
        for region in brain.regions:
            link = links[region.name]
            if old.get(region.name) is not link:
                self._seed(region, link)
                self._update(region, link)

    def told(self, instances: Iterable[Instance]) -> None:
        """Every instance of the brain that is announced now."""
        self._instances = {instance.id: instance for instance in instances}
        for region in self._brain.regions if self._brain else ():
            self._update(region, self._links[region.name])

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
        announced = {instance.id: instance for instance in self._instances.values() if instance.region == region.name}
        for id in list(link.replicas):
            if id not in announced:
                link.drain(id)
        for instance in announced.values():
            self._place(region, link, instance)

    def _place(self, region: Region, link: Link, instance: Instance) -> None:
        # While a brain is being replaced, instances of its old networks are still there.
        if instance.state != Instance.STATE_READY or instance.network != region.network:
            link.drain(instance.id)
            return
        replica = link.replicas.get(instance.id)
        if replica is None:
            link.add(self._connect(region, instance))
        else:
            replica.instance = instance

    def _connect(self, region: Region, instance: Instance) -> RemoteReplica:
        near = bool(instance.host) and instance.host == self._connections.host
        addresses = [instance.local_address, instance.address] if near else [instance.address]
        return RemoteReplica(
            instance.id,
            [address for address in addresses if address],
            region.name,
            self._connections.max_message_bytes,
            max_rows=shared_rows(region),
            pressure=self._connections.pressure,
            share=near and self._connections.share,
            instance=instance,
        )


def shared_rows(region: Region) -> int:
    """Rows that requests may share a message for: a batch, when everything the region takes and gives has rows."""
    specs = (*region.contract.inputs, *region.contract.outputs) if region.contract else ()
    return region.max_batch if specs and all(spec.shape[:1] == (-1,) for spec in specs) else 1
