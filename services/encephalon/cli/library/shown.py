"""`encephalon library show`: everything that a record says, for people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.text import Text

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.cli import screen
from encephalon.cli.library import quantities
from encephalon.cli.library.bodies import parts
from encephalon.cli.library.place import Place, run
from encephalon.cli.library.printing import print_json
from encephalon.cli.library.tables import facts, titled
from encephalon.library.records import Reference, name_of_kind
from encephalon.library.records.view import record_view

if TYPE_CHECKING:
    from encephalon.library.library import Library

__all__ = ["shown"]


@dataclass(frozen=True, slots=True)
class Found:
    record: pb.Record
    aliases: list[str]
    children: list[tuple[Reference, str]]
    versions: list[int]


def shown(place: Place, reference: str, *, as_json: bool) -> None:
    found = run(place, lambda library: look(library, reference))
    if as_json:
        print_json(document(found))
    else:
        show(screen.output(), found)


async def look(library: Library, reference: str) -> Found:
    record = await library.show(reference)
    of = Reference.of(record.id)
    kind = name_of_kind(record.id.kind)
    aliases = await library.aliases(kind, record.id.name)
    return Found(
        record,
        sorted(alias for alias, target in aliases.items() if target.version == record.id.version),
        await children(library, of),
        await library.versions(kind, record.id.name),
    )


async def children(library: Library, of: Reference) -> list[tuple[Reference, str]]:
    """What was made from it, with the role that it had."""
    graph = await library.lineage(of, depth=1)
    return [(edge.child, edge.role) for edge in graph.edges if edge.parent == of]


def document(found: Found) -> dict[str, object]:
    made = [{"record": str(child), "role": role} for child, role in found.children]
    return {**record_view(found.record), "aliases": found.aliases, "children": made, "versions": found.versions}


def show(console: Console, found: Found) -> None:
    record = found.record
    console.print(Text(str(Reference.of(record.id)), style="bold"))
    if record.description:
        console.print(Text(record.description))
    console.print(facts(dict(about(found))))
    for part in (*parts(record), *measures(record), *lineage(found)):
        console.print()
        console.print(part)


def about(found: Found) -> Iterable[tuple[str, str]]:
    record = found.record
    created = quantities.moment(record.created_time).astimezone()
    yield "created", f"{created:%Y-%m-%d %H:%M:%S} ({quantities.ago(record.created_time, datetime.now(UTC))})"
    yield "by", ", ".join(word for word in (record.created_by, record.code_version) if word)
    yield "aliases", ", ".join(found.aliases)
    yield "tags", ", ".join(f"{name}={value}" if value else name for name, value in sorted(record.tags.items()))
    yield "licence", record.licence
    yield "origin", record.origin
    yield "versions", ", ".join(map(str, found.versions)) if len(found.versions) > 1 else ""


def measures(record: pb.Record) -> Iterable[RenderableType]:
    if record.metrics:
        rows = [(name, quantities.figure(value)) for name, value in sorted(record.metrics.items())]
        yield titled("Metrics", ("name", "figure"), rows, right=("figure",))


def lineage(found: Found) -> Iterable[RenderableType]:
    if found.record.parents:
        rows = [(parent.role, str(Reference.of(parent.record))) for parent in found.record.parents]
        yield titled("Made from", ("role", "record"), rows)
    if found.children:
        yield titled("Made from this", ("as", "record"), [(role, str(child)) for child, role in found.children])
