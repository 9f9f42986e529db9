"""`encephalon library export` and `import`: records and their bytes as one file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from encephalon.cli import screen
from encephalon.cli.library.adding.given import pairs
from encephalon.cli.library.place import Place, run
from encephalon.cli.library.printing import print_json
from encephalon.cli.library.quantities import count, size
from encephalon.core.errors import InvalidInput

if TYPE_CHECKING:
    from encephalon.library.archive import Exported, Imported
    from encephalon.library.library import Library

__all__ = ["exported", "imported"]


def exported(place: Place, references: Sequence[str], path: Path, *, with_parents: bool, as_json: bool) -> None:
    if path.is_dir():
        raise InvalidInput(f"--to {path} is a folder; name a file to export to")

    async def work(library: Library) -> Exported:
        with screen.transfer(f"Exporting to {path.name}") as told:
            return await library.export(references, path, with_parents=with_parents, progress=told)

    found = run(place, work)
    if as_json:
        facts = {"path": str(found.path), "digest": found.digest, "objects": found.objects, "size": found.size}
        print_json({**facts, "records": list(map(str, found.records))})
        return
    what = f"{count(len(found.records), 'record')} and {count(found.objects, 'object')} ({size(found.size)})"
    sys.stdout.write(f"{what} are in {path}.\nDigest, for `import --expect`: {found.digest}\n")


def imported(place: Place, path: Path, expect: str | None, renamed: Sequence[str], *, as_json: bool) -> None:
    rename = pairs("--rename", renamed, "network:eyes=other-eyes")

    async def work(library: Library) -> Imported:
        with screen.transfer(f"Importing {path.name}") as told:
            return await library.import_(path, expect=expect, rename=rename, progress=told)

    found = run(place, work)
    if as_json:
        facts = {"digest": found.digest, "objects": found.objects}
        print_json({**facts, "records": list(map(str, found.records)), "added": list(map(str, found.added))})
        return
    for reference in found.added:
        sys.stdout.write(f"added: {reference}\n")
    there = len(found.records) - len(found.added)
    if there:
        sys.stdout.write(f"{there} of {count(len(found.records), 'record')} here already.\n")
