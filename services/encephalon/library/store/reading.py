"""Finds records by what people write: a name, perhaps with its kind, a version or an alias."""

from __future__ import annotations

import asyncio

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import InvalidInput
from encephalon.library.records.kinds import KINDS, kind_named
from encephalon.library.records.reference import LATEST, Reference, check_name
from encephalon.library.store.aliases import no_alias, read_alias
from encephalon.library.store.entries import record_in
from encephalon.library.store.heads import names_of, read_head, versions_of
from encephalon.library.store.stores import Stores
from encephalon.library.store.suggestions import no_name, no_version

__all__ = ["kind_of", "located", "named", "names", "resolve", "show", "versions"]


async def show(stores: Stores, reference: str | Reference, kind: str | None = None) -> pb.Record:
    """Raises NotFound with the nearest name, InvalidInput, and Corrupt for a damaged record."""
    id = (await located(stores, reference, kind)).message
    entry = await stores.key_value.get(stores.keys.record(id))
    if entry is None:
        raise await no_version(stores, id)
    return record_in(stores.keys, entry)


async def resolve(stores: Stores, reference: str | Reference, kind: str | None = None) -> Reference:
    """With kind and number, of a record that is there. Raises as `show`."""
    found = await located(stores, reference, kind)
    if await stores.key_value.get(stores.keys.summary(found.message)) is None:
        raise await no_version(stores, found.message)
    return found


async def located(stores: Stores, reference: str | Reference, kind: str | None = None) -> Reference:
    """With kind and number; a number that was given is taken as it is."""
    wanted = _parsed(reference, kind)
    found = wanted.kind or await kind_of(stores, wanted.name)
    return Reference(wanted.name, await _version(stores, found, wanted), found)


def _parsed(reference: str | Reference, kind: str | None) -> Reference:
    found = Reference.parse(reference) if isinstance(reference, str) else reference
    check_name(found.name)
    wanted = kind_named(kind) if kind is not None else None
    known = kind_named(found.kind) if found.kind is not None else wanted
    if wanted not in (None, known):
        raise InvalidInput(f"'{found}' is of the kind {known}, expected was {wanted}; name one of those")
    return Reference(found.name, found.selector, known)


async def kind_of(stores: Stores, name: str) -> str:
    """The only kind that has the name. NotFound when none has, InvalidInput when several have."""
    heads = await asyncio.gather(*(read_head(stores, kind, name) for kind in KINDS))
    kinds = [head.kind for head in heads if head.latest]
    if not kinds:
        raise await no_name(stores, name)
    if len(kinds) > 1:
        written = " or ".join(f"{kind}:{name}" for kind in kinds)
        raise InvalidInput(f"'{name}' is the name of several; write {written}", name=name)
    return kinds[0]


async def named(stores: Stores, reference: str | Reference, kind: str | None = None) -> tuple[str, str]:
    """Kind and name alone, of a name that somebody has; what stands behind the @ is not looked at. Raises as `show`."""
    wanted = _parsed(reference, kind)
    return wanted.kind or await kind_of(stores, wanted.name), wanted.name


async def names(stores: Stores, kind: str) -> list[str]:
    """Of all records of a kind, in order."""
    return sorted(await names_of(stores, kind))


async def versions(stores: Stores, kind: str, name: str) -> list[int]:
    """In order. Raises NotFound for a name that no record has."""
    found = await versions_of(stores, kind, check_name(name))
    if not found:
        raise await no_name(stores, name, kind)
    return found


async def _version(stores: Stores, kind: str, wanted: Reference) -> int:
    if isinstance(wanted.selector, int):
        return wanted.selector
    latest = (await read_head(stores, kind, wanted.name)).latest
    if not latest:
        raise await no_name(stores, wanted.name, kind)
    if wanted.selector == LATEST:
        return latest
    alias = await read_alias(stores, kind, wanted.name, wanted.selector)
    if alias is None:
        raise await no_alias(stores, kind, wanted.name, wanted.selector)
    return alias.version
