"""Tells what changes in the library, as it happens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal, TypeVar

import structlog

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import InvalidInput
from encephalon.library.records.kinds import name_of_kind
from encephalon.library.records.reference import LATEST, Reference
from encephalon.library.store.entries import message_or_none
from encephalon.library.store.keys import reference_of
from encephalon.library.store.stores import Stores
from encephalon.state import Entry, Event, EventKind

__all__ = ["LibraryEvent", "watch", "watch_alias"]

_log = structlog.get_logger(__name__)
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class LibraryEvent:
    what: Literal["watching", "added", "removed", "alias moved", "alias dropped"]
    """"watching" comes once and first: what happens from now on is told."""
    kind: str = ""
    name: str = ""
    version: int = 0
    """Of the record, or what the alias means now; 0 for an alias that was dropped."""
    alias: str = ""

    @property
    def reference(self) -> Reference:
        """Of the record, or by the alias."""
        return Reference(self.name, self.alias or self.version, self.kind or None)


async def watch(stores: Stores, kind: str | None = None, name: str | None = None) -> AsyncGenerator[LibraryEvent, None]:
    """First "watching", then every change for ever: those of records in order, and those of aliases. Close it
    (`contextlib.aclosing`) to stop. Raises InvalidInput for a name without a kind.
    """
    if name is not None and kind is None:
        raise InvalidInput(f"to watch '{name}' say its kind too")
    records = _changes(stores, stores.keys.summaries(kind, name))
    aliases = _changes(stores, stores.keys.aliases(kind, name))
    listing = 2
    async with contextlib.aclosing(_merged(records, aliases)) as events:
        async for event in events:
            if event.kind is EventKind.LISTED:
                listing -= 1
                if not listing:
                    yield LibraryEvent("watching")
            elif (told := _told(stores, event)) is not None:
                yield told


async def watch_alias(stores: Stores, kind: str, name: str, alias: str) -> AsyncGenerator[int, None]:
    """The version that the alias means, now and after each move; `latest` follows new versions. One that is not there,
    or is dropped, is waited for.
    """
    key = stores.keys.head(kind, name) if alias == LATEST else stores.keys.alias(kind, name, alias)
    last = 0
    async with contextlib.aclosing(stores.key_value.watch(key)) as events:
        async for event in events:
            if event.kind is EventKind.PUT and event.key == key and (version := _meant(event)) not in (0, last):
                last = version
                yield version


async def _changes(stores: Stores, prefix: str) -> AsyncGenerator[Event, None]:
    """LISTED, then what changes below the prefix; of records only what comes and goes, because a summary is written
    again when its record is about to be removed.
    """
    known: set[str] = set()
    listed, all_of_them = False, prefix.startswith(stores.keys.aliases())
    async with contextlib.aclosing(stores.key_value.watch(prefix)) as events:
        async for event in events:
            if event.kind is EventKind.LISTED:
                listed = True
                yield event
            elif event.key:
                new = (event.kind is EventKind.PUT) != (event.key in known)
                (known.add if event.kind is EventKind.PUT else known.discard)(event.key)
                if listed and (new or all_of_them):
                    yield event


def _told(stores: Stores, event: Event) -> LibraryEvent | None:
    """None, and a line in the log, for a key or bytes that are not the library's."""
    put, (what, *parts) = event.kind is EventKind.PUT, stores.keys.parts(event.key)
    if what == "alias" and len(parts) == 3:
        kind, name, alias = parts
        if not put:
            return LibraryEvent("alias dropped", kind, name, 0, alias)
        return LibraryEvent("alias moved", kind, name, version, alias) if (version := _meant(event)) else None
    try:
        id = reference_of(parts)
    except InvalidInput as error:
        _log.warning("a foreign key in the library is skipped", key=event.key, cause=str(error))
        return None
    return LibraryEvent("added" if put else "removed", name_of_kind(id.kind), id.name, id.version)


def _meant(event: Event) -> int:
    """The version that a head or an alias means; 0 for none, and for damaged bytes."""
    entry = Entry(event.key, event.value, event.revision)
    if "/library/head/" in event.key:
        head = message_or_none(pb.Head, entry)
        return head.latest if head is not None else 0
    alias = message_or_none(pb.Alias, entry)
    return alias.version if alias is not None else 0


async def _merged(*sources: AsyncGenerator[_Item, None]) -> AsyncGenerator[_Item, None]:
    """What any of them gives, as it comes; each is eternal."""
    coming = {asyncio.ensure_future(anext(source)): source for source in sources}
    try:
        while True:
            done, _ = await asyncio.wait(coming, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                source = coming.pop(task)
                item = task.result()
                coming[asyncio.ensure_future(anext(source))] = source
                yield item
    finally:
        for task in coming:
            task.cancel()
        await asyncio.gather(*coming, return_exceptions=True)
        for source in sources:
            await source.aclose()
