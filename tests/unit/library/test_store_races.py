"""What happens between two steps of a writer: its lease runs out, the store is silent, somebody deletes, removes or
collects. Every disturbance is put at the step where it hurts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import Conflict, FailedPrecondition, NotFound, Unavailable
from encephalon.library.library import Library
from encephalon.library.store.keys import object_key
from encephalon.library.store.stores import Timing
from encephalon.state import Change, Entry, KeyValue, Unchanged, open_key_value, open_objects
from tests.drafts import brain, network, parent
from tests.dying import Doom, DyingKeyValue
from tests.waiting import until

TIMING = Timing(lease_s=30.0, takeover_s=0.2, forgotten_s=0.0, retry_s=3.0)
Disturbance = Callable[[], Awaitable[object]]


class Disturbed(DyingKeyValue):
    """Does something before or after the next commit that touches a key."""

    def __init__(self, store: KeyValue) -> None:
        self.doom = Doom(0)
        super().__init__(store, self.doom)
        self.before: dict[str, Disturbance] = {}
        self.after: dict[str, Disturbance] = {}

    async def commit(self, changes: Sequence[Change | Unchanged]) -> int:
        await self._disturb(self.before, changes)
        revision = await super().commit(changes)
        await self._disturb(self.after, changes)
        return revision

    async def _disturb(self, disturbances: dict[str, Disturbance], changes: Sequence[Change | Unchanged]) -> None:
        for part in [part for part in disturbances if any(part in change.key for change in changes)]:
            await disturbances.pop(part)()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Disturbed]:
    async with open_key_value(f"sqlite://{tmp_path}/state.db") as key_value:
        yield Disturbed(key_value)


@pytest.fixture
async def library(store: Disturbed, tmp_path: Path) -> AsyncIterator[Library]:
    async with open_objects(f"folder://{tmp_path}/objects") as objects:
        library = Library(store, objects, timing=TIMING)
        yield library
        assert await library.verify() == []


async def let_leases_run_out(library: Library) -> None:
    """As after a long sleep of the machine: the writers' keys are gone, and the writers do not know."""
    async for entry in library.key_value.list(library.stores.keys.writers):
        await library.key_value.delete(entry.key)


async def test_a_writer_that_was_taken_for_dead_begins_again(library: Library, store: Disturbed) -> None:
    async with library.writing("test") as writer:
        weights = await writer.put_bytes(b"weights")
        store.before["network/digits"] = lambda: let_leases_run_out(library)
        assert (await writer.commit(network(weights=weights))).id.version == 1
        store.before["network/digits"] = lambda: let_leases_run_out(library)
        assert (await writer.commit(network(weights=weights))).id.version == 2
        writers = [entry.key async for entry in store.list(library.stores.keys.writers)]
        assert len(writers) == 1
    assert [entry.key async for entry in store.list(library.stores.keys.writers)] == []


async def test_what_was_collected_meanwhile_is_not_named(library: Library, store: Disturbed) -> None:
    async def collected() -> None:
        await let_leases_run_out(library)
        assert (await library.gc(grace_s=0)).objects == 1

    async with library.writing("test") as writer:
        weights = await writer.put_bytes(b"weights")
        store.before["network/digits"] = collected
        with pytest.raises(FailedPrecondition, match="not in the library; put its bytes first"):
            await writer.commit(network(weights=weights))
        await writer.put_bytes(b"weights")
        assert (await writer.commit(network(weights=weights))).id.version == 1


async def test_bytes_collected_while_they_are_uploaded_are_uploaded_again(library: Library) -> None:
    put, uploads = library.objects.put, 0

    async def slow_put(key: str, source: bytes) -> object:
        nonlocal uploads
        uploads += 1
        if uploads == 1:
            await let_leases_run_out(library)
            await library.gc(grace_s=0)
        return await put(key, source)

    library.objects.put = slow_put  # type: ignore[method-assign,assignment]
    added = await add_weights(library)
    assert uploads == 2
    assert await library.read(added.network.weights) == b"weights"


