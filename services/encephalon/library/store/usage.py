"""Where the bytes are."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from typing import Final

import structlog

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import Corrupt, InvalidInput, NotFound
from encephalon.library.records.kinds import name_of_kind
from encephalon.library.records.named import digests_of
from encephalon.library.store.cache import Cache
from encephalon.library.store.entries import message_or_none, record_in
from encephalon.library.store.reaching import record_entries
from encephalon.library.store.shards import indexed
from encephalon.library.store.stores import Stores
from encephalon.state import Entry

__all__ = ["NameUsage", "Usage", "usage"]

_log = structlog.get_logger(__name__)

_Name = tuple[str, str]
_SEVERAL: Final[_Name] = ("", "")


@dataclass(frozen=True, slots=True)
class NameUsage:
    kind: str
    name: str
    versions: int
    bytes: int
    """Of the objects that its versions reach, each once."""
    own: int
    """Of these, what no other name reaches: so much is free when all its versions are removed."""


@dataclass(frozen=True, slots=True)
class Usage:
    names: list[NameUsage]
    """The largest first."""
    objects: int
    bytes: int
    """Of all objects that are stored."""
    shared: int
    """Reached by more than one name."""
    saved: int
    """How many more bytes there would be if every record had its objects for itself."""
    unreached: int
    """Reached by no record; free for the collection of garbage once they are old enough."""
    cache: int
    """Held by this machine's cache."""
    cache_bound: int


async def usage(stores: Stores, cache: Cache) -> Usage:
    """A damaged record is left out, with a line in the log. Raises Unavailable."""
    sizes = await _sizes(stores)
    tally = _Tally(sizes)
    async with contextlib.aclosing(record_entries(stores)) as entries:
        async for entry in entries:
            if (found := await _reach(stores, entry)) is not None:
                record, digests = found
                tally.add((name_of_kind(record.id.kind), record.id.name), digests)
    return tally.result(cache)


class _Tally:
    def __init__(self, sizes: dict[str, int]) -> None:
        self._sizes = sizes
        self._owner: dict[str, _Name] = {}
        self._versions: Counter[_Name] = Counter()
        self._bytes: Counter[_Name] = Counter()
        self._every = 0
        self._last: tuple[_Name, set[str]] = (_SEVERAL, set())

    def add(self, name: _Name, digests: set[str]) -> None:
        """The records of a name come one after the other."""
        if self._last[0] != name:
            self._last = (name, set())
        self._versions[name] += 1
        self._every += sum(self._sizes.get(sha256, 0) for sha256 in digests)
        for sha256 in digests - self._last[1]:
            self._bytes[name] += self._sizes.get(sha256, 0)
            self._owner[sha256] = name if self._owner.get(sha256, name) == name else _SEVERAL
        self._last[1].update(digests)

    def result(self, cache: Cache) -> Usage:
        own: Counter[_Name] = Counter()
        for sha256, owner in self._owner.items():
            own[owner] += self._sizes.get(sha256, 0)
        reached, stored = sum(own.values()), sum(self._sizes.values())
        names = [NameUsage(*name, versions, self._bytes[name], own[name]) for name, versions in self._versions.items()]
        return Usage(
            names=sorted(names, key=lambda found: (-found.bytes, found.kind, found.name)),
            objects=len(self._sizes),
            bytes=stored,
            shared=own[_SEVERAL],
            saved=self._every - reached,
            unreached=stored - reached,
            cache=cache.used(),
            cache_bound=cache.max_bytes,
        )


async def _sizes(stores: Stores) -> dict[str, int]:
    """By digest, of the objects that are there as a whole."""
    sizes: dict[str, int] = {}
    async for entry in stores.key_value.list(stores.keys.objects):
        found = message_or_none(pb.StoredObject, entry)
        if found is not None and found.complete and found.state == pb.StoredObject.STATE_KEPT:
            sizes[entry.key.rpartition("/")[2]] = found.size
    return sizes


async def _reach(stores: Stores, entry: Entry) -> tuple[pb.Record, set[str]] | None:
    try:
        record = record_in(stores.keys, entry)
        return record, digests_of(record) | {shard.sha256 async for shard in indexed(stores.objects, record)}
    except (Corrupt, NotFound, InvalidInput) as error:
        _log.warning("a damaged record of the library is skipped", key=entry.key, cause=str(error))
        return None
