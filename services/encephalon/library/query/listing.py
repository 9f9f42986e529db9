"""Lists: all that fits, streamed, or a page of it."""

from __future__ import annotations

import contextlib
import difflib
import heapq
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import InvalidInput, NotFound
from encephalon.library.query import token
from encephalon.library.query.order import Order, Position
from encephalon.library.query.query import Query
from encephalon.library.query.scan import Shelf, matches, summaries

__all__ = ["MAX_PAGE", "Page", "ls", "page"]

MAX_PAGE: Final = 1000

_SEARCHED: Final = 2500
"""Entries at once, where all are gone through: some MiB, and few requests, each of which waits for its turn."""

_FIRST: Final[Position] = (-1, 0, "")
_LAST: Final[Position] = (2, 0, "")

_Placed = tuple[Position, pb.Summary]


@dataclass(frozen=True, slots=True)
class Page:
    items: list[pb.Summary]
    next: str
    """For the page that follows; "" when there is none."""


async def ls(library: Shelf, query: Query | None = None) -> AsyncGenerator[pb.Summary, None]:
    """All that fits: in the order of the keys a page of the store at a time, else searched anew for every thousand.

    Raises InvalidInput, NotFound for an area that nothing belongs to, and what the store raises.
    """
    query = query or Query()
    after, found = "", False
    while query.order is not None:
        some = await page(library, query, size=MAX_PAGE, after=after)
        for summary in some.items:
            yield summary
        if not (after := some.next):
            return
    async with contextlib.aclosing(matches(library, query)) as pages:
        async for placed in pages:
            for _, summary in placed:
                found = True
                yield summary
    if not found:
        await _check_area(library, query)


async def page(library: Shelf, query: Query | None = None, *, size: int = 50, after: str = "") -> Page:
    """At most `size` of what fits, behind where `after`, the `next` of another page, ended.

    What is added or removed between two pages is seen when it lies behind; nothing else is told twice or left out.
    Raises as `ls` does.
    """
    query = query or Query()
    if not 1 <= size <= MAX_PAGE:
        raise InvalidInput(f"a page has 1 to {MAX_PAGE} records, not {size}")
    behind = token.read(query, after) if after else None
    order = query.order
    if order is None:
        placed = await _first(library, query, size + 1, behind)
    else:
        placed = await _best(library, query, order, size + 1, behind)
    if not placed and behind is None:
        await _check_area(library, query)
    items = [summary for _, summary in placed[:size]]
    return Page(items, token.write(query, placed[size - 1][0]) if len(placed) > size else "")


async def _first(library: Shelf, query: Query, count: int, behind: Position | None) -> list[_Placed]:
    """In the order of the keys."""
    placed: list[_Placed] = []
    async with contextlib.aclosing(matches(library, query, after=behind[2] if behind else "")) as pages:
        async for found in pages:
            placed += [((0, 0, key), summary) for key, summary in found[: count - len(placed)]]
            if len(placed) == count:
                break
    return placed


async def _best(library: Shelf, query: Query, order: Order, count: int, behind: Position | None) -> list[_Placed]:
    """The `count` that come first in `order`, of all; more are never held than these and a page of the store."""
    select, place = (heapq.nlargest if order.descending else heapq.nsmallest), order.position()
    best: list[_Placed] = []
    low, high = (_FIRST, behind or _LAST) if order.descending else (behind or _FIRST, _LAST)
    async with contextlib.aclosing(matches(library, query, at_once=_SEARCHED)) as pages:
        async for found in pages:
            placed = [(at, summary) for key, summary in found if low < (at := place(summary, key)) < high]
            best = select(count, best + placed, key=_position)
            if len(best) == count:
                # What lies behind the last of so many is of no interest any more.
                low, high = (best[-1][0], high) if order.descending else (low, best[-1][0])
    return best


def _position(placed: _Placed) -> Position:
    return placed[0]


async def _check_area(library: Shelf, query: Query) -> None:
    """Nothing was found: perhaps because the area was misspelt. Raises NotFound then."""
    if query.area is None:
        return
    areas: set[str] = set()
    async with contextlib.aclosing(summaries(library)) as all_of_them:
        async for summary in all_of_them:
            areas.add(summary.area)
    if query.area not in areas:
        near = difflib.get_close_matches(query.area, areas, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(sorted(areas - {''})) or 'none'}"
        raise NotFound(f"nothing in the library belongs to an area '{query.area[:60]}'; {hint}", area=query.area[:60])
