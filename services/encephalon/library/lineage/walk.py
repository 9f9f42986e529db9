"""Reads a lineage out of the store, step by step in both directions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Protocol, TypeVar

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import InvalidInput, NotFound
from encephalon.library.lineage.graph import Edge, Graph, Node
from encephalon.library.records import Reference
from encephalon.library.records.summary import summary_of
from encephalon.library.store.entries import message_or_none
from encephalon.library.store.keys import Keys, reference_of
from encephalon.state import KeyValue

__all__ = ["MAX_DEPTH", "MAX_NODES", "Shelf", "lineage"]

MAX_DEPTH: Final = 100
MAX_NODES: Final = 10_000
_AT_ONCE: Final = 16  # requests that are with the store together

_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")


class Shelf(Protocol):
    """What a lineage needs of a library."""

    @property
    def key_value(self) -> KeyValue: ...

    @property
    def namespace(self) -> str: ...

    async def resolve(self, reference: str | Reference, kind: str | None = None) -> Reference: ...


async def lineage(library: Shelf, reference: str | Reference, *, depth: int = 8, limit: int = 500) -> Graph:
    """All that the record was made from, and what that was made from; all that was made from it, and so on.

    depth: steps in either direction. limit: records in all; the nearest are kept.
    Raises NotFound, InvalidInput, and what the store raises.
    """
    if not (0 <= depth <= MAX_DEPTH and 1 <= limit <= MAX_NODES):
        raise InvalidInput(
            f"a lineage goes 0 to {MAX_DEPTH} steps and has 1 to {MAX_NODES} records, not {depth} and {limit}"
        )
    return await _Walk(library, await library.resolve(reference), limit).go(depth)


class _Walk:
    def __init__(self, library: Shelf, root: Reference, limit: int) -> None:
        self._store = library.key_value
        self._keys = Keys(library.namespace)
        self._root = root
        self._limit = limit
        self._nodes: dict[Reference, Node] = {}
        self._parents: dict[Reference, Sequence[Edge]] = {}
        self._children_told: dict[Edge, None] = {}

    async def go(self, depth: int) -> Graph:
        above = below = await self._admit([self._root])
        if self._nodes[self._root].summary is None:
            raise NotFound(f"{self._root} is not in the library; it was removed meanwhile", record=self._root)
        truncated = False
        for step in range(depth + 1):
            parents = [edge.parent for node in above for edge in self._parents[node]]
            children = [edge.child for edges in await _each(below, self._children) for edge in edges]
            new_above, new_below = self._unknown(parents), self._unknown(children)
            if not new_above and not new_below:
                break
            room = self._limit - len(self._nodes)
            truncated = step == depth or len({*new_above, *new_below}) > room
            if step == depth or room == 0:
                break
            above = await self._admit(new_above[:room])
            # In damaged data something may be above and below at once; whatever was met once is not followed again.
            below = await self._admit(self._unknown(new_below)[: self._limit - len(self._nodes)])
        edges = [edge for edge in self._all_edges() if edge.parent in self._nodes and edge.child in self._nodes]
        return Graph(self._root, self._nodes, edges, truncated)

    async def _admit(self, references: Sequence[Reference]) -> Sequence[Reference]:
        for reference, (parents, summary) in zip(references, await _each(references, self._read), strict=True):
            self._parents[reference] = parents
            self._nodes[reference] = Node(reference, summary)
        return references

    def _unknown(self, references: Iterable[Reference]) -> list[Reference]:
        return [reference for reference in dict.fromkeys(references) if reference not in self._nodes]

    def _all_edges(self) -> Iterable[Edge]:
        """Those that the records tell, and those that only the children's keys tell, in a damaged library."""
        told = [edge for parents in self._parents.values() for edge in parents]
        return dict.fromkeys([*told, *self._children_told])

    async def _read(self, reference: Reference) -> tuple[Sequence[Edge], pb.Summary | None]:
        """The record goes at once: it may be a thousand times the size of what is needed of it."""
        record = message_or_none(pb.Record, await self._store.get(self._keys.record(reference.message)))
        if record is None:
            return (), None
        summary = message_or_none(pb.Summary, await self._store.get(self._keys.summary(reference.message)))
        return _parents(reference, record), summary or summary_of(record, 0)

    async def _children(self, reference: Reference) -> list[Edge]:
        """At most one more than the limit allows, so that it shows that there are more."""
        prefix, found = self._keys.children(reference.message), list[Edge]()
        most = self._limit + 1
        async with contextlib.aclosing(self._store.list(prefix, page=min(1000, most))) as entries:
            async for entry in entries:
                try:
                    child = Reference.of(reference_of(self._keys.parts(entry.key)[-3:]))
                except InvalidInput:
                    continue  # `library verify` tells of keys that mean nothing
                edge = message_or_none(pb.Edge, entry) or pb.Edge()
                found.append(Edge(reference, child, edge.role))
                if len(found) == most:
                    break
        self._children_told.update(dict.fromkeys(found))
        return found


def _parents(reference: Reference, record: pb.Record) -> Sequence[Edge]:
    found: list[Edge] = []
    for parent in record.parents:
        with contextlib.suppress(InvalidInput):  # damaged: it names no record
            found.append(Edge(Reference.of(parent.record), reference, parent.role))
    return found


async def _each(asked: Sequence[_Asked], ask: Callable[[_Asked], Awaitable[_Answer]]) -> list[_Answer]:
    """The answers, in the order of what was asked."""
    answers: list[_Answer] = []
    for start in range(0, len(asked), _AT_ONCE):
        answers += await asyncio.gather(*(ask(what) for what in asked[start : start + _AT_ONCE]))
    return answers
