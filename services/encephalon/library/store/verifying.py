"""Finds what is wrong in a library, and only that: beside writers it looks again before it says so.

What it finds damaged it enters as such and changes nothing else: who puts those bytes again then has them written,
where else the store's word that it has them would be taken for it.
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import Final

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import Conflict, Corrupt, NotFound
from encephalon.library.records.reference import Reference
from encephalon.library.store.consistency import Consistency, Problem
from encephalon.library.store.entries import bytes_of, message_or_none
from encephalon.library.store.keys import object_key
from encephalon.library.store.progress import Counted
from encephalon.library.store.stores import Stores
from encephalon.state import Entry

__all__ = ["verify"]

_LOOKS: Final = 4


async def verify(stores: Stores, *, quick: bool, progress: Counted) -> list[Problem]:
    """All problems, in the order of what they concern; unless `quick`, every object that a record names is read.

    `progress` counts bytes. Raises Unavailable.
    """
    look = Consistency(stores)
    await look.look()
    problems = set(look.problems)
    for _ in range(_LOOKS - 1):
        if not problems:
            break
        # What a writer was about to do is done in the next look, or is another problem.
        again = Consistency(stores)
        await again.look()
        problems &= set(again.problems)
    if not quick:
        problems |= await _read_all(stores, look, {problem.subject for problem in problems}, progress)
    return sorted(problems, key=lambda problem: (problem.what, problem.subject, problem.sentence))


async def _read_all(stores: Stores, look: Consistency, known: set[str], progress: Counted) -> set[Problem]:
    problems: set[Problem] = set()
    wanted = sorted(look.needed.keys() & look.sizes.keys() - known)
    done, total = 0, sum(look.sizes[sha256] for sha256 in wanted)
    for sha256 in wanted:
        progress(done, total)
        entry = await stores.key_value.get(stores.keys.object(sha256))
        problem, sure = None, False
        for _ in range(_LOOKS):
            problem, sure = await _read(stores, sha256, look.needed[sha256])
            if problem is None:
                break
        if problem is not None and await _is_there(stores, look.needed[sha256]):
            problems.add(problem)
            if sure:
                await _enter_as_damaged(stores, entry)
        done += look.sizes[sha256]
    progress(total, total)
    return problems


async def _read(stores: Stores, sha256: str, user: str) -> tuple[Problem | None, bool]:
    """What is wrong with its bytes, and whether it is that: a read can be cut off by the network as well."""
    digest = hashlib.sha256()
    try:
        async for chunk in stores.objects.get(object_key(sha256)):
            digest.update(chunk)
    except NotFound:
        return Problem("object", sha256, f"{user} names it, and its bytes are missing; put it again"), True
    except Conflict as error:
        return Problem("object", sha256, f"{user} names it, and it cannot be read ({error})"), False
    except Corrupt as error:
        return Problem("object", sha256, f"{user} names it, and it is damaged ({error}); put it again"), True
    if digest.hexdigest() != sha256:
        found = f"its bytes give {digest.hexdigest()}"
        return Problem("object", sha256, f"{user} names it, and {found}; put it again"), True
    return None, False


async def _enter_as_damaged(stores: Stores, entry: Entry | None) -> None:
    """Unless somebody has touched it since it was read."""
    found = message_or_none(pb.StoredObject, entry)
    if entry is not None and found is not None and found.state == pb.StoredObject.STATE_KEPT:
        found.complete = False
        with contextlib.suppress(Conflict):
            await stores.key_value.put(entry.key, bytes_of(found), expected=entry.revision)


async def _is_there(stores: Stores, user: str) -> bool:
    """A record that was removed since may have lost its objects."""
    return await stores.key_value.get(stores.keys.record(Reference.parse(user).message)) is not None
