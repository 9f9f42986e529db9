"""The head of a name: which number comes next, and which version is the latest."""

from __future__ import annotations

from dataclasses import dataclass

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.library.store.entries import bytes_of, message_or_none
from encephalon.library.store.keys import versions_in
from encephalon.library.store.stores import Stores
from encephalon.state import ABSENT, Change

__all__ = ["Head", "names_of", "read_head", "versions_of"]


@dataclass(frozen=True, slots=True)
class Head:
    kind: str
    name: str
    given: int
    """The highest number given; never given again, even when its version is removed."""
    latest: int
    """0 when no version is there."""
    revision: int

    def change(self, stores: Stores, *, given: int, latest: int) -> Change:
        value = bytes_of(pb.Head(given=given, latest=latest))
        return Change(stores.keys.head(self.kind, self.name), value, expected=self.revision)


async def read_head(stores: Stores, kind: str, name: str) -> Head:
    """Of a name that nobody has used: zeros. One that is damaged is made up from the versions that are there."""
    entry = await stores.key_value.get(stores.keys.head(kind, name))
    found = message_or_none(pb.Head, entry)
    if entry is None or found is not None:
        found = found or pb.Head()
        return Head(kind, name, found.given, found.latest, entry.revision if entry is not None else ABSENT)
    last = max(await versions_of(stores, kind, name), default=0)
    return Head(kind, name, last, last, entry.revision)


async def versions_of(stores: Stores, kind: str, name: str) -> list[int]:
    """The versions that are there, in order."""
    keys = [entry.key async for entry in stores.key_value.list(stores.keys.summaries(kind, name))]
    return sorted(versions_in(iter(keys)))


async def names_of(stores: Stores, kind: str) -> list[str]:
    """Of all records of a kind; a damaged head counts, its versions may be well."""
    found: list[str] = []
    async for entry in stores.key_value.list(stores.keys.heads(kind)):
        head = message_or_none(pb.Head, entry)
        if head is None or head.latest:
            found.append(stores.keys.parts(entry.key)[-1])
    return found