async def test_a_writer_taken_for_dead_does_not_speak_for_who_brings_the_bytes_next(
    library: Library, store: Disturbed
) -> None:
    put, stat, uploads = library.objects.put, library.objects.stat, 0

    async def counted_put(key: str, source: bytes) -> object:
        nonlocal uploads
        uploads += 1
        return await put(key, source)

    async def stat_and_sleep(key: str) -> object:
        info = await stat(key)
        if uploads == 1:
            await let_leases_run_out(library)
            assert (await library.gc(grace_s=0)).objects == 1
            begun = pb.StoredObject(state=pb.StoredObject.STATE_KEPT, size=7, writer="another")
            await store.put(library.stores.keys.object(key.rpartition("/")[2]), begun.SerializeToString())
        return info

    library.objects.put = counted_put  # type: ignore[method-assign,assignment]
    library.objects.stat = stat_and_sleep  # type: ignore[method-assign,assignment]
    added = await add_weights(library)
    assert uploads == 2
    assert await library.read(added.network.weights) == b"weights"


@pytest.mark.parametrize("fails", [False, True])
async def test_bytes_that_somebody_brings_are_waited_for(library: Library, store: Disturbed, fails: bool) -> None:
    """Or brought, when that writer ends without them."""
    put, uploads = library.objects.put, 0
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow_put(key: str, source: bytes) -> object:
        nonlocal uploads
        uploads += 1
        begun.set()
        await go_on.wait()
        if fails and uploads == 1:
            raise Unavailable("the network is gone")
        return await put(key, source)

    library.objects.put = slow_put  # type: ignore[method-assign,assignment]
    first = asyncio.create_task(add_weights(library))
    await begun.wait()
    second = asyncio.create_task(add_weights(library))
    before = store.doom.calls
    await until(lambda: store.doom.calls > before + 8, what="the second looks again and again")
    assert uploads == 1
    go_on.set()
    assert (await asyncio.gather(first, return_exceptions=True))[0] is not None
    assert await library.read((await second).network.weights) == b"weights"
    assert uploads == (2 if fails else 1)


async def test_what_the_store_loses_though_it_confirmed_it_is_put_again(library: Library) -> None:
    put, uploads = library.objects.put, 0

    async def put_and_lose(key: str, source: bytes) -> object:
        nonlocal uploads
        uploads += 1
        info = await put(key, source)
        if uploads < 3:
            await library.objects.delete(key)
        return info

    library.objects.put = put_and_lose  # type: ignore[method-assign,assignment]
    added = await add_weights(library)
    assert uploads == 3
    assert await library.read(added.network.weights) == b"weights"


async def test_what_a_writer_held_in_an_earlier_life_is_not_named(library: Library, store: Disturbed) -> None:
    """Two things are done by one writer at once; it begins again for one of them, amid the other."""
    head, get = library.stores.keys.head("network", "digits"), store.get
    async with library.writing("test") as writer:
        weights = await writer.put_bytes(b"weights")

        async def get_slowly(key: str) -> Entry | None:
            if key == head:
                store.get = get  # type: ignore[method-assign]
                await let_leases_run_out(library)
                assert (await library.gc(grace_s=0)).objects == 1
                await writer.commit(network("another"))
            return await get(key)

        store.get = get_slowly  # type: ignore[method-assign]
        with pytest.raises(FailedPrecondition, match="not in the library; put its bytes first"):
            await writer.commit(network(weights=weights))


async def add_weights(library: Library) -> pb.Record:
    async with library.writing("test") as writer:
        return await writer.commit(network(weights=await writer.put_bytes(b"weights")))


async def test_a_commit_of_which_nothing_was_heard_is_not_done_twice(library: Library, store: Disturbed) -> None:
    async def silence() -> None:
        raise Unavailable("the store does not answer")

    store.after["network/digits"] = silence  # it was done
    assert (await library.add(network())).id.version == 1
    store.before["network/digits"] = silence  # it was not
    assert (await library.add(network())).id.version == 2
    assert await library.versions("network", "digits") == [1, 2]

    async def late() -> None:
        store.before["network/digits"] = silence
        await library.add(network(text="another writer's"))

    store.before["network/digits"] = late
    assert (await library.add(network(text="mine"))).id.version == 4
    assert (await library.show("digits@3")).description == "another writer's"


