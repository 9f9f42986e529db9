"""What the children of the library's tests do, each a job of `tests.forks`."""

from __future__ import annotations

import contextlib
import random
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import encephalon.state.etcd
import encephalon.state.folder
import encephalon.state.sqlite  # noqa: F401
from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import Conflict, FailedPrecondition, NotFound, Unavailable
from encephalon.library.library import Library
from encephalon.library.store.stores import Timing
from encephalon.state import KeyValue, open_key_value, open_objects
from tests.drafts import brain, data_set, network, parent
from tests.dying import Doom, DyingKeyValue, DyingObjects, When

__all__ = ["QUICK", "collect", "contest", "contest_in", "library_at", "remove", "write"]

QUICK = Timing(lease_s=2.0, takeover_s=0.1, forgotten_s=0.0)
"""Who died is waited for two seconds, not a minute."""

PATIENCE_S = 15.0
"""Many processes at once are slow on a small machine, which is not what is tested here."""


@contextlib.asynccontextmanager
async def library_at(
    state: str, objects: str, call: int = 0, when: When = "before", doom: Doom | None = None
) -> AsyncIterator[Library]:
    async with contextlib.AsyncExitStack() as stack:
        key_value = await _opened(stack, state)
        bytes_of = await stack.enter_async_context(open_objects(objects, deadline_s=PATIENCE_S))
        doom = doom or Doom(call, when)
        yield Library(DyingKeyValue(key_value, doom), DyingObjects(bytes_of, doom), timing=QUICK)


async def _opened(stack: contextlib.AsyncExitStack, state: str) -> KeyValue:
    """Opening waits for nothing, and the server is as slow as everything here."""
    for _ in range(20):
        with contextlib.suppress(Unavailable):
            return await stack.enter_async_context(open_key_value(state, deadline_s=PATIENCE_S))
    raise Unavailable(f"{state} does not answer")


async def write(state: str, objects: str, call: int = 0, when: When = "before", doom: Doom | None = None) -> None:
    """Objects of its own, one that all have in common, and one of a few that come and go; three kinds of records."""
    chance = random.Random()
    async with library_at(state, objects, call, when, doom) as library, library.writing("test") as writer:
        own = await writer.put_bytes(chance.randbytes(2000))
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"common" * 1000)
            file.flush()
            common = await writer.put_file(Path(file.name))
        first = await writer.commit(network("digits", own), alias="production")
        second = await writer.commit(network("common", common, parent(first)))
        shards = [await writer.put_bytes(chance.randbytes(100)) for _ in range(2)]
        listed = pb.ShardIndex(shards=[pb.Shard(object=shard, samples=10) for shard in shards])
        index = await writer.put_bytes(listed.SerializeToString())
        await writer.commit(data_set("pictures", index=index))
        await writer.commit(brain("digits", visual=second.id))
        if chance.random() < 0.3:
            passing = await writer.put_bytes(b"passing %d" % chance.randrange(3))
            await writer.commit(network("passing", passing))


async def remove(state: str, objects: str, call: int = 0, when: When = "before") -> None:
    """The latest of the records that come and go."""
    async with library_at(state, objects, call, when) as library:
        with contextlib.suppress(NotFound, FailedPrecondition):
            await library.remove("network:passing")


async def collect(state: str, objects: str, call: int = 0, when: When = "before") -> None:
    async with library_at(state, objects, call, when) as library:
        # One that was so slow that it was taken for dead says so, and has deleted nothing since.
        with contextlib.suppress(Unavailable):
            await library.gc(grace_s=0)


async def contest(state: str, objects: str, me: int, rounds: int) -> None:
    async with library_at(state, objects) as library:
        await contest_in(library, me, rounds)


async def contest_in(library: Library, me: int, rounds: int) -> None:
    """One of many writers of one name and of two aliases: one that anybody moves, one moved from what it means."""
    for turn in range(rounds):
        async with library.writing("test") as writer:
            own = await writer.put_bytes(b"%d %d" % (me, turn))
            added = await writer.commit(network("contested", own, text=f"{me} {turn}"))
        reference = f"contested@{added.id.version}"
        await library.alias(reference, "open")
        while True:
            now = (await library.aliases("network", "contested")).get("guarded", pb.Alias())
            with contextlib.suppress(Conflict):
                await library.alias(reference, "guarded", expected=now.version)
                break
