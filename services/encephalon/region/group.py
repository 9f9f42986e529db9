"""The networks that a region serves side by side while a brain goes from one version to the next."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from encephalon.core.errors import EncephalonError, FailedPrecondition, Internal, Retryable
from encephalon.core.inference import ModelIndexEntry
from encephalon.library.brains import Region, identity_of
from encephalon.region.actor import RegionActor
from encephalon.region.figures import show_mailbox

__all__ = ["Make", "RegionGroup"]

LOG = logging.getLogger(__name__)

Make = Callable[[Region, str], RegionActor]
"""An actor that is not started yet, for what the region runs in one version of the brain, under this identity."""

SPARE_S = 10.0
"""How long a network is kept that nobody wants: a coordinator whose lease ran out, because the store was away, has
announced itself again within this time, and an alias that moves back finds it warm."""
LOOK_S = 1.0
PART_S = 2.0
"""Between telling that a network goes and its going."""
RETRY_FIRST_S, RETRY_LAST_S = 1.0, 30.0


class RegionGroup:
    """Actors by the identity of what they run (`library.brains.identity_of`). `want` says which are to be there."""

    def __init__(self, region: str, make: Make, *, spare_s: float = SPARE_S, part_s: float = PART_S) -> None:
        self.region = region
        self.changed: Callable[[], None] = lambda: None
        """Called whenever other networks can be asked, or one could not be loaded."""
        self._make = make
        self._spare_s, self._part_s = spare_s, part_s
        self._actors: dict[str, RegionActor] = {}
        self._failed: dict[str, EncephalonError] = {}
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._unwanted: dict[str, float] = {}
        self._parting: dict[asyncio.Task[None], tuple[str, RegionActor]] = {}
        self._target = ""
        self._leaving = False
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.inline = False
        """Whether some network is so cheap that it is computed on the spot."""

    @property
    def actors(self) -> Mapping[str, RegionActor]:
        """Those that can be asked."""
        return MappingProxyType(self._actors)

    @property
    def failed(self) -> dict[str, str]:
        """Identity to the reason why it could not be loaded."""
        return {identity: error.message for identity, error in self._failed.items()}

    @property
    def current(self) -> RegionActor | None:
        """The one that is followed, or another one that is still there."""
        found = self._actors.get(self._target)
        return found if found is not None else next(reversed(self._actors.values()), None)

    def find(self, identity: str) -> RegionActor | None:
        """Also one that is about to go: it answers whom the news has not reached."""
        found = self._actors.get(identity)
        if found is None and self._parting:
            found = next((actor for name, actor in self._parting.values() if name == identity), None)
        return found

    @property
    def ready(self) -> bool:
        return bool(self._actors) and not self._leaving

    @property
    def load_share(self) -> float:
        return max((actor.load_share for actor in self._actors.values()), default=0.0)

    def index(self) -> Sequence[ModelIndexEntry]:
        entries = [ModelIndexEntry(self.region, identity, "READY") for identity in self._actors]
        entries += [
            ModelIndexEntry(self.region, identity, "LOADING", "it is loading")
            for identity in self._loading
            if identity not in self._failed
        ]
        entries += [
            ModelIndexEntry(self.region, identity, "UNAVAILABLE", error.message)
            for identity, error in self._failed.items()
        ]
        return entries or [ModelIndexEntry(self.region, "", "UNAVAILABLE", "it is loading")]

    # What is to be there

    def want(self, target: Region | None, others: Sequence[Region] = ()) -> None:
        """Loads what is missing beside what is there, and lets go what nobody wants, after a while.

        What failed is tried again when it is wanted anew, and again and again when the cause may pass by itself.
        """
        wanted = {identity_of(region): region for region in (*others, *([target] if target else []))}
        self._target = identity_of(target) if target else ""
        for identity in [identity for identity in self._loading if identity not in wanted]:
            self._loading.pop(identity).cancel()
        self._failed = {identity: error for identity, error in self._failed.items() if identity in wanted}
        for identity, region in wanted.items():
            self._unwanted.pop(identity, None)
            if not (identity in self._actors or identity in self._loading or identity in self._failed):
                task = asyncio.create_task(self._load(identity, region), name=f"load {identity}")
                task.add_done_callback(partial(self._loaded, identity))
                self._loading[identity] = task
        for identity in self._actors:
            if identity not in wanted:
                self._unwanted.setdefault(identity, self._loop.time())
        self._tell()

    async def settled(self) -> None:
        """Returns when everything wanted is loaded, or has failed once. Raises why, when nothing could be loaded."""
        while any(identity not in self._failed for identity in self._loading):
            self._news.clear()
            await self._news.wait()
        if not self._actors:
            raise next(iter(self._failed.values()), FailedPrecondition(f"region '{self.region}' has nothing to serve"))

    async def _load(self, identity: str, region: Region) -> None:
        wait = RETRY_FIRST_S
        while True:
            actor = self._make(region, identity)
            try:
                await actor.start()
            except EncephalonError as error:
                await actor.stop()
                # Without what it was raised from, which holds the weights.
                self._failed[identity] = type(error)(error.message, **error.details)
                self._tell()
                if not isinstance(error, Retryable):
                    break
            except BaseException:
                await actor.stop()
                raise
            else:
                self._failed.pop(identity, None)
                self._actors[identity] = actor
                break
            await asyncio.sleep(wait)
            wait = min(wait * 2, RETRY_LAST_S)
        self._loading.pop(identity, None)
        self._tell()

    def _loaded(self, identity: str, task: asyncio.Task[None]) -> None:
        """What nobody has foreseen is a failure as well, or whoever waits for the network would wait for ever."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        LOG.error("a network could not be loaded", extra={"region": self.region, "version": identity}, exc_info=error)
        if self._loading.get(identity) is task:
            del self._loading[identity]
            self._failed[identity] = Internal(f"region '{self.region}': {type(error).__name__}: {error}")
            self._tell()

    # What goes

    async def keep(self) -> None:
        """For ever: lets go what nobody has wanted, and nobody has asked, for a while."""
        while True:
            await asyncio.sleep(min(LOOK_S, self._spare_s))
            self.look()

    def look(self) -> None:
        """What `keep` does now and then."""
        now = self._loop.time()
        for identity, since in list(self._unwanted.items()):
            # A coordinator that cannot reach the store may still send requests to it.
            if now - since >= self._spare_s and self._actors[identity].idle_s >= self._spare_s:
                self._part(identity)

    def _part(self, identity: str) -> None:
        del self._unwanted[identity]
        actor = self._actors.pop(identity)
        task = asyncio.create_task(self._end(identity, actor), name=f"let go {identity}")
        self._parting[task] = (identity, actor)
        task.add_done_callback(self._parted)
        self._tell()

    async def _end(self, identity: str, actor: RegionActor) -> None:
        await asyncio.sleep(self._part_s)
        await actor.drain()
        figures = actor.version.figures
        await actor.stop()
        if identity not in self._actors and identity not in self._loading:
            figures.forget()
        LOG.info("a network was let go", extra={"region": self.region, "version": identity})

    def _parted(self, task: asyncio.Task[None]) -> None:
        self._parting.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            LOG.error("a network could not be let go", extra={"region": self.region}, exc_info=error)

    async def drain(self) -> None:
        """Refuses new requests with `Unavailable` and returns when every admitted one is answered."""
        self._leaving = True
        actors = [*self._actors.values(), *(actor for _, actor in self._parting.values())]
        await asyncio.gather(*(actor.drain() for actor in actors))

    async def stop(self) -> None:
        """Fails what `drain` has left. Stopping twice is harmless."""
        self._leaving = True
        parting = [actor for _, actor in self._parting.values()]
        tasks = [*self._loading.values(), *self._parting]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for actor in (*self._actors.values(), *parting):
            await actor.stop()

    def _tell(self) -> None:
        self.inline = any(actor.version.inline for actor in self._actors.values())
        show_mailbox(self.region, lambda: sum(actor.waiting for actor in self._actors.values()))
        self._news.set()
        self.changed()