async def test_a_move_of_which_nothing_was_heard_is_not_done_twice(library: Library, store: Disturbed) -> None:
    async def silence() -> None:
        raise Unavailable("the store does not answer")

    for _ in range(3):
        await library.add(network(), alias="production")
    store.after["alias/network/digits"] = silence  # it was done
    assert (await library.rollback("digits")).version == 2
    store.before["alias/network/digits"] = silence  # it was not
    assert (await library.rollback("digits")).version == 1
    store.after["alias/network/digits"] = silence
    assert (await library.alias("digits@3", "production", expected=1)).version == 3


async def test_a_silent_store_is_not_asked_for_long(library: Library, store: Disturbed) -> None:
    async with library.writing("test") as writer:
        get, store.get = store.get, silent  # type: ignore[method-assign]
        calls = store.doom.calls
        with pytest.raises(Unavailable):
            await writer.commit(network())
        store.get = get  # type: ignore[method-assign]
        assert store.doom.calls == calls


async def silent(key: str) -> None:
    raise Unavailable("the store does not answer")


async def test_a_writer_waits_for_who_is_deleting(library: Library, store: Disturbed) -> None:
    """A collector has doomed the object: the bytes are not touched before it ends, or is long gone."""
    entry = await doomed(library, store, deleter="collector")
    await store.put(library.stores.keys.writer("collector"), b"")
    adding = asyncio.create_task(add_weights(library))
    before = store.doom.calls
    await until(lambda: store.doom.calls > before + 5, what="the writer looks again and again")
    assert not adding.done()
    await store.delete(entry)
    added = await adding
    assert await library.read(added.network.weights) == b"weights"


async def test_a_writer_takes_over_what_a_dead_collector_left(library: Library, store: Disturbed) -> None:
    await doomed(library, store, deleter="dead")
    began = asyncio.get_running_loop().time()
    added = await add_weights(library)
    assert asyncio.get_running_loop().time() - began >= TIMING.takeover_s
    assert await library.read(added.network.weights) == b"weights"


async def test_a_collector_takes_over_what_a_dead_one_left(library: Library, store: Disturbed) -> None:
    entry = await doomed(library, store, deleter="dead")
    patient = Library(store, library.objects, timing=Timing())
    assert (await patient.gc(grace_s=0)).spared == 1
    assert (await library.gc(grace_s=0)).objects == 1
    assert await store.get(entry) is None


async def doomed(library: Library, store: Disturbed, deleter: str) -> str:
    async with library.writing("test") as writer:
        weights = await writer.put_bytes(b"weights")
    entry = library.stores.keys.object(weights.sha256)
    dead = pb.StoredObject(state=pb.StoredObject.STATE_DOOMED, size=weights.size, writer=deleter)
    dead.touched_time.GetCurrentTime()
    await store.put(entry, dead.SerializeToString())
    return entry


async def test_a_collector_that_was_taken_for_dead_deletes_nothing(library: Library, store: Disturbed) -> None:
    async with library.writing("test") as writer:
        weights = await writer.put_bytes(b"weights")
    store.before["object/"] = lambda: let_leases_run_out(library)
    with pytest.raises(Unavailable, match="taken for dead"):
        await library.gc(grace_s=0)
    assert (await library.objects.stat(object_key(weights.sha256))).size == 7
    assert (await library.gc(grace_s=0)).objects == 1


async def test_an_object_that_is_touched_at_the_last_moment_stays(library: Library, store: Disturbed) -> None:
    async with library.writing("test") as writer:
        weights = await writer.put_bytes(b"weights")
    store.before["object/"] = lambda: add_weights(library)
    assert (await library.gc(grace_s=0)).objects == 0
    assert await library.read(weights) == b"weights"


