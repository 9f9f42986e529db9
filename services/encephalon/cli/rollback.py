"""`encephalon rollback`: a brain is again what it was before its alias was moved."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from encephalon.cli import screen
from encephalon.cli.followers import NotServed, follower_named, place_of, running_here, until_served
from encephalon.cli.library.place import Place
from encephalon.cli.library.place import run as run_on
from encephalon.core.errors import FailedPrecondition
from encephalon.local import RunFile

if TYPE_CHECKING:
    from encephalon.library.library import Library

__all__ = ["run"]

PRODUCTION, LATEST = "production", "latest"


def run(brain: str, alias: str | None, place: Place, *, timeout_s: float, as_json: bool) -> None:
    running = next((record for record in running_here(place.state_dir) if record.brain == brain), None)
    if running is not None and not running.follows:
        raise FailedPrecondition(
            f"brain '{brain}' runs from the file {running.manifest}; "
            "add it with `encephalon library add`, and run it from the library"
        )
    chosen = alias or alias_of(running.follows if running is not None else "")
    follower = follower_named(brain, f"{brain}@{chosen}", place.state_dir)

    where = place_of(follower, place) if follower is not None else place
    done = run_on(where, lambda library: rolled_back(library, brain, chosen, follower, timeout_s))
    sys.stdout.write((json.dumps(done, indent=2) if as_json else in_words(done, follower is not None)) + "\n")


async def rolled_back(
    library: Library, brain: str, alias: str, follower: RunFile | None, timeout_s: float
) -> dict[str, Any]:
    """What the alias means now and meant before; the brain that runs here and follows it serves it already."""
    before = await library.resolve(f"brain:{brain}@{alias}")
    target = await library.rollback(f"brain:{brain}", alias)
    if follower is not None:
        try:
            with screen.bar(f"Waiting until '{brain}' serves version {target.version}", None):
                await until_served(follower, target.version, timeout_s)
        except NotServed as error:
            raise FailedPrecondition(f"{error.message}; '{alias}' means it all the same") from error
    return {"brain": brain, "alias": alias, "version": target.version, "previous": before.selector}


def alias_of(follows: str) -> str:
    """What moves when nothing is said: what the running brain follows, if it can be moved."""
    selector = follows.partition("@")[2]
    return PRODUCTION if not selector or selector == LATEST or selector.isdecimal() else selector


def in_words(done: dict[str, Any], runs: bool) -> str:
    served = ", which is in service" if runs else ""
    moved = f"'{done['alias']}' of brain '{done['brain']}' means version {done['version']} again"
    return f"{moved}{served}; it was {done['previous']}."
