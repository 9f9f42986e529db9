"""A region of a brain that follows the library: as a model whose versions are identities of networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

from encephalon.core.errors import FailedPrecondition, NotFound, Unavailable
from encephalon.core.inference import LoadParameter, ModelDescription, ModelIndexEntry, ModelStatistics
from encephalon.core.wire import InferRequest, InferResponse
from encephalon.library.brains import Region
from encephalon.library.brains.releases import Release, Wanted
from encephalon.region.actor import RegionActor
from encephalon.region.group import RegionGroup

__all__ = ["FollowingRegion", "regions_of"]


class FollowingRegion:
    """Implements `core.inference.Models`; a request without a version gets the one that is followed."""

    def __init__(self, group: RegionGroup, follows: str) -> None:
        self._group = group
        self._follows = follows

    def server_name(self) -> str:
        return "encephalon-region"

    def ready(self) -> bool:
        return self._group.ready

    def model_ready(self, name: str, version: str = "") -> bool:
        return self._actor(version).model_ready(name, version) and self._group.ready

    def describe(self, name: str, version: str = "") -> ModelDescription:
        return self._actor(version).describe(name, version)

    def statistics(self, name: str = "", version: str = "") -> Sequence[ModelStatistics]:
        if version:
            return self._actor(version).statistics(name, version)
        return [found for actor in self._group.actors.values() for found in actor.statistics(name)]

    def index(self) -> Sequence[ModelIndexEntry]:
        return self._group.index()

    async def infer(self, request: InferRequest, deadline: float | None = None) -> InferResponse:
        return await self._actor(request.model_version).infer(request, deadline)

    def infer_now(self, request: InferRequest, deadline: float | None = None) -> InferResponse | None:
        """As `infer`, but without waiting: None when it would have to."""
        return self._actor(request.model_version).infer_now(request, deadline)

    async def load(self, name: str, parameters: Mapping[str, LoadParameter]) -> None:
        self._refuse()

    async def unload(self, name: str, parameters: Mapping[str, LoadParameter]) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise FailedPrecondition(
            f"region '{self._group.region}' follows {self._follows} of the library; "
            "change its network with `encephalon swap`, or move the alias",
            region=self._group.region,
        )

    def _actor(self, version: str) -> RegionActor:
        group = self._group
        found = group.find(version) if version else group.current
        if found is not None:
            return found
        if version and group.actors:
            raise NotFound(
                f"region '{group.region}' has no version '{version[:64]}'; it has {', '.join(group.actors)}",
                region=group.region,
                version=version[:64],
            )
        raise Unavailable(f"region '{group.region}' serves no network: {group.index()[0].reason}", region=group.region)


def regions_of(wanted: Wanted, name: str) -> tuple[Region | None, list[Region]]:
    """What a region is in the version that is followed, and in the others that are still served."""
    others = [region_in(release, name) for release in wanted.others]
    return region_in(wanted.target, name), [region for region in others if region is not None]


def region_in(release: Release, name: str) -> Region | None:
    regions = release.brain.regions if release.brain is not None else ()
    return next((region for region in regions if region.name == name and region.network), None)