async def test_a_child_that_is_committed_while_its_parent_is_removed(library: Library, store: Disturbed) -> None:
    """Either the removal sees the child, or the child sees that its parent is gone."""
    first = await library.add(network("digits"))
    store.before["brain/child"] = lambda: library.remove("digits")
    with pytest.raises(NotFound, match="there is no network:digits@1"):
        await library.add(brain("child", visual=first.id))
    second = await library.add(network("digits"))
    refused: list[Exception] = []

    async def add_child() -> None:
        with pytest.raises(FailedPrecondition, match="is being removed") as found:
            await library.add(network("child", None, parent(second)))
        refused.append(found.value)

    store.before["network/digits/00000002"] = add_child
    await library.remove("digits@2")
    assert len(refused) == 1


async def test_an_alias_that_is_moved_to_what_is_removed(library: Library, store: Disturbed) -> None:
    await library.add(network())
    await library.add(network())

    async def move() -> None:
        with pytest.raises(FailedPrecondition, match="is being removed"):
            await library.alias("digits@1", "production")

    store.before["network/digits/00000001"] = move
    await library.remove("digits@1")
    store.before["alias/network/digits/production"] = lambda: library.remove("digits@2")
    with pytest.raises(NotFound):
        await library.alias("digits@2", "production")


async def test_a_removal_that_died_hinders_nobody(library: Library, store: Disturbed) -> None:
    added = await library.add(network())

    async def die() -> None:
        raise asyncio.CancelledError

    store.before["network/digits/00000001"] = die
    with contextlib.suppress(asyncio.CancelledError):
        await library.remove("digits@1")
    marked = pb.Summary.FromString((await store.get(library.stores.keys.summary(added.id))).value)  # type: ignore[union-attr]
    assert marked.removing
    await library.add(brain(visual=added.id), alias="production")
    with pytest.raises(FailedPrecondition, match="in use by brain:digits@1"):
        await library.remove("network:digits")


async def test_a_removal_of_which_nothing_was_heard_is_done(library: Library, store: Disturbed) -> None:
    async def silence() -> None:
        raise Unavailable("the store does not answer")

    for disturbances in (store.after, store.before):
        await library.add(network())
        disturbances["head/network/digits"] = silence
        await library.remove("digits")
        with pytest.raises(NotFound):
            await library.remove("digits")


async def test_a_removal_waits_for_no_other(library: Library, store: Disturbed) -> None:
    await library.add(network())

    async def remove_too() -> None:
        with pytest.raises(FailedPrecondition, match="by somebody else"):
            await library.remove("digits@1")

    store.before["network/digits/00000001"] = remove_too
    await library.remove("digits@1")


async def test_a_key_by_another_hand_hinders_a_removal_and_can_be_told(library: Library, store: Disturbed) -> None:
    added = await library.add(network())
    foreign = library.stores.keys.children(added.id) + "some/foreign/key"
    await store.put(foreign, b"")
    with pytest.raises(FailedPrecondition, match="in use by some:foreign@key"):
        await library.remove("digits")
    await store.delete(foreign)
    await library.remove("digits")


async def test_a_head_that_fell_behind_is_led_on(library: Library, store: Disturbed) -> None:
    for _ in range(3):
        await library.add(network())
    await store.put(library.stores.keys.head("network", "digits"), pb.Head(given=1, latest=1).SerializeToString())
    assert (await library.add(network())).id.version == 4
    await store.put(library.stores.keys.head("network", "digits"), b"\xff\xff")
    assert (await library.add(network())).id.version == 5


async def test_too_many_disturbances_end_in_a_conflict(library: Library, store: Disturbed) -> None:
    hasty = Library(store, library.objects, timing=Timing(retry_s=0.5))
    head = library.stores.keys.head("network", "digits")

    async def write_too() -> None:
        await store.put(head, pb.Head().SerializeToString())
        store.before["network/digits"] = write_too

    store.before["network/digits"] = write_too
    with pytest.raises(Conflict):
        await hasty.add(network())
    store.before.clear()
    assert (await hasty.add(network())).id.version == 1
