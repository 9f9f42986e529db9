"""The errors for what is not there: they name what was probably meant."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Mapping, Sequence

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import NotFound
from encephalon.library.records.kinds import KINDS, name_of_kind
from encephalon.library.store.heads import names_of, versions_of
from encephalon.library.store.stores import Stores

__all__ = ["no_name", "no_version"]

_SHOWN = 12


async def no_name(stores: Stores, name: str, kind: str | None = None) -> NotFound:
    """No record, or none of this kind, has the name."""
    what = f"{kind} '{name}'" if kind is not None else f"record '{name}'"
    known = {each: await names_of(stores, each) for each in KINDS}
    others = [each for each, names in known.items() if each != kind and name in names]
    if others:
        hint = f"there is {' and '.join(f'{other}:{name}' for other in others)}"
    elif near := await asyncio.to_thread(_nearest, name, known, kind):
        hint = f"did you mean '{near}'?"
    else:
        hint = "see `library ls`" if any(known.values()) else "the library is empty"
    return NotFound(f"there is no {what} in the library; {hint}", name=name)


async def no_version(stores: Stores, id: pb.Reference) -> NotFound:
    """The name has no such version, or nobody has the name."""
    kind = name_of_kind(id.kind)
    there = await versions_of(stores, kind, id.name)
    if not there:
        return await no_name(stores, id.name, kind)
    more, shown = "..., " if len(there) > _SHOWN else "", ", ".join(map(str, there[-_SHOWN:]))
    return NotFound(f"{kind}:{id.name} has no version {id.version}; it has {more}{shown}", name=id.name)


def _nearest(name: str, known: Mapping[str, Sequence[str]], kind: str | None) -> str | None:
    """Of the kind when there is one like it, else of any."""
    if kind is not None and (own := difflib.get_close_matches(name, known[kind], n=1)):
        return own[0]
    kinds = {other: each for each, names in known.items() for other in names}
    near = difflib.get_close_matches(name, kinds, n=1)
    return f"{kinds[near[0]]}:{near[0]}" if near else None
