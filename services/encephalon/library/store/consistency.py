"""Compares the library's keys with each other: what each record asks for, and what is there."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import Corrupt, InvalidInput, NotFound
from encephalon.library.records.bounds import DIGEST
from encephalon.library.records.checks import check_record
from encephalon.library.records.kinds import KINDS, name_of_kind
from encephalon.library.records.named import digests_of
from encephalon.library.records.reference import Reference, check_alias, check_name
from encephalon.library.records.summary import summary_of
from encephalon.library.store.entries import bytes_of, message_in, record_in, summary_in
from encephalon.library.store.keys import OBJECTS, reference_of
from encephalon.library.store.reaching import record_entries
from encephalon.library.store.shards import indexed
from encephalon.library.store.stores import Stores
from encephalon.state import Entry

__all__ = ["Consistency", "Problem"]

_KEPT: Final = pb.StoredObject.STATE_KEPT

_What = Literal["record", "summary", "lineage", "head", "alias", "object", "key"]
_DAMAGED: Final[Mapping[str, _What]] = {
    "summary": "summary",
    "head": "head",
    "alias": "alias",
    "object": "object",
}


@dataclass(frozen=True, slots=True)
class Problem:
    what: _What
    subject: str
    """The record, the alias, the digest or the key that is concerned."""
    sentence: str


class Consistency:
    """One look at all keys. What changes meanwhile can look like a problem; then it is none in the next look."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self.problems: list[Problem] = []
        self.needed: dict[str, str] = {}
        """Digests of the objects that records name, with one of these records."""
        self.sizes: dict[str, int] = {}
        """Of the objects that are entered as whole."""
        self._summaries: dict[str, pb.Summary] = {}
        self._edges: dict[str, bytes] = {}
        self._heads: dict[tuple[str, str], pb.Head] = {}
        self._aliases: dict[tuple[str, str, str], int] = {}
        self._versions: dict[tuple[str, str], list[int]] = defaultdict(list)

    async def look(self) -> None:
        async with contextlib.aclosing(self._stores.key_value.pages(self._stores.keys.root)) as pages:
            async for page in pages:
                for entry in page:
                    self._sort(entry)
        stored = {found.key.removeprefix(OBJECTS): found.size async for found in self._stores.objects.list(OBJECTS)}
        async with contextlib.aclosing(record_entries(self._stores)) as entries:
            async for entry in entries:
                await self._compare(entry)
        self._leftovers()
        self._check_heads()
        self._check_aliases()
        self._check_objects(stored)

    def _say(self, what: _What, subject: object, sentence: str) -> None:
        self.problems.append(Problem(what, str(subject), sentence))

    def _sort(self, entry: Entry) -> None:
        what, *parts = self._stores.keys.parts(entry.key)
        try:
            self._take(what, parts, entry)
        except (InvalidInput, ValueError):
            self._say("key", entry.key, "this key is none of the library's; remove it")
        except Corrupt as error:
            self._say(_DAMAGED.get(what, "key"), entry.key, str(error))

    def _take(self, what: str, parts: list[str], entry: Entry) -> None:
        match what:
            case "summary":
                reference_of(parts)
                self._summaries[entry.key] = summary_in(self._stores.keys, entry)
            case "child":
                reference_of(parts[:3]), reference_of(parts[3:])
                self._edges[entry.key] = entry.value
            case "head":
                kind, name = parts
                self._heads[_kind(kind), check_name(name)] = message_in(pb.Head, entry)
            case "alias":
                kind, name, alias = parts
                self._aliases[_kind(kind), check_name(name), check_alias(alias)] = message_in(pb.Alias, entry).version
            case "object":
                self._take_object(parts, message_in(pb.StoredObject, entry))
            case "writer":
                (_,) = parts
            case "seeded":
                () = parts
            case _:
                reference_of([what, *parts])

    def _take_object(self, parts: list[str], found: pb.StoredObject) -> None:
        (sha256,) = parts
        if not DIGEST.fullmatch(sha256):
            raise InvalidInput(f"'{sha256}' is no digest")
        if found.state == _KEPT and found.complete:
            self.sizes[sha256] = found.size

    async def _compare(self, entry: Entry) -> None:
        """A record with its summary, its lineage and its objects' entries."""
        with contextlib.suppress(InvalidInput):
            id = reference_of(self._stores.keys.parts(entry.key))
            self._versions[name_of_kind(id.kind), id.name].append(id.version)
        try:
            record = record_in(self._stores.keys, entry)
            check_record(record)
        except (Corrupt, InvalidInput) as error:
            self._say("record", entry.key, str(error))
            return
        reference = Reference.of(record.id)
        needed = await self._needed(record, reference)
        for sha256 in needed:
            self.needed.setdefault(sha256, str(reference))
        for parent in record.parents:
            edge = self._edges.pop(self._stores.keys.child(parent.record, record.id), None)
            if edge != bytes_of(pb.Edge(role=parent.role)):
                self._say("lineage", reference, f"its parent {Reference.of(parent.record)} does not know it as a child")
        summary = self._summaries.pop(self._stores.keys.summary(record.id), None)
        if summary is None:
            self._say("summary", reference, "it has no summary, so lists leave it out")
        elif needed <= self.sizes.keys():
            summary.removing = ""
            if summary != summary_of(record, sum(self.sizes[sha256] for sha256 in needed)):
                self._say("summary", reference, "its summary says something else than the record")

    async def _needed(self, record: pb.Record, reference: Reference) -> set[str]:
        needed = digests_of(record)
        try:
            return needed | {shard.sha256 async for shard in indexed(self._stores.objects, record)}
        except (Corrupt, NotFound, InvalidInput) as error:
            self._say("object", reference, f"an index of its shards cannot be read: {error}")
            return needed

    def _leftovers(self) -> None:
        for key in self._summaries:
            self._say("summary", key, "there is a summary and no record, so lists show what cannot be had; remove it")
        for key in self._edges:
            self._say("lineage", key, "the lineage names a child that is not there")

    def _check_heads(self) -> None:
        for (kind, name), head in self._heads.items():
            last = max(self._versions.get((kind, name), ()), default=0)
            if head.latest != last or head.given < last:
                self._say("head", f"{kind}:{name}", f"its latest version is {last}, its head says {head.latest}")
        for kind, name in self._versions.keys() - self._heads.keys():
            self._say("head", f"{kind}:{name}", "it has versions and no head, so it cannot be found by its name")

    def _check_aliases(self) -> None:
        for (kind, name, alias), version in self._aliases.items():
            if version not in self._versions.get((kind, name), ()):
                self._say("alias", f"{kind}:{name}@{alias}", f"it means version {version}, which is not there; move it")

    def _check_objects(self, stored: Mapping[str, int]) -> None:
        for sha256, user in self.needed.items():
            if sha256 not in self.sizes:
                self._say("object", sha256, f"{user} names it, and it is not entered as whole; put it again")
            elif sha256 not in stored:
                self._say("object", sha256, f"{user} names it, and its bytes are missing; put it again")
            elif stored[sha256] != self.sizes[sha256]:
                sizes = f"{stored[sha256]} bytes instead of {self.sizes[sha256]}"
                self._say("object", sha256, f"{user} names it, and it has {sizes}; put it again")


def _kind(kind: str) -> str:
    if kind not in KINDS:
        raise InvalidInput(f"'{kind}' is no kind")
    return kind
