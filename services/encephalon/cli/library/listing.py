"""`encephalon library ls`: one page of records, a table per kind."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.cli import screen
from encephalon.cli.library import quantities
from encephalon.cli.library.place import Place, run
from encephalon.cli.library.printing import print_json
from encephalon.library.query import Page, Query
from encephalon.library.records import name_of_kind
from encephalon.library.records.reference import LATEST
from encephalon.library.records.view import summary_view

if TYPE_CHECKING:
    from encephalon.library.library import Library

__all__ = ["listed"]

TITLES = {"area": "Areas", "network": "Networks", "data_set": "Data sets", "scene": "Scenes", "brain": "Brains"}
HEADINGS = ("name", "v", "aliases", "network", "modalities", "size", "metric", "created", "description")
NUMBERS = ("v", "size")
FOLDED = {"aliases": 20, "modalities": 20}
"""Columns of several words, and how wide they may be."""
GIVING = ("name", "description", *FOLDED)
DISPENSABLE = ("description", "network", "modalities", "created", "size")
NARROW = 14  # characters that a name or a description has at least
Aliases = Mapping[tuple[int, str], Mapping[str, pb.Alias]]


def listed(place: Place, query: Query, *, limit: int, after: str, as_json: bool) -> None:
    async def work(library: Library) -> tuple[Page, Aliases]:
        page = await library.page(query, size=limit, after=after)
        return page, await aliases_of(library, page.items)

    page, aliases = run(place, work)
    if as_json:
        records = [summary_view(item) | {"aliases": pointing(item, aliases)} for item in page.items]
        print_json({"records": records, "next": page.next})
        return
    show(page, aliases, query)
    if page.next:
        sys.stderr.write(f"More: {further(sys.argv[1:], page.next)}\n")


async def aliases_of(library: Library, items: Sequence[pb.Summary]) -> Aliases:
    names = list({(item.id.kind, item.id.name) for item in items})
    found = await asyncio.gather(*(library.aliases(name_of_kind(kind), name) for kind, name in names))
    return dict(zip(names, found, strict=True))


def pointing(item: pb.Summary, aliases: Aliases) -> list[str]:
    """The aliases that name this very version."""
    of_name = aliases.get((item.id.kind, item.id.name), {})
    return sorted(alias for alias, target in of_name.items() if target.version == item.id.version)


def show(page: Page, aliases: Aliases, query: Query) -> None:
    console = screen.output()
    if not page.items:
        console.print("No record fits." if query != Query(kind=query.kind) else "There is none.")
    groups = groupby(sorted(page.items, key=lambda item: item.id.kind), lambda item: name_of_kind(item.id.kind))
    for number, (kind, items) in enumerate(groups):
        if number:
            console.print()
        console.print(table(TITLES.get(kind, "Runs"), list(items), aliases, wanted_metrics(query), console.width))


def wanted_metrics(query: Query) -> list[str]:
    """What was asked for is what is shown."""
    sorted_by = query.sort.lstrip("-").removeprefix("metric:")
    return [*([sorted_by] if "metric:" in query.sort else []), *(condition.name for condition in query.conditions)]


def main_metric(item: pb.Summary, wanted: Sequence[str]) -> str:
    """Empty when there is none."""
    first = [*wanted, "accuracy.test", "accuracy"]
    others = sorted(item.metrics, key=lambda name: (not name.endswith(".test"), name))
    return next((name for name in [*first, *others] if name in item.metrics), "")


def table(title: str, items: Sequence[pb.Summary], aliases: Aliases, wanted: Sequence[str], width: int) -> Table:
    metrics = [main_metric(item, wanted) for item in items]
    alone = len(set(metrics) - {""}) == 1 and max(metrics) not in HEADINGS
    now = datetime.now(UTC)
    columns: dict[str, list[str | Text]] = {
        "name": [item.id.name for item in items],
        "v": [str(item.id.version) for item in items],
        "aliases": [", ".join(alias for alias in pointing(item, aliases) if alias != LATEST) for item in items],
        "network": [f"{item.area}/{item.code}" if item.code else "" for item in items],
        "modalities": [", ".join(item.modalities) if not item.area else "" for item in items],
        "size": [quantities.size(item.size) if item.size else "" for item in items],
        max(metrics) if alone else "metric": [
            measured(item, name, named=not alone) for item, name in zip(items, metrics, strict=True)
        ],
        "created": [quantities.ago(item.created_time, now) for item in items],
        "description": [first_line(item.description) for item in items],
    }
    return drawn(title, {heading: cells for heading, cells in columns.items() if any(map(str, cells))}, width)


def measured(item: pb.Summary, name: str, *, named: bool) -> str:
    if not name:
        return ""
    value = quantities.figure(item.metrics[name])
    return f"{name} {value}" if named else value


def first_line(text: str) -> Text:
    """Cut where the column ends: a list has one line per record."""
    return Text(text.partition("\n")[0], no_wrap=True, overflow="ellipsis")


def drawn(title: str, columns: Mapping[str, Sequence[str | Text]], width: int) -> Table:
    """Without lines and with one space between columns it fits 80 characters; the description gives way first, then
    long names are folded.
    """
    found = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    columns, room = fitting(columns, width)
    for heading in columns:
        found.add_column(
            Text(heading, no_wrap=True, overflow="ellipsis"),
            justify="right" if heading in NUMBERS or heading not in HEADINGS else "left",
            no_wrap=heading not in GIVING,
            overflow="fold",
            width=room if heading == "name" else None,
            max_width=FOLDED.get(heading),
        )
    for row in zip(*columns.values(), strict=True):
        found.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return found


def fitting(columns: Mapping[str, Sequence[str | Text]], width: int) -> tuple[Mapping[str, Sequence[str | Text]], int]:
    """Without the columns for which there is no room, and how wide that of names is."""
    longest = {heading: max(len(heading), *map(len, cells)) for heading, cells in columns.items()}
    widths = {heading: min(size, FOLDED.get(heading, size)) for heading, size in longest.items()}
    name = widths.pop("name")
    if "description" in widths:
        widths["description"] = NARROW
    for heading in DISPENSABLE:
        if sum(widths.values()) + len(widths) + min(name, NARROW) > width:
            widths.pop(heading, None)
    kept = {heading: cells for heading, cells in columns.items() if heading == "name" or heading in widths}
    return kept, min(name, max(NARROW, width - sum(widths.values()) - len(widths)))


def further(words: Sequence[str], after: str) -> str:
    """What was typed, and where it goes on: can be pasted. Not where it would show a secret."""
    if any("://" in word and "@" in word for word in words):
        return f"the same with --after {after}"
    return f"encephalon {shlex.join([*without_option(words, '--after'), '--after', after])}"


def without_option(words: Sequence[str], option: str) -> list[str]:
    kept, skip = [], False
    for word in words:
        if not skip and word != option and not word.startswith(f"{option}="):
            kept.append(word)
        skip = word == option and not skip
    return kept
