"""`encephalon swap`: another network in a region of a running brain."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from encephalon.cli import screen
from encephalon.cli.followers import NotServed, follower, place_of, until_served
from encephalon.cli.library.place import Place
from encephalon.cli.library.place import run as run_on
from encephalon.core.errors import FailedPrecondition, InvalidInput
from encephalon.local import RunFile

if TYPE_CHECKING:
    from encephalon.library.library import Library
    from encephalon.library.records import Reference

__all__ = ["run"]

LATEST = "latest"


def run(
    regions: Sequence[str],
    network: str | None,
    brain: str | None,
    alias: str | None,
    place: Place,
    *,
    timeout_s: float,
    as_json: bool,
) -> None:
    changes = changes_of(regions, network)
    record = follower(brain, place.state_dir)
    moving = alias or followed_alias(record)
    done = run_on(place_of(record, place), lambda library: swap(library, record, moving, changes, timeout_s))
    sys.stdout.write((json.dumps(done, indent=2) if as_json else in_words(done, record.follows)) + "\n")


def changes_of(regions: Sequence[str], network: str | None) -> dict[str, str]:
    """Region to network. InvalidInput for what cannot be meant."""
    if network is not None:
        if len(regions) != 1 or "=" in regions[0]:
            raise InvalidInput("--network goes with one region; write several as visual=vision/003 association=NAME")
        return {regions[0]: network}
    pairs = [tuple(item.split("=", 1)) for item in regions]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise InvalidInput(f"{' '.join(regions)} names no network; write it as visual=vision/003")
    changes = {pair[0]: pair[1] for pair in pairs}
    if len(changes) != len(pairs):
        raise InvalidInput("a region is given twice; give each once")
    return changes


def followed_alias(record: RunFile) -> str:
    selector = record.follows.partition("@")[2]
    if selector.isdecimal():
        raise FailedPrecondition(
            f"brain '{record.brain}' runs version {selector} whatever happens; start it with an alias, "
            f"as `encephalon up {record.brain}@production`"
        )
    return selector


async def swap(
    library: Library, record: RunFile, alias: str, changes: dict[str, str], timeout_s: float
) -> dict[str, Any]:
    from encephalon.library.brains.swapping import swapped
    from encephalon.library.records import Reference

    before = await library.show(Reference(record.brain, alias, "brain"))
    swap = await swapped(library, before, changes)
    added = Reference.of((await library.add(swap.draft)).id)
    if alias != LATEST:
        await library.alias(added, alias, expected=before.id.version)
    if f"{record.brain}@{alias}" == record.follows:
        await served_or_back(library, record, added, alias, timeout_s)
    return {
        "brain": record.brain,
        "version": added.selector,
        "previous": before.id.version,
        "alias": alias,
        "networks": {region: str(found) for region, found in swap.networks.items()},
        "carried": {region: str(found) for region, found in swap.carried.items()},
    }


async def served_or_back(library: Library, record: RunFile, added: Reference, alias: str, timeout_s: float) -> None:
    """Waits until the running brain serves the new version; when it cannot, everything is as it was before."""
    version = int(added.selector)
    try:
        with screen.bar(f"Waiting until '{record.brain}' serves version {version}", None):
            await until_served(record, version, timeout_s)
    except NotServed as error:
        await back(library, added, alias)
        raise FailedPrecondition(f"{error.message}; brain '{record.brain}' stays what it was") from error


async def back(library: Library, added: Reference, alias: str) -> None:
    if alias == LATEST:
        await library.remove(added)
        return
    aliases = await library.aliases("brain", added.name)
    if alias in aliases and aliases[alias].version == added.selector:  # nobody has moved it on
        await library.rollback(added, alias)


def in_words(done: dict[str, Any], follows: str) -> str:
    lines = [
        f"Region '{region}' goes along: {network} was trained with what comes before it."
        for region, network in done["carried"].items()
    ]
    brain, alias, version = done["brain"], done["alias"], done["version"]
    changed = ", ".join(f"{region}={network}" for region, network in done["networks"].items())
    served = follows == f"{brain}@{alias}"
    what = f"Brain '{brain}' is" if served else f"'{alias}' of brain '{brain}' means"
    back = f"rollback {brain}" if served else f"rollback {brain} --alias {alias}"
    if alias == LATEST:
        back = f"library remove brain:{brain}@{version}"
    return "\n".join([*lines, f"{what} version {version} now, with {changed}; `encephalon {back}` goes back."])
