"""A brain of the library as a supervisor follows it: which processes its versions need, beside and after each other."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace

import structlog

from encephalon.core.errors import EncephalonError, InvalidInput, NotFound
from encephalon.core.tasks import background
from encephalon.library.brains import Brain
from encephalon.library.brains.releases import Release, Wanted, brain_of, wanted
from encephalon.library.library import Library
from encephalon.library.open import open_library
from encephalon.library.records import Reference
from encephalon.local.decisions import decided
from encephalon.local.folders import Folders
from encephalon.local.options import Options
from encephalon.local.plan import Site, hosts, replicas, threads_per_region
from encephalon.local.process import Command

__all__ = ["FollowedBrain", "opened", "selected"]

LOG = structlog.get_logger(__name__)

PRODUCTION = "production"
Need = Callable[[Iterable[Command]], None]


@dataclass(frozen=True, slots=True)
class FollowedBrain:
    """`first` is the version that the reference means now, with what its reader decided."""

    library: Library
    reference: Reference
    options: Options
    folders: Folders
    first: Brain

    @property
    def follows(self) -> str:
        return f"{self.reference.name}@{self.reference.selector}"

    @property
    def arguments(self) -> tuple[str, ...]:
        """What the process that hosts regions must know of the options."""
        replicas = ("--replicas", json.dumps(dict(self.options.replicas))) if self.options.replicas else ()
        return (*(("--colocate",) if self.options.placement == "colocated" else ()), *replicas)

    @asynccontextmanager
    async def keeping(self, need: Need, site: Site) -> AsyncIterator[None]:
        """While the block lasts, `need` is told which processes the versions need that are followed and in service."""
        async with background(f"follow {self.follows}", self._follow(need, site)):
            yield

    async def _follow(self, need: Need, site: Site) -> None:
        async with aclosing(wanted(self.library, self.library.key_value, site.namespace, self.reference)) as changes:
            async for change in changes:
                need(self._commands(change, site))

    def _commands(self, change: Wanted, site: Site) -> list[Command]:
        threads = threads_per_region(sum(not region.address for region in self.first.regions))
        found: dict[str, Command] = {}
        for brain in self._brains(change.releases):
            for command in replicas(brain, site, threads, hosting=hosts(self.first)):
                found.setdefault(command.name, command)
        return list(found.values())

    def _brains(self, releases: Iterable[Release]) -> Iterator[Brain]:
        for release in releases:
            try:
                if release.brain is not None:
                    yield placed(release.brain, self.options, self.folders)
            except EncephalonError as error:
                LOG.warning("a version cannot be started here", version=release.version, reason=error.message)


def placed(brain: Brain, options: Options, folders: Folders) -> Brain:
    """With the options that are about regions of this version; others may be about regions of another one."""
    names = {region.name for region in brain.regions if not region.address}
    counts = {name: count for name, count in options.replicas.items() if name in names}
    return decided(brain, replace(options, replicas=counts), folders.brain(brain.name))


@asynccontextmanager
async def opened(text: str, options: Options, folders: Folders) -> AsyncIterator[FollowedBrain]:
    """Of `NAME`, `NAME@ALIAS` or `NAME@VERSION`. The library is open while the block lasts. NotFound, with the nearest
    name, when it has no such brain.
    """
    state, objects = options.state or folders.state_url, options.objects or None
    if not options.state:
        objects = objects or folders.objects_url
    async with open_library(state, objects, namespace=options.library) as library:
        chosen = await selected(library, text)
        brain = brain_of(await library.show(chosen))
        yield FollowedBrain(library, chosen, options, folders, decided(brain, options, folders.brain(brain.name)))


async def selected(library: Library, text: str) -> Reference:
    """What a name alone means: `production` where the brain has this alias, else `latest`."""
    named = Reference.parse(text, "brain")
    if named.kind != "brain":
        raise InvalidInput(f"{text} is no brain; only brains can be run")
    if "@" not in text and PRODUCTION in await library.aliases("brain", named.name):
        named = replace(named, selector=PRODUCTION)
    try:
        await library.resolve(named)
    except NotFound as error:
        hint = "" if "@" in text else "; a manifest is a file that ends in .yaml"
        raise NotFound(error.message + hint, **error.details) from None
    return named
