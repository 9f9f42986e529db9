"""What a shell may offer behind what was typed: kinds, names, versions and aliases, read from the library.

A completion has no place to say what is wrong: a store that is away has nothing to offer. It reads only, and makes
neither a folder nor a library.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, TypeVar

import typer

if TYPE_CHECKING:
    from encephalon.cli.library.place import Place
    from encephalon.state import KeyValue

__all__ = [
    "complete_brain",
    "complete_data_set",
    "complete_kind",
    "complete_network",
    "complete_optimizer",
    "complete_reference",
    "complete_run",
    "complete_schedule",
    "words_as_typed",
]

KINDS = ("area", "network", "data_set", "scene", "brain", "run")  # of `records.KINDS`, which costs an import
MODE, BEFORE = "_ENCEPHALON_COMPLETE", "_ENCEPHALON_COMPLETE_BEFORE"
DEADLINE_S = 0.25  # a person waits with the finger on the key
MOST = 100
BREAKS = "@:="  # bash takes these for the ends of words (COMP_WORDBREAKS)
Offer = tuple[str, str]
T = TypeVar("T")


def complete_kind(incomplete: str) -> list[str]:
    return [kind for kind in KINDS if kind.startswith(incomplete)]


def complete_reference(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """`di` becomes `digits`, `digits@p` becomes `digits@production`; the help is the record's kind."""
    return offered(ctx.params, KINDS, incomplete)


def complete_brain(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """The same where only a brain can be meant."""
    return offered(ctx.params, ("brain",), incomplete)


def complete_network(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """The same where only a network can be meant."""
    return offered(ctx.params, ("network",), incomplete)


def complete_data_set(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """The same where only a data set can be meant."""
    return offered(ctx.params, ("data_set",), incomplete)


def complete_run(ctx: typer.Context, incomplete: str) -> list[str]:
    """Training runs, which are in the store before the library knows of them."""
    return asked(ctx.params, lambda place: runs(place, incomplete)) or []


def complete_optimizer(incomplete: str) -> list[str]:
    from encephalon.learning.optimizers import ELEMENTWISE, WHOLE

    return sorted(name for name in ELEMENTWISE | WHOLE if name.lower().startswith(incomplete.lower()))


def complete_schedule(incomplete: str) -> list[str]:
    from encephalon.learning.optimizers import SCHEDULES

    return sorted(name for name in {"cosine", *SCHEDULES} if name.lower().startswith(incomplete.lower()))


def offered(given: Mapping[str, Any], kinds: Iterable[str], incomplete: str) -> list[Offer]:
    before = os.environ.get(BEFORE, "")
    found = asked(given, lambda place: look(place, list(kinds), before + incomplete)) or []
    kinds_of: dict[str, str] = {}  # a name may be in several kinds, and is offered once
    for text, kind in found:
        if text.startswith(before + incomplete):
            text = text.removeprefix(before)
            kinds_of[text] = f"{kinds_of[text]}, {kind}" if text in kinds_of else kind
    return list(kinds_of.items())[:MOST]


def asked(given: Mapping[str, Any], look: Callable[[Place], Coroutine[Any, Any, T]]) -> T | None:
    """What the store says; None when it says nothing."""
    from encephalon.cli.library.place import Place
    from encephalon.core import logs
    from encephalon.core.errors import EncephalonError

    logs.configure(level="CRITICAL")
    place = Place(*(given.get(name) for name in ("state_dir", "etcd", "minio", "namespace")))
    try:
        return asyncio.run(look(place))
    except (EncephalonError, OSError, TimeoutError):
        return None


async def runs(place: Place, incomplete: str) -> list[str]:
    from encephalon.local.training.kept import Runs
    from encephalon.state import open_key_value

    if not place.etcd and not (place.folder / "state.db").is_file():
        return []
    async with asyncio.timeout(DEADLINE_S), open_key_value(place.state, deadline_s=DEADLINE_S) as store:
        names = await Runs(store, place.namespace or "default").names()
    return [name for name in names if name.startswith(incomplete)][:MOST]


async def look(place: Place, kinds: list[str], incomplete: str) -> list[Offer]:
    from encephalon.library.store.keys import Keys
    from encephalon.state import open_key_value

    if not place.etcd and not (place.folder / "state.db").is_file():
        return []
    before, colon, rest = incomplete.rpartition(":")
    wanted = [kind for kind in kinds if kind == before] if colon else kinds
    async with asyncio.timeout(DEADLINE_S), open_key_value(place.state, deadline_s=DEADLINE_S) as store:
        keys = Keys(place.namespace or "default")
        name, at, _ = rest.partition("@")
        searches = [(selectors if at else names)(store, keys, kind, name) for kind in wanted]
        found = zip(wanted, [await search for search in searches], strict=True)
    return [(f"{before}{colon}{text}", kind) for kind, texts in found for text in texts]


async def names(store: KeyValue, keys: Any, kind: str, beginning: str) -> list[str]:
    from encephalon.library.store.keys import segment

    async for page in store.pages(keys.heads(kind) + segment(beginning), page=MOST):
        return [keys.parts(entry.key)[-1] for entry in page]
    return []


async def selectors(store: KeyValue, keys: Any, kind: str, name: str) -> list[str]:
    """Aliases, then the versions, the newest first."""
    if await store.get(keys.head(kind, name)) is None:
        return []
    aliases = [keys.parts(entry.key)[-1] async for entry in store.list(keys.aliases(kind, name))]
    versions = [int(keys.parts(entry.key)[-1]) async for entry in store.list(keys.summaries(kind, name))]
    return [f"{name}@{selector}" for selector in ("latest", *aliases, *sorted(versions, reverse=True))]


def words_as_typed(environment: MutableMapping[str, str]) -> None:
    """Bash tells `digits@pr` as three words, and replaces only the last with what it is offered.

    The words are put together again where it says what is to be completed; what lies before the piece that is replaced
    is kept beside them.
    """
    if environment.get(MODE) != "complete_bash":
        return
    between = "\n" if "\n" in environment["COMP_WORDS"] else " "  # typer's script sets IFS to a line break
    joined, at, beginning = together(environment["COMP_WORDS"].split(between), int(environment["COMP_CWORD"]))
    if not joined[at].startswith("-"):
        joined[at] = joined[at].removeprefix(beginning)
        environment[BEFORE] = beginning
    environment["COMP_WORDS"], environment["COMP_CWORD"] = between.join(joined), str(at)


def together(words: list[str], cursor: int) -> tuple[list[str], int, str]:
    """The words as they were typed, which of them is to be completed, and what it begins with up to the last break."""
    joined: list[str] = []
    at, beginning = 0, ""
    for number, word in enumerate([*words, ""][: max(len(words), cursor + 1)]):
        glued = number > 1 and bool(word) and (word in BREAKS or joined[-1][-1:] in BREAKS)
        if number == cursor:
            beginning = (joined[-1] if glued else "") + (word if word in BREAKS else "")
        joined[len(joined) - glued :] = [joined[-1] + word if glued else word]
        at = len(joined) - 1 if number == cursor else at
    return joined, at, beginning
