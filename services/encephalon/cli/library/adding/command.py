"""Adds one source after the other and says what became of each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from encephalon.cli.library.adding import brains, data_sets, networks, scenes
from encephalon.cli.library.adding.given import Given
from encephalon.cli.library.adding.plan import Added, Options, Plan
from encephalon.cli.library.adding.sources import kind_of
from encephalon.cli.library.place import Place, run
from encephalon.cli.library.printing import print_json
from encephalon.core.errors import InvalidInput, NotFound
from encephalon.library.records import Reference
from encephalon.library.records.view import record_view

if TYPE_CHECKING:
    from encephalon.library.library import Library

__all__ = ["added"]

PLANS: Mapping[str, Callable[[str, Given, Options], Plan]] = {
    "network": networks.plan,
    "data_set": data_sets.plan,
    "brain": brains.plan,
    "scene": scenes.plan,
}


def added(
    place: Place,
    sources: Sequence[str],
    kind: str | None,
    given: Given,
    particular: Mapping[str, Options],
    *,
    as_json: bool,
) -> None:
    """`particular` are the options that belong to one kind only, by the kind."""
    kinds = [kind_of(source, kind) for source in sources]
    check(sources, kinds, given, particular)
    plans = [PLANS[of](source, given, particular.get(of, {})) for source, of in zip(sources, kinds, strict=True)]

    async def work(library: Library) -> list[tuple[Added, bool]]:
        return [await done(library, plan) for plan in plans]

    found = run(place, work)
    if as_json:
        print_json({"records": [{**record_view(one.record), "unchanged": same} for one, same in found]})
        return
    for one, same in found:
        for note in one.notes:
            sys.stderr.write(f"Note: {note}\n")
        sys.stdout.write(f"{'unchanged' if same else 'added'}: {Reference.of(one.record.id)}\n")


async def done(library: Library, plan: Plan) -> tuple[Added, bool]:
    """And whether nothing was new."""
    try:
        before = await library.versions(plan.kind, plan.name)
    except NotFound:
        before = []
    one = await plan.add(library)
    return one, one.record.id.version in before


def check(sources: Sequence[str], kinds: Sequence[str], given: Given, particular: Mapping[str, Options]) -> None:
    """InvalidInput for options that go with none of the sources, or not with several."""
    if len(sources) > 1 and given.name is not None:
        raise InvalidInput(f"--name {given.name} cannot be the name of {len(sources)} records; add them one by one")
    for kind, options in particular.items():
        typed = [option for option, value in options.items() if value]
        if typed and kind not in kinds:
            option = typed[0].replace("_", "-")
            raise InvalidInput(
                f"--{option} belongs to a {kind.replace('_', ' ')}, and {sources[0]} is a "
                f"{kinds[0].replace('_', ' ')}; leave it out, or say what it is with --kind"
            )
