"""Keeps a brain at the version that its alias in the library means, without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator, Callable
from time import monotonic
from typing import TYPE_CHECKING

from encephalon.coordinator.brains import Brains, Pending
from encephalon.coordinator.served import Served
from encephalon.core.errors import EncephalonError, Retryable
from encephalon.core.tasks import background
from encephalon.discovery import announced_serving
from encephalon.library.brains import Brain
from encephalon.library.brains.releases import Release, earlier, follow, read_patiently
from encephalon.library.records import Reference
from encephalon.state import KeyValue

if TYPE_CHECKING:
    from encephalon.library.library import Library

__all__ = ["Followed", "followed"]

LOG = logging.getLogger(__name__)

# Readiness has many causes, and a move is rare: looking is simpler than being told.
LOOK_S = 0.02
# How long a version that could be served waits for more replicas: one alone may not bear what several did.
WIDE_S = 10.0
RETRY_FIRST_S, RETRY_LAST_S = 0.5, 10.0


class Followed:
    """Implements `brains.Following` for one brain."""

    def __init__(self, brains: Brains, library: Library, reference: Reference) -> None:
        self._brains, self._library, self._reference = brains, library, reference
        self._pending: Pending | None = None
        self._turning: asyncio.Task[None] | None = None
        self._tell: Callable[[], None] = lambda: None

    @property
    def reference(self) -> str:
        return f"{self._reference.name}@{self._reference.selector}"

    @property
    def pending(self) -> Pending | None:
        return self._pending

    @property
    def name(self) -> str:
        return self._reference.name

    def changed(self) -> None:
        self._tell()

    def tell(self, call: Callable[[], None]) -> None:
        """`call` is called whenever other versions are in use."""
        self._tell = call

    def in_use(self) -> list[int]:
        """The versions that requests run on, or are to run on next."""
        return [int(version) for version in self._brains.standing.in_use(self.name)]

    async def keep(self) -> None:
        """For ever. A newer move supersedes one that still waits for regions."""
        try:
            async with contextlib.aclosing(follow(self._library, self._reference)) as releases:
                async for release in releases:
                    await self._give_up()
                    self._turning = asyncio.create_task(self._turn(release), name=f"turn {self.name}")
                    self._turning.add_done_callback(self._turned)
        finally:
            await self._give_up()

    async def _give_up(self) -> None:
        """Whatever is prepared and not in service yet is discarded."""
        if self._turning is not None:
            self._turning.cancel()
            await asyncio.wait([self._turning])
            self._turning = None

    def _turned(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            LOG.error("a version of a brain could not be prepared", extra={"brain": self.name}, exc_info=error)
            if self._pending is not None:
                self._pending = Pending(self._pending.version, f"{type(error).__name__}: {error}", failed=True)

    async def _turn(self, release: Release) -> None:
        version = str(release.version)
        current = self._current()
        if current is not None and current.version == version:
            self._pending = None
            return
        LOG.info("a brain is to have another version", extra={"brain": self.name, "version": version})
        if release.brain is None:
            LOG.warning("a version cannot be read here", extra={"brain": self.name, "reason": release.problem})
            self._pending = Pending(version, release.problem, failed=True)
            return
        self._pending = Pending(version, "it is being prepared")
        served = await self._prepared(release.brain, version)
        try:
            # What starts anew has nothing to keep in service meanwhile.
            if current is not None:
                await self._until_ready(served)
            self._brains.standing.switch(served)
            self._pending = None
        finally:
            self._brains.standing.discard(served)
        if current is None and await self._fails(served) and await self._fell_back(release):
            await self._turn(release)

    async def _fails(self, served: Served) -> bool:
        """Whether somebody says that he cannot load the version, before everybody has."""
        while True:
            reason, failed = self._brains.standing.waits_for(served)
            if failed or not reason:
                return failed
            await asyncio.sleep(LOOK_S)

    async def _fell_back(self, release: Release) -> bool:
        """Puts what the alias meant before in service, as far back as can be loaded. False when there is nothing.

        A coordinator that was there already when the alias was moved has never left it.
        """
        changed = False
        for version in await earlier(self._library, self._reference, release.version):
            before = await read_patiently(self._library, self._reference, version)
            if before.brain is None:
                continue
            LOG.warning("what was before is served", extra={"brain": self.name, "version": version})
            served = await self._prepared(before.brain, str(version))
            self._brains.standing.switch(served)
            changed = True
            if not await self._fails(served):
                break
        return changed

    async def _prepared(self, brain: Brain, version: str) -> Served:
        """Again and again while a server that must say its contract is away."""
        wait = RETRY_FIRST_S
        while True:
            try:
                return await self._brains.prepare(brain, version)
            except EncephalonError as error:
                LOG.warning("a version waits", extra={"brain": self.name, "version": version, "reason": error.message})
                self._pending = Pending(version, error.message, failed=not isinstance(error, Retryable))
                await asyncio.sleep(wait)
                wait = min(wait * 2, RETRY_LAST_S)

    async def _until_ready(self, served: Served) -> None:
        """Without limit until every region can serve it; then for a while until none has fewer replicas than before."""
        told, able_since = "", 0.0
        while True:
            reason, failed = self._brains.standing.waits_for(served)
            if reason:
                able_since = 0.0
            else:
                able_since = able_since or monotonic()
                reason = self._brains.standing.narrower(served)
                if not reason or monotonic() - able_since > WIDE_S:
                    return
            if failed and reason != told:
                told = reason
                LOG.warning("a version cannot be served", extra={"brain": self.name, "reason": reason})
            self._pending = Pending(served.version, reason, failed)
            await asyncio.sleep(LOOK_S)

    def _current(self) -> Served | None:
        return self._brains.standing.current.get(self.name)


@contextlib.asynccontextmanager
async def followed(
    brains: Brains, library: Library, store: KeyValue, namespace: str, reference: Reference
) -> AsyncIterator[Followed]:
    """The brain follows the reference while the block lasts, and regions hear which of its versions are in use."""
    follower = Followed(brains, library, reference)
    brains.followed[follower.name] = follower
    id = uuid.uuid4().hex
    async with announced_serving(store, namespace, follower.name, id, follower.in_use) as announcement:
        follower.tell(announcement.touch)
        async with background(f"follow {reference}", follower.keep()):
            yield follower
