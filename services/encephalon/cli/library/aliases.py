"""`encephalon library alias`: names that point to a version, shown, moved and dropped."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.table import Table

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.cli import screen
from encephalon.cli.library import quantities
from encephalon.cli.library.place import Place, run
from encephalon.cli.library.printing import print_json
from encephalon.cli.library.tables import titled
from encephalon.core.errors import InvalidInput
from encephalon.library.records import Reference
from encephalon.library.records.view import as_json as viewed

if TYPE_CHECKING:
    from encephalon.library.library import Library

__all__ = ["command"]


def command(
    place: Place, reference: str, alias: str | None, *, expected: int | None, drop: bool, as_json: bool
) -> None:
    if alias is None:
        if drop or expected is not None:
            raise InvalidInput(f"say which alias of {reference} is meant: encephalon library alias {reference} ALIAS")
        shown(place, reference, as_json=as_json)
    elif drop:
        if expected is not None:
            raise InvalidInput("--expected belongs to moving an alias, and --drop takes it away; give one of them")
        dropped(place, reference, alias, as_json=as_json)
    else:
        moved(place, reference, alias, expected, as_json=as_json)


def shown(place: Place, reference: str, *, as_json: bool) -> None:
    async def work(library: Library) -> tuple[Reference, Mapping[str, pb.Alias]]:
        chosen = await library.resolve(reference)
        return chosen, await library.aliases(str(chosen.kind), chosen.name)

    chosen, aliases = run(place, work)
    if as_json:
        found = {alias: viewed(item) for alias, item in sorted(aliases.items())}
        print_json({"kind": chosen.kind, "name": chosen.name, "aliases": found})
    else:
        screen.output().print(table(f"{chosen.kind}:{chosen.name}", aliases))


def table(title: str, aliases: Mapping[str, pb.Alias]) -> Table:
    now = datetime.now(UTC)
    rows = [
        (alias, str(item.version), before(item), quantities.ago(item.moved_time, now), item.moved_by)
        if item.HasField("moved_time")
        else (alias, str(item.version), "", "", "")
        for alias, item in sorted(aliases.items())
    ]
    return titled(title, ("alias", "version", "before", "moved", "by"), rows, right=("version",))


def before(alias: pb.Alias) -> str:
    """The most recent first."""
    return ", ".join(map(str, reversed(alias.previous)))


def moved(place: Place, reference: str, alias: str, expected: int | None, *, as_json: bool) -> None:
    async def work(library: Library) -> tuple[Reference, pb.Alias]:
        chosen = await library.resolve(reference)
        return chosen, await library.alias(chosen, alias, expected=expected)

    chosen, found = run(place, work)
    if as_json:
        print_json({"kind": chosen.kind, "name": chosen.name, "alias": alias, **viewed(found)})
        return
    earlier = f", before {found.previous[-1]}" if found.previous else ""
    sys.stdout.write(f"{chosen.kind}:{chosen.name}@{alias} is version {found.version}{earlier}.\n")


def dropped(place: Place, reference: str, alias: str, *, as_json: bool) -> None:
    async def work(library: Library) -> Reference:
        chosen = await library.resolve(reference)
        await library.drop_alias(str(chosen.kind), chosen.name, alias)
        return chosen

    chosen = run(place, work)
    if as_json:
        print_json({"kind": chosen.kind, "name": chosen.name, "dropped": alias})
    else:
        sys.stdout.write(f"{chosen.kind}:{chosen.name}@{alias} is dropped; the versions stay.\n")
