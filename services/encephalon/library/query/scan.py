"""Goes through the summaries in the order of their keys, a page of the store at a time."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from typing import Final, Protocol

import structlog
from google.protobuf.message import DecodeError

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.library.query.matching import Check, checks_of, lacking, may_say, needles_of, words_of
from encephalon.library.query.query import Query
from encephalon.library.records.summary import DESCRIPTION_CHARACTERS
from encephalon.library.store.entries import message_or_none
from encephalon.library.store.keys import Keys, segment
from encephalon.state import Entry, KeyValue

__all__ = ["Match", "Shelf", "matches", "summaries"]

_log = structlog.get_logger(__name__)

Match = tuple[str, pb.Summary]
"""The key, below the summaries, and what is there. Without the version when only the latest of a name counts, so that
a new version does not move it."""

_AT_ONCE: Final = 16  # requests that are with the store together
_VERSION: Final = len("/00000001")
_BEHIND: Final = "/~"  # after every version of a name


class Shelf(Protocol):
    """What a query needs of a library."""

    @property
    def key_value(self) -> KeyValue: ...

    @property
    def namespace(self) -> str: ...


async def matches(
    library: Shelf, query: Query, *, after: str = "", at_once: int = 1000
) -> AsyncGenerator[list[Match], None]:
    """What fits, as many at a time as are found in one page of the store, which is all that is held.

    after: only what lies behind this key of a match. at_once: entries of such a page.
    """
    keys = Keys(library.namespace)
    root = len(keys.summaries())
    end = None if query.all_versions else -_VERSION
    behind = f"{keys.summaries()}{after}{'' if query.all_versions else _BEHIND}" if after else ""
    pages = _pages(
        library.key_value.pages(_prefix(keys, query), page=at_once, after=behind), latest=not query.all_versions
    )
    needles, checks, words = needles_of(query), checks_of(query), words_of(query)
    async with contextlib.aclosing(pages):
        async for page in pages:
            if words:
                page = [entry for entry in page if may_say(words, entry.value)]
            found = list(_fitting(page, needles, checks))
            if words:
                found = await _saying(library.key_value, keys, found, words)
            yield [(key[root:end], summary) for key, summary in found]


async def summaries(library: Shelf) -> AsyncGenerator[pb.Summary, None]:
    pages = library.key_value.pages(Keys(library.namespace).summaries())
    async with contextlib.aclosing(pages):
        async for page in pages:
            for _, summary in _fitting(page, (), ()):
                yield summary


def _prefix(keys: Keys, query: Query) -> str:
    """What the keys of all that may fit start with."""
    if query.kind is None:
        return keys.summaries()
    before = re.match(r"[^*?\[]*", query.name or "")
    return keys.summaries(query.kind) + segment(before[0] if before else "")


def _fitting(page: Iterable[Entry], needles: Sequence[bytes], checks: Sequence[Check]) -> Iterator[Match]:
    """Plain loops: `all` over a generator costs as much as what it asks."""
    parse = pb.Summary.FromString
    for entry in page:
        value = entry.value
        for needle in needles:
            if needle not in value:
                break
        else:
            try:
                summary = parse(value)
            except DecodeError:
                _log.warning("a damaged summary is left out of the list; see `library verify`", key=entry.key)
                continue
            for check in checks:
                if not check(summary):
                    break
            else:
                yield entry.key, summary


async def _saying(store: KeyValue, keys: Keys, found: Sequence[Match], wanted: Sequence[str]) -> list[Match]:
    """Those that have all the words. Where a summary breaks the description off, the record is asked."""
    missing = {key: words for key, summary in found if (words := lacking(wanted, summary))}
    unsure = [key for key, summary in found if key in missing and len(summary.description) >= DESCRIPTION_CHARACTERS]
    for start in range(0, len(unsure), _AT_ONCE):
        batch = unsure[start : start + _AT_ONCE]
        records = (keys.root + key.removeprefix(keys.summaries()) for key in batch)
        entries = await asyncio.gather(*map(store.get, records))
        for key, entry in zip(batch, entries, strict=True):
            description = (message_or_none(pb.Record, entry) or pb.Record()).description.casefold()
            missing[key] = [word for word in missing[key] if word not in description]
    return [(key, summary) for key, summary in found if not missing.get(key)]


async def _pages(
    pages: AsyncGenerator[Sequence[Entry], None], *, latest: bool
) -> AsyncGenerator[Sequence[Entry], None]:
    last: Sequence[Entry] = ()
    async with contextlib.aclosing(pages):
        async for page in pages:
            if not latest:
                yield page
                continue
            # The last of a page is told when it is known what follows.
            entries = [*last, *page]
            yield _latest(entries)
            last = entries[-1:]
    yield last


def _latest(entries: Sequence[Entry]) -> list[Entry]:
    """Of neighbours with one name the last, which has the highest version; without the last of all."""
    names = [entry.key[:-_VERSION] for entry in entries]
    return [entries[i] for i in range(len(names) - 1) if names[i] != names[i + 1]]
