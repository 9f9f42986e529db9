"""The regions of a followed brain that live in the coordinator's process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping

from encephalon.core.errors import FailedPrecondition
from encephalon.library.brains import Region
from encephalon.library.brains.releases import Wanted
from encephalon.region.actor import RegionActor
from encephalon.region.following import regions_of
from encephalon.region.group import LOOK_S, Make, RegionGroup

__all__ = ["Hosted"]


class Hosted:
    """Implements `coordinator.Hosting`: per region as many groups of actors as it has replicas.

    `colocated` says which regions live here; `replicas` per region go over those of the manifest.
    """

    def __init__(self, make: Make, colocated: Callable[[Region], bool], replicas: Mapping[str, int]) -> None:
        self._make, self._colocated, self._replicas = make, colocated, replicas
        self._groups: dict[str, list[RegionGroup]] = {}
        self._changed: Callable[[], None] = lambda: None

    # What a coordinator asks

    def listen(self, changed: Callable[[], None]) -> None:
        self._changed = changed

    def hosts(self, region: str) -> bool:
        return region in self._groups

    def actors(self, region: str, identity: str) -> Iterator[tuple[str, RegionActor]]:
        for number, group in enumerate(self._groups.get(region, ())):
            actor = group.actors.get(identity)
            if actor is not None:
                yield f"{region}-here-{number}", actor

    def failed(self, region: str, identity: str) -> str:
        reasons = [group.failed.get(identity, "") for group in self._groups.get(region, ())]
        return reasons[0] if reasons and all(reasons) else ""

    # Following

    async def begin(self, first: Wanted) -> None:
        """Loads the first networks. Raises why one region could load none at all."""
        if first.target.brain is None and not first.others:
            raise FailedPrecondition(first.target.problem)
        self.want(first)
        for groups in self._groups.values():
            for group in groups:
                await group.settled()

    def want(self, wanted: Wanted) -> None:
        for name in self._regions(wanted):
            target, others = regions_of(wanted, name)
            count = max(
                (self._replicas.get(name, region.replicas) for region in (target, *others) if region), default=0
            )
            groups = self._groups.setdefault(name, [])
            groups += [self._group(name) for _ in range(count - len(groups))]
            for number, group in enumerate(groups):
                group.want(*((target, others) if number < count else (None, [])))

    async def follow(self, changes: AsyncGenerator[Wanted, None]) -> None:
        """For ever."""
        async for wanted in changes:
            self.want(wanted)

    async def keep(self) -> None:
        """For ever: lets go what is no longer needed."""
        while True:
            await asyncio.sleep(LOOK_S)
            for groups in self._groups.values():
                for group in groups:
                    group.look()

    async def stop(self) -> None:
        for groups in self._groups.values():
            for group in groups:
                await group.stop()

    def _regions(self, wanted: Wanted) -> list[str]:
        """Those that live here now, and those that did."""
        brains = [release.brain for release in wanted.releases if release.brain is not None]
        here = [
            region.name for brain in brains for region in brain.regions if region.network and self._colocated(region)
        ]
        return list(dict.fromkeys([*self._groups, *here]))

    def _group(self, region: str) -> RegionGroup:
        group = RegionGroup(region, self._make)
        group.changed = lambda: self._changed()
        return group
