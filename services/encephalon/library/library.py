"""The library: everything that can be done with it, by one name each. What is done stands in the modules behind."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import weakref
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.library.records.kinds import kind_named
from encephalon.library.records.reference import Reference
from encephalon.library.store import aliases, collecting, fetching, reading, removing, verifying, watching
from encephalon.library.store.below import objects_of
from encephalon.library.store.cache import Cache
from encephalon.library.store.collecting import Collected
from encephalon.library.store.consistency import Problem
from encephalon.library.store.keys import Keys
from encephalon.library.store.progress import Counted, Progress, silent, uncounted
from encephalon.library.store.stores import Stores, Timing
from encephalon.library.store.usage import Usage, usage
from encephalon.library.store.watching import LibraryEvent
from encephalon.library.store.writer import Writer, writing
from encephalon.state import KeyValue, Objects

if TYPE_CHECKING:
    from encephalon.library.archive import Exported, Imported
    from encephalon.library.lineage import Graph
    from encephalon.library.query import Page, Query

__all__ = ["DAY_S", "Library"]

DAY_S: Final = 86_400.0

Kept = str | Reference
"""`[kind:]name[@version or alias]`, or that as a `Reference`."""


class Library:
    """Areas, networks, data sets, scenes, brains and runs as immutable records, and the objects that they name.

    `open_library` gives one; this class is over two stores that are open already. A kind is a word of
    `records.KINDS`. Everything raises Unavailable when a store does not answer.
    """

    def __init__(
        self,
        key_value: KeyValue,
        objects: Objects,
        *,
        namespace: str = "default",
        cache: Cache | None = None,
        timing: Timing | None = None,
    ) -> None:
        """Without a cache, what is fetched lies in a temporary folder that goes with this object. InvalidInput for a
        namespace that cannot be.
        """
        keys = Keys(namespace)
        self.key_value = key_value
        self.objects = objects_of(objects, namespace)
        self.namespace = namespace
        self.stores = Stores(key_value, self.objects, keys, timing or Timing())
        self._cache = cache

    @property
    def cache(self) -> Cache:
        if self._cache is None:
            folder = tempfile.mkdtemp(prefix="encephalon-objects-")
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            self._cache = Cache(Path(folder))
        return self._cache

    # Writing

    def writing(self, doing: str = "write") -> AbstractAsyncContextManager[Writer]:
        """A block in which objects and records are put; nothing that is put in it is collected before it ends."""
        return writing(self.stores, doing)

    async def add(self, draft: pb.Record, *, reuse: bool = False, alias: str | None = None) -> pb.Record:
        """Writes one record whose objects are in the library already, as `Writer.commit`."""
        async with self.writing("add") as writer:
            return await writer.commit(draft, reuse=reuse, alias=alias)

    # Reading

    async def show(self, reference: Kept, kind: str | None = None) -> pb.Record:
        """Raises NotFound with the nearest name, InvalidInput when several kinds have the name, Corrupt."""
        return await reading.show(self.stores, reference, kind)

    async def resolve(self, reference: Kept, kind: str | None = None) -> Reference:
        """With kind and number. Raises as `show`."""
        return await reading.resolve(self.stores, reference, kind)

    async def names(self, kind: str) -> list[str]:
        """Of all records of the kind, in order."""
        return await reading.names(self.stores, kind_named(kind))

    async def versions(self, kind: str, name: str) -> list[int]:
        """In order. Raises NotFound with the nearest name."""
        return await reading.versions(self.stores, kind_named(kind), name)

    async def fetch(self, object: pb.Object, *, progress: Progress = silent) -> Path:
        """The object's bytes, verified, as a file of the cache that must not be changed; open it soon, after some
        seconds it may go. What is open stays readable. Raises NotFound, Corrupt.
        """
        return await fetching.fetch(self.stores, self.cache, object, progress)

    async def read(self, object: pb.Object) -> bytes:
        """The object's bytes, verified; at most 64 MiB. Raises NotFound, Corrupt."""
        return await fetching.read(self.stores, object)

    async def remove(self, reference: Kept) -> None:
        """Takes one version out. Its objects go with the next `gc`. FailedPrecondition while an alias, or a record that
        was made from it, refers to it.
        """
        found = await reading.located(self.stores, reference)
        await removing.remove(self.stores, found.message)

    # Aliases

    async def alias(self, reference: Kept, alias: str, *, expected: int | None = None) -> pb.Alias:
        """Lets the alias mean this version. expected: the version that it means until now, 0 for none; else
        Conflict.
        """
        found = await self.resolve(reference)
        return await aliases.move(self.stores, found.message, alias, expected=expected)

    async def aliases(self, kind: str, name: str) -> dict[str, pb.Alias]:
        """By alias, `latest` among them."""
        return await aliases.aliases_of(self.stores, kind_named(kind), name)

    async def drop_alias(self, kind: str, name: str, alias: str) -> None:
        """Raises NotFound with the nearest alias."""
        await aliases.drop(self.stores, kind_named(kind), name, alias)

    async def rollback(self, reference: Kept, alias: str = "production") -> pb.Alias:
        """Lets the alias of this name mean again what it meant before. FailedPrecondition when that is nothing."""
        found = await reading.named(self.stores, reference)
        return await aliases.rollback(self.stores, *found, alias)

    def watch(self, kind: str | None = None, name: str | None = None) -> AsyncGenerator[LibraryEvent, None]:
        """First "watching", then what is added, removed and moved; see `store.watching.watch`."""
        return watching.watch(self.stores, kind_named(kind) if kind is not None else None, name)

    def watch_alias(self, kind: str, name: str, alias: str) -> AsyncGenerator[int, None]:
        """The version that the alias means, now and after each move; see `store.watching.watch_alias`."""
        return watching.watch_alias(self.stores, kind_named(kind), name, alias)

    # Housekeeping

    async def gc(self, *, grace_s: float = DAY_S, dry_run: bool = False, progress: Counted = uncounted) -> Collected:
        """Deletes objects that no record reaches and nobody touched for `grace_s` seconds; `progress(done, of)` counts
        them. Raises FailedPrecondition when a record cannot be read.
        """
        return await collecting.collect(self.stores, grace_s=grace_s, dry_run=dry_run, progress=progress)

    async def verify(self, *, quick: bool = False, progress: Counted = uncounted) -> list[Problem]:
        """What is wrong in the library; unless `quick`, every object that a record names is read, and
        `progress(done, of)` counts its bytes. One that is damaged is entered as such, so that it can be put again.
        """
        return await verifying.verify(self.stores, quick=quick, progress=progress)

    async def du(self) -> Usage:
        """Where the bytes are: by name, shared, saved, reached by nobody, in the cache."""
        return await usage(self.stores, self.cache)

    # What is in it

    async def ls(self, query: Query | None = None) -> AsyncGenerator[pb.Summary, None]:
        """The summaries of all that fits, streamed; see `query.ls`."""
        from encephalon.library import query as querying

        async with contextlib.aclosing(querying.ls(self, query)) as found:
            async for summary in found:
                yield summary

    async def page(self, query: Query | None = None, *, size: int = 50, after: str = "") -> Page:
        """A page of what fits; see `query.page`."""
        from encephalon.library import query as querying

        return await querying.page(self, query, size=size, after=after)

    async def lineage(self, reference: Kept, *, depth: int = 8, limit: int = 500) -> Graph:
        """What it was made from and what was made from it; see `lineage.lineage`."""
        from encephalon.library import lineage

        return await lineage.lineage(self, reference, depth=depth, limit=limit)

    # In and out

    async def export(
        self,
        references: Sequence[Kept],
        path: Path,
        *,
        with_parents: bool = True,
        progress: Counted = uncounted,
    ) -> Exported:
        """Records, what they were made from and their objects as one file; see `archive.export`."""
        from encephalon.library import archive

        return await archive.export(self, references, path, with_parents=with_parents, progress=progress)

    async def import_(
        self,
        path: Path,
        *,
        expect: str | None = None,
        rename: Mapping[str, str] | None = None,
        progress: Counted = uncounted,
    ) -> Imported:
        """Takes in what another library has exported; see `archive.import_`."""
        from encephalon.library import archive

        return await archive.import_(self, path, expect=expect, rename=rename, progress=progress)
