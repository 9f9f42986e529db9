"""A brain of the library as it is followed: the version that an alias means, now and after each move."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import EncephalonError, NotFound, Retryable
from encephalon.discovery import watch_serving
from encephalon.library.brains.brain import Brain
from encephalon.library.brains.document import Document, read_document
from encephalon.library.brains.loading import check_document
from encephalon.library.records import Reference
from encephalon.state import KeyValue

if TYPE_CHECKING:
    from encephalon.library.library import Library
    from encephalon.state import Objects

__all__ = [
    "Release",
    "Wanted",
    "brain_of",
    "earlier",
    "follow",
    "read_patiently",
    "read_release",
    "records_of",
    "wanted",
]

LOG = logging.getLogger(__name__)
T = TypeVar("T")

RETRY_FIRST_S, RETRY_LAST_S = 0.2, 5.0
MAX_KEPT = 64


@dataclass(frozen=True, slots=True)
class Release:
    """One version of a brain. `brain` is None when this machine cannot read it, which `problem` explains."""

    version: int
    brain: Brain | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be there now: the version that is followed, and those that coordinators still serve.

    While nothing is followed, because the alias was dropped, the newest that is served is in its place.
    """

    target: Release
    others: tuple[Release, ...]

    @property
    def releases(self) -> tuple[Release, ...]:
        return (self.target, *self.others)


def records_of(store: KeyValue, namespace: str) -> Library:
    """The library for who reads brains and never an object, and so needs no object store."""
    from encephalon.library.library import Library

    return Library(store, cast("Objects", None), namespace=namespace)


def brain_of(record: pb.Record) -> Brain:
    """The brain of a record, under the record's name. InvalidManifest when it cannot run here."""
    document = read_document(record.brain.manifest, f"{record.id.name}@{record.id.version}")
    if isinstance(document.value, dict):
        document = Document(document.origin, {**document.value, "brain": record.id.name}, document.lines)
    return check_document(document, {})


async def read_release(library: Library, name: str, version: int) -> Release:
    """Raises Unavailable; whatever else is wrong with the version is said in it."""
    try:
        record = await library.show(Reference(name, version, "brain"))
        # A long manifest takes a second, in which whoever serves another version has to answer.
        return Release(version, await asyncio.to_thread(brain_of, record))
    except Retryable:
        raise
    except EncephalonError as error:
        return Release(version, None, error.message)
    except Exception as error:
        # Of an installed package, say: one version that cannot be read must not end who serves another.
        LOG.exception("a version of a brain cannot be read", extra={"brain": name, "version": version})
        return Release(version, None, f"{type(error).__name__}: {error}")


async def follow(library: Library, reference: Reference) -> AsyncGenerator[Release, None]:
    """For ever: the version that the reference means, now and after each move; a number never moves.

    While the store is away nothing is told; an alias that is not there, or no more, is waited for.
    """
    async with contextlib.aclosing(versions(library, reference)) as moves:
        async for version in moves:
            yield await read_patiently(library, reference, version)


async def versions(library: Library, reference: Reference) -> AsyncGenerator[int, None]:
    if isinstance(reference.selector, int):
        yield reference.selector
        await asyncio.get_running_loop().create_future()
        return
    told, wait = 0, RETRY_FIRST_S
    while True:
        try:
            moves = library.watch_alias("brain", reference.name, reference.selector)
            async with contextlib.aclosing(moves):
                async for version in moves:
                    wait = RETRY_FIRST_S
                    if version != told:
                        told = version
                        yield version
        except (Retryable, NotFound) as error:
            LOG.warning("a brain of the library waits", extra={"brain": str(reference), "error": error.message})
        await asyncio.sleep(wait)
        wait = min(wait * 2, RETRY_LAST_S)


async def read_patiently(library: Library, reference: Reference, version: int) -> Release:
    """As `read_release`, again and again while the store is away."""
    return await patiently(reference, lambda: read_release(library, reference.name, version))


async def patiently(reference: Reference, read: Callable[[], Awaitable[T]]) -> T:
    wait = RETRY_FIRST_S
    while True:
        try:
            return await read()
        except Retryable as error:
            LOG.warning("a brain of the library waits", extra={"brain": str(reference), "error": error.message})
            await asyncio.sleep(wait)
            wait = min(wait * 2, RETRY_LAST_S)


async def earlier(library: Library, reference: Reference, version: int) -> list[int]:
    """What the alias meant before it meant this version, the most recent first; nothing for a number and for `latest`.
    Waits while the store is away.
    """
    aliases = await patiently(reference, lambda: library.aliases("brain", reference.name))
    alias = aliases.get(str(reference.selector), pb.Alias())
    return list(dict.fromkeys(each for each in reversed(alias.previous) if each != version))


async def wanted(
    library: Library, store: KeyValue, namespace: str, reference: Reference
) -> AsyncGenerator[Wanted, None]:
    """For ever: what the reference means, and what coordinators in `namespace` serve of this brain, whenever either
    changes. Nothing is told before there is something to run.
    """
    state = State(library, reference)
    tasks = [
        asyncio.create_task(state.targets()),
        asyncio.create_task(state.served(store, namespace)),
    ]
    try:
        while True:
            changed = asyncio.create_task(state.changed.wait())
            try:
                await asyncio.wait([changed, *tasks], return_when=asyncio.FIRST_COMPLETED)
            finally:
                changed.cancel()
            for task in tasks:
                if task.done():
                    task.result()
            state.changed.clear()
            if state.serving or (state.target is not None and state.serving is not None):
                yield await state.wanted()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


class State:
    """What two watches have told."""

    def __init__(self, library: Library, reference: Reference) -> None:
        self._library, self._reference = library, reference
        self.changed = asyncio.Event()
        self.target: Release | None = None
        self.serving: frozenset[int] | None = None
        self._known: dict[int, Release] = {}

    async def targets(self) -> None:
        async with contextlib.aclosing(follow(self._library, self._reference)) as releases:
            async for release in releases:
                self.target = release
                self._keep(release)
                self.changed.set()

    async def served(self, store: KeyValue, namespace: str) -> None:
        async with contextlib.aclosing(watch_serving(store, namespace, self._reference.name)) as changes:
            async for versions in changes:
                self.serving = versions
                self.changed.set()

    async def wanted(self) -> Wanted:
        target, serving = self.target, self.serving or frozenset()
        if target is None:
            target = await self._release(max(serving))
        others = sorted(serving - {target.version})
        return Wanted(target, tuple([await self._release(version) for version in others]))

    async def _release(self, version: int) -> Release:
        if version not in self._known:
            self._keep(await read_patiently(self._library, self._reference, version))
        return self._known[version]

    def _keep(self, release: Release) -> None:
        while len(self._known) >= MAX_KEPT:
            self._known.pop(next(iter(self._known)))
        self._known[release.version] = release
