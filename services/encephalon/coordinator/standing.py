"""Which version of each brain requests run on, which others are in use still or soon, and the links of all of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from encephalon.coordinator.link import Link, LinkOptions
from encephalon.coordinator.loading import same_servers
from encephalon.coordinator.members import Connections, Members, Supplied, Watch
from encephalon.coordinator.served import Served
from encephalon.library.brains import Brain, Region, identity_of

__all__ = ["Standing"]

LOG = logging.getLogger(__name__)


class Standing:
    """`current` is what new requests get; a version that is replaced keeps its links until its last request is done."""

    def __init__(self, links: LinkOptions, connections: Connections, watch: Watch | None) -> None:
        self.current: dict[str, Served] = {}
        self.changed: Callable[[str], None] = lambda name: None
        """Called with the name of a brain when other versions of it are in use."""
        self._link_options, self._connections, self._watch = links, connections, watch
        self._members: dict[str, Members] = {}
        self._counts: dict[str, int] = {}
        # Versions of brains that follow the library: in service, to be so next, and still in use.
        self._live: dict[str, list[Served]] = {}

    # By a manifest

    def put(self, brain: Brain) -> None:
        """In service at once, under the next number."""
        name, old = brain.name, self.current.get(brain.name)
        count = self._counts[name] = self._counts.get(name, 0) + 1
        served = Served(brain, str(count), self._links(brain, lambda region: ""))
        self._members_of(name).supply(Supplied(brain, served.links))
        self._enter(served)
        if old is not None:
            self.release(old)

    def withdraw(self, name: str) -> Served | None:
        """Takes a brain out of service; None when it was not in service."""
        served = self.current.pop(name, None)
        if served is not None:
            self._members.pop(name).stop()
            self.release(served)
        return served

    # By the library

    def prepare(self, brain: Brain, version: str) -> Served:
        """Beside the one in service: its links are supplied, but no request uses it yet.

        It must be given to `switch` or to `discard`.
        """
        served = Served(brain, version, self._links(brain, identity_of), released=True)
        self._live.setdefault(brain.name, []).append(served)
        self._supply(brain.name)
        self.changed(brain.name)
        return served

    def waits_for(self, served: Served) -> tuple[str, bool]:
        """What keeps a prepared version from taking over, and whether somebody has failed; empty when nothing does.

        That is a region which no request can do without, and any other one that somebody is there to serve: requests
        would go on without it, but less well than before.
        """
        for link in served.links.values():
            link.check()
        members, reasons = self._members[served.brain.name], [served.why_not_ready()]
        for region in served.brain.regions:
            link = served.links[region.name]
            if reason := members.failed(region, link.version) if not link.ready else "":
                return reason, True
            if not link.ready and members.expects(region):
                reasons.append(link.why_not_ready())
        return next((reason for reason in reasons if reason), ""), False

    def narrower(self, served: Served) -> str:
        """Which region of a prepared version has fewer replicas than in the one in service; empty when none has."""
        current = self.current.get(served.brain.name)
        before = current.links if current is not None else {}
        for name, link in served.links.items():
            old = before.get(name)
            if old is not None and link.width < old.width:
                return f"region '{name}' has {link.width} of {old.width} replicas"
        return ""

    def switch(self, served: Served) -> None:
        """From now on requests run on this version; those that run already finish on theirs."""
        old = self.current.get(served.brain.name)
        self._enter(served)
        if old is not None:
            self.release(old)

    def discard(self, served: Served) -> None:
        """It will not be in service after all; harmless when it is."""
        self.release(served)

    def in_use(self, name: str) -> list[str]:
        """The versions of a brain of the library that requests run on, and the one that they are to run on next: a
        region that follows another alias loads it, too.
        """
        return list(dict.fromkeys(served.version for served in self._live.get(name, ())))

    def release(self, served: Served) -> None:
        """Closes the links of a version that is neither in service nor in use, save those that another one has."""
        name = served.brain.name
        current = self.current.get(name)
        if current is served or served.running:
            return
        others = [current] if current is not None else []
        if served.released:
            live = self._live[name]
            if served not in live:
                return
            live.remove(served)
            others += live
            self._supply(name)
        kept = {id(link) for other in others for link in other.links.values()}
        for link in served.links.values():
            if id(link) not in kept:
                link.retire()
        self.changed(name)

    async def close(self) -> None:
        """Ends watches and connections; requests on their way fail."""
        for members in self._members.values():
            members.stop()
        everything = [*self.current.values(), *(served for live in self._live.values() for served in live)]
        links = {id(link): link for served in everything for link in served.links.values()}
        self.current.clear()
        for live in self._live.values():
            live.clear()
        await asyncio.gather(*(link.close() for link in links.values()))

    def _enter(self, served: Served) -> None:
        self.current[served.brain.name] = served
        for link in served.links.values():
            link.show()
        LOG.info("a brain is in service", extra={"brain": served.brain.name, "version": served.version})
        self.changed(served.brain.name)

    def _members_of(self, name: str) -> Members:
        members = self._members.get(name)
        if members is None:
            members = self._members[name] = Members(name, self._connections)
            if self._watch is not None:
                members.follow(self._watch)
        return members

    def _supply(self, name: str) -> None:
        self._members_of(name).supply(*(Supplied(served.brain, served.links) for served in self._live[name]))

    def _links(self, brain: Brain, version: Callable[[Region], str]) -> Mapping[str, Link]:
        return {region.name: self._link(brain, region, version(region)) for region in brain.regions}

    def _link(self, brain: Brain, region: Region, version: str) -> Link:
        """One that is there where the region stays what it was, with its connections and what is known of them."""
        for served in (self.current.get(brain.name), *reversed(self._live.get(brain.name, ()))):
            link = served.links.get(region.name) if served is not None else None
            if served is None or link is None or link.version != version:
                continue
            if same_servers(served.brain.region(region.name), region):
                return link
        return Link(brain.name, region.name, self._link_options, version)
