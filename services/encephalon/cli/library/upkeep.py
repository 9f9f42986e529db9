"""`encephalon library verify`, `gc`, `du` and `remove`: is all well, what takes room, and what need not."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from encephalon.cli import screen
from encephalon.cli.failures import FAILED
from encephalon.cli.library.place import Place, run
from encephalon.cli.library.printing import print_json
from encephalon.cli.library.quantities import count, duration, size
from encephalon.cli.library.tables import facts, titled
from encephalon.core.errors import InvalidInput
from encephalon.library.records import Reference

if TYPE_CHECKING:
    from encephalon.library.library import Library
    from encephalon.library.store.collecting import Collected
    from encephalon.library.store.consistency import Problem
    from encephalon.library.store.usage import Usage

__all__ = ["collected", "removed", "used", "verified"]


def verified(place: Place, *, quick: bool, as_json: bool) -> int:
    """The exit code: 0 when nothing is wrong."""

    async def work(library: Library) -> list[Problem]:
        with screen.transfer("Verifying") as told:
            return await library.verify(quick=quick, progress=told)

    problems = run(place, work)
    if as_json:
        print_json({"problems": [asdict(problem) for problem in problems]})
    elif problems:
        rows = [(problem.what, problem.subject, problem.sentence) for problem in problems]
        screen.output().print(titled("Problems", ("of a", "which", "what is wrong"), rows))
    else:
        sys.stdout.write(f"Nothing is wrong{'; the bytes of objects were not read' if quick else ''}.\n")
    return FAILED if problems else 0


def collected(place: Place, grace: str, *, dry_run: bool, as_json: bool) -> None:
    grace_s = duration(grace, "--grace")

    async def work(library: Library) -> Collected:
        with screen.counter("Collecting") as told:
            return await library.gc(grace_s=grace_s, dry_run=dry_run, progress=told)

    found = run(place, work)
    if as_json:
        print_json({**asdict(found), "dry_run": dry_run})
        return
    done = "would be deleted" if dry_run else "deleted"
    spared = f"; {found.spared} of them that no record names are too young or in use" if found.spared else ""
    sys.stdout.write(f"{count(found.objects, 'object')} ({size(found.bytes)}) {done}, {found.left} stay{spared}.\n")


def used(place: Place, *, as_json: bool) -> None:
    async def work(library: Library) -> Usage:
        return await library.du()

    found = run(place, work)
    if as_json:
        print_json(asdict(found))
        return
    console = screen.output()
    rows = [
        (f"{item.kind}:{item.name}", str(item.versions), size(item.bytes), size(item.own))
        for item in found.names
        if item.bytes
    ]
    numbers = ("versions", "size", "its own")
    if rows:
        console.print(titled("Objects by name", ("name", *numbers), rows, right=numbers))
        console.print()
    console.print(facts(dict(totals(found))))


def totals(found: Usage) -> list[tuple[str, str]]:
    return [
        ("all objects", f"{size(found.bytes)} in {found.objects}"),
        ("shared", f"{size(found.shared)} by several names"),
        ("saved", f"{size(found.saved)} by keeping what is the same once"),
        ("garbage", f"{size(found.unreached)} that no record names; `encephalon library gc` deletes it"),
        ("cache", f"{size(found.cache)} of {size(found.cache_bound)} on this machine"),
    ]


def removed(place: Place, reference: str, *, as_json: bool) -> None:
    async def work(library: Library) -> Reference:
        chosen = await library.resolve(reference)
        if "@" not in reference:
            # The latest is what a name means elsewhere; what cannot be taken back is not done to what was not said.
            versions = ", ".join(map(str, await library.versions(str(chosen.kind), chosen.name)))
            raise InvalidInput(f"say which version of {chosen.kind}:{chosen.name} is removed: it has {versions}")
        await library.remove(chosen)
        return chosen

    chosen = run(place, work)
    if as_json:
        print_json({"kind": chosen.kind, "name": chosen.name, "version": chosen.selector, "removed": True})
    else:
        sys.stdout.write(f"{chosen} is removed; `encephalon library gc` deletes the bytes that nothing else names.\n")
