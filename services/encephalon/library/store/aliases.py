"""Aliases: names of versions, moved by compare-and-put. `latest` is none of them; it follows the head."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import Conflict, FailedPrecondition, InvalidInput, NotFound, Unavailable
from encephalon.library.records.kinds import KINDS, name_of_kind
from encephalon.library.records.reference import LATEST, check_alias
from encephalon.library.store.author import author
from encephalon.library.store.entries import bytes_of, message_in, message_or_none
from encephalon.library.store.heads import read_head, versions_of
from encephalon.library.store.liveness import lives
from encephalon.library.store.patience import attempts
from encephalon.library.store.stores import Stores
from encephalon.state import ABSENT, Change, Entry, Unchanged

__all__ = ["aliases_of", "drop", "move", "moved", "no_alias", "read_alias", "rollback"]

MAX_PREVIOUS: Final = 32


async def read_alias(stores: Stores, kind: str, name: str, alias: str) -> pb.Alias | None:
    """Raises Corrupt."""
    entry = await stores.key_value.get(stores.keys.alias(kind, name, alias))
    return message_in(pb.Alias, entry) if entry is not None else None


async def aliases_of(stores: Stores, kind: str, name: str) -> dict[str, pb.Alias]:
    """By alias, `latest` with them when there is a version."""
    found: dict[str, pb.Alias] = {}
    async for entry in stores.key_value.list(stores.keys.aliases(kind, name)):
        if (alias := message_or_none(pb.Alias, entry)) is not None:
            found[stores.keys.parts(entry.key)[-1]] = alias
    if latest := (await read_head(stores, kind, name)).latest:
        found[LATEST] = pb.Alias(version=latest)
    return found


async def move(stores: Stores, id: pb.Reference, alias: str, *, expected: int | None = None) -> pb.Alias:
    """Lets the alias mean this version.

    expected: what it must mean until now, 0 nothing; Conflict when it does not. Raises NotFound when there is no such
    version, InvalidInput.
    """

    async def step() -> tuple[list[Change | Unchanged], pb.Alias]:
        condition = await lives(stores, id)
        change, target = await moved(stores, id, alias, expected=expected)
        return ([change, condition] if change is not None else []), target

    return await _until_moved(stores, name_of_kind(id.kind), id.name, alias, step)


async def moved(
    stores: Stores, id: pb.Reference, alias: str, *, expected: int | None = None
) -> tuple[Change | None, pb.Alias]:
    """The change of a commit that moves the alias, None when it is there already, and what it then says."""
    kind = name_of_kind(id.kind)
    _check_own(alias)
    entry = await stores.key_value.get(stores.keys.alias(kind, id.name, alias))
    found = message_or_none(pb.Alias, entry) or pb.Alias()
    if expected is not None and found.version != expected:
        raise Conflict(
            f"the alias '{alias}' of {kind}:{id.name} was expected to mean {_version(expected)} and means "
            f"{_version(found.version)}; look again before moving it",
            alias=alias,
            expected=expected,
            found=found.version,
        )
    if found.version == id.version:
        return None, found
    previous = [*found.previous, *([found.version] if found.version else [])][-MAX_PREVIOUS:]
    target = _target(id.version, previous)
    return _change(stores, kind, id.name, alias, target, entry), target


async def drop(stores: Stores, kind: str, name: str, alias: str) -> None:
    """Raises NotFound when there is no such alias."""
    _check_own(alias)
    if not await stores.key_value.delete(stores.keys.alias(kind, name, alias)):
        raise await no_alias(stores, kind, name, alias)


async def rollback(stores: Stores, kind: str, name: str, alias: str) -> pb.Alias:
    """Lets the alias mean again what it meant before, of what is still there.

    Raises NotFound when there is no such alias, FailedPrecondition when it never meant anything else.
    """
    _check_own(alias)

    async def step() -> tuple[list[Change | Unchanged], pb.Alias]:
        entry = await stores.key_value.get(stores.keys.alias(kind, name, alias))
        if entry is None:
            raise await no_alias(stores, kind, name, alias)
        found, there = message_in(pb.Alias, entry), set(await versions_of(stores, kind, name))
        before = [version for version in found.previous if version in there and version != found.version]
        if not before:
            raise FailedPrecondition(
                f"'{alias}' of {kind}:{name} means version {found.version} and nothing that is still there before it; "
                f"move it with `library alias {name}@VERSION {alias}`",
                alias=alias,
            )
        target = _target(before[-1], before[:-1])
        id = pb.Reference(kind=KINDS[kind], name=name, version=target.version)
        return [_change(stores, kind, name, alias, target, entry), await lives(stores, id)], target

    return await _until_moved(stores, kind, name, alias, step)


async def no_alias(stores: Stores, kind: str, name: str, alias: str) -> NotFound:
    """The error that suggests the nearest alias."""
    known = sorted(await aliases_of(stores, kind, name))
    near = difflib.get_close_matches(alias, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}" if known else "it has none"
    return NotFound(f"{kind}:{name} has no alias '{alias}'; {hint}", name=name, alias=alias)


async def _until_moved(
    stores: Stores,
    kind: str,
    name: str,
    alias: str,
    step: Callable[[], Awaitable[tuple[list[Change | Unchanged], pb.Alias]]],
) -> pb.Alias:
    """Repeats `step`, which says what to commit and what the alias then says, until nobody disturbs it. A store that is
    silent is asked again only when a commit was tried, to find out whether it was done: a step back is not made twice.
    """
    doubtful: list[pb.Alias] = []
    async for last in attempts(stores.timing.retry_s):
        try:
            if doubtful and (found := await read_alias(stores, kind, name, alias)) in doubtful:
                return found
            changes, target = await step()
        except Unavailable:
            if last or not doubtful:
                raise
            continue
        try:
            if changes:
                await stores.key_value.commit(changes)
        except Conflict:
            if last:
                raise
        except Unavailable:
            if last:
                raise
            doubtful.append(target)
        else:
            return target
    raise Unavailable(f"the alias '{alias}' is moved by too many at once; try later")


def _target(version: int, previous: Sequence[int]) -> pb.Alias:
    target = pb.Alias(version=version, previous=previous, moved_by=author())
    target.moved_time.GetCurrentTime()
    return target


def _change(stores: Stores, kind: str, name: str, alias: str, target: pb.Alias, over: Entry | None) -> Change:
    expected = over.revision if over is not None else ABSENT
    return Change(stores.keys.alias(kind, name, alias), bytes_of(target), expected=expected)


def _check_own(alias: str) -> None:
    if check_alias(alias) == LATEST:
        raise InvalidInput(f"'{LATEST}' follows every new version by itself; choose another alias, as production")


def _version(version: int) -> str:
    return f"version {version}" if version else "nothing"
