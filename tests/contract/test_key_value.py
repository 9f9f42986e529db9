"""What every KeyValue must do, on SQLite and on a real etcd."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from encephalon.core.errors import Conflict, FailedPrecondition, InvalidInput, NotFound, Unavailable
from encephalon.state import ABSENT, Entry, Event, EventKind, KeyValue, open_key_value
from tests.waiting import until

ODD_KEYS = [
    "ключ",
    "鍵/値",
    "a b",
    "100%",
    "..",
    "../..",
    ".hidden",
    "slash/",
    "//",
    "a\x00b",
    "emoji 🧠",
    "k" * 3000,
    "\n",
    "*?[",
]


@contextlib.asynccontextmanager
async def watching(
    store: KeyValue, prefix: str, from_revision: int | None = None
) -> AsyncIterator[AsyncGenerator[Event, None]]:
    async with contextlib.aclosing(store.watch(prefix, from_revision)) as events:
        yield events


async def take(events: AsyncGenerator[Event, None], count: int, within: float = 10.0) -> list[Event]:
    async with asyncio.timeout(within):
        return [await anext(events) for _ in range(count)]


def told(events: list[Event]) -> list[tuple[EventKind, str, bytes]]:
    return [(event.kind, event.key, event.value) for event in events]


async def keys(store: KeyValue, prefix: str, page: int = 1000) -> list[str]:
    return [entry.key async for entry in store.list(prefix, page=page)]


async def test_what_is_put_is_got(store: KeyValue, prefix: str) -> None:
    assert await store.get(prefix + "a") is None
    first = await store.put(prefix + "a", b"\x00\xff")
    second = await store.put(prefix + "a", b"")
    assert second > first
    assert await store.get(prefix + "a") == Entry(prefix + "a", b"", second)


@pytest.mark.parametrize("key", ODD_KEYS)
async def test_odd_keys_are_kept_as_they_are(store: KeyValue, prefix: str, key: str) -> None:
    await store.put(prefix + key, key.encode())
    assert await store.get(prefix + key) is not None
    assert [(entry.key, entry.value) async for entry in store.list(prefix)] == [(prefix + key, key.encode())]
    assert await store.delete(prefix + key)


@pytest.mark.parametrize("key", ["", "\ud800", "k" * 5000])
async def test_keys_that_cannot_be_are_refused(store: KeyValue, key: str) -> None:
    for attempt in (store.get(key), store.put(key, b""), store.delete(key)):
        with pytest.raises(InvalidInput):
            await attempt


async def test_a_value_of_one_mebibyte_fits_and_one_more_byte_does_not(store: KeyValue, prefix: str) -> None:
    await store.put(prefix + "large", bytes(1024 * 1024))
    with pytest.raises(InvalidInput, match="objects"):
        await store.put(prefix + "large", bytes(1024 * 1024 + 1))


async def test_a_list_has_the_prefix_only_and_the_order_of_bytes(store: KeyValue, prefix: str) -> None:
    names = ["b", "a", "a/b", "aé", "a\x7f", "Z"]
    for name in [*names, "\xff"]:
        await store.put(prefix + name, b"")
    await store.put(prefix[:-1], b"outside")
    await store.put(prefix[:-1] + "0", b"outside")
    expected = sorted((prefix + name for name in [*names, "\xff"]), key=str.encode)
    assert await keys(store, prefix) == expected
    assert await keys(store, prefix + "a") == [key for key in expected if key.startswith(prefix + "a")]
    assert await keys(store, prefix + "nothing") == []
    assert set(expected) <= set(await keys(store, ""))


@pytest.mark.parametrize("page", [1000, 7])
async def test_pages_neither_lose_nor_repeat(store: KeyValue, prefix: str, page: int) -> None:
    count = 2_345 if page == 1000 else 50
    gate = asyncio.Semaphore(50)

    async def put(number: int) -> None:
        async with gate:
            await store.put(f"{prefix}{number:05}", b"v")

    await asyncio.gather(*(put(number) for number in range(count)))
    assert await keys(store, prefix, page) == [f"{prefix}{number:05}" for number in range(count)]


async def test_large_values_are_listed_in_pages_that_fit(store: KeyValue, prefix: str) -> None:
    for number in range(40):
        await store.put(f"{prefix}{number:02}", bytes(1024 * 1024))
    pages = [len(entries) async for entries in store.pages(prefix)]
    assert sum(pages) == 40
    assert max(pages) <= 32  # MiB
    assert [len(entry.value) async for entry in store.list(prefix)] == [1024 * 1024] * 40


async def test_compare_and_put(store: KeyValue, prefix: str) -> None:
    key = prefix + "a"
    revision = await store.put(key, b"1", expected=ABSENT)
    with pytest.raises(Conflict) as caught:
        await store.put(key, b"2", expected=ABSENT)
    assert caught.value.details["found"] == str(revision)
    after = await store.put(key, b"2", expected=revision)
    with pytest.raises(Conflict):
        await store.put(key, b"3", expected=revision)
    with pytest.raises(Conflict):
        await store.delete(key, expected=revision)
    assert await store.get(key) == Entry(key, b"2", after)
    assert await store.delete(key, expected=after)
    with pytest.raises(Conflict):
        await store.delete(key, expected=after)
    assert not await store.delete(key)
    with pytest.raises(Conflict):
        await store.put(key, b"4", expected=after)
    await store.put(key, b"5", expected=ABSENT)


async def increment(store: KeyValue, key: str, times: int) -> None:
    for _ in range(times):
        while True:
            entry = await store.get(key)
            value = int(entry.value) if entry else 0
            try:
                await store.put(key, b"%d" % (value + 1), expected=entry.revision if entry else ABSENT)
                break
            except Conflict:
                continue


_OTHER_PROCESS = """
import asyncio, sys
from encephalon.state import open_key_value
from tests.contract.test_key_value import increment
async def main(url, key):
    async with open_key_value(url, deadline_s=20) as store:
        await asyncio.gather(*(increment(store, key, 10) for _ in range(8)))
asyncio.run(main(*sys.argv[1:]))
"""


async def test_no_update_is_lost_under_contention_of_two_processes(key_value_url: str, prefix: str) -> None:
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", _OTHER_PROCESS, key_value_url, prefix + "n")
        for _ in range(2)
    ]
    assert await asyncio.gather(*(process.wait() for process in processes)) == [0, 0]
    async with open_key_value(key_value_url) as store:
        entry = await store.get(prefix + "n")
    assert entry is not None
    assert int(entry.value) == 2 * 8 * 10


async def test_a_lease_that_is_not_kept_takes_its_keys_along(store: KeyValue, prefix: str) -> None:
    lease = await store.lease(1)
    assert lease.ttl_seconds >= 1
    await store.put(prefix + "leased", b"", lease=lease)
    await store.put(prefix + "other", b"")
    start = asyncio.get_running_loop().time()

    async def gone() -> bool:
        return await store.get(prefix + "leased") is None

    await until(gone, within=lease.ttl_seconds + 3)
    assert asyncio.get_running_loop().time() - start >= 0.9
    assert await keys(store, prefix) == [prefix + "other"]
    with pytest.raises(NotFound):
        await lease.keep()
    assert lease.lost.is_set()
    with pytest.raises(NotFound):
        await store.put(prefix + "leased", b"", lease=lease)


async def test_a_lease_that_is_kept_keeps_its_keys(store: KeyValue, prefix: str) -> None:
    kept, control = await store.lease(1), await store.lease(1)
    await store.put(prefix + "kept", b"", lease=kept)
    await store.put(prefix + "control", b"", lease=control)
    # The neighbour's lease runs out, and runs out once more: by then twice the time of the kept one is over.
    for _ in range(2):

        async def expired() -> bool:
            await kept.keep()
            return await store.get(prefix + "control") is None

        await until(expired, within=6)
        control = await store.lease(1)
        await store.put(prefix + "control", b"", lease=control)
    assert await store.get(prefix + "kept") is not None
    assert not kept.lost.is_set()


async def test_a_revoked_lease_takes_its_keys_along_at_once(store: KeyValue, prefix: str) -> None:
    lease = await store.lease(60)
    await store.put(prefix + "a", b"", lease=lease)
    await store.put(prefix + "b", b"", lease=lease)
    await store.put(prefix + "b", b"no longer leased")
    await lease.revoke()
    assert await keys(store, prefix) == [prefix + "b"]
    await lease.revoke()


async def test_a_watch_tells_what_is_there_and_then_each_change_in_order(store: KeyValue, prefix: str) -> None:
    await store.put(prefix + "old", b"0")
    async with watching(store, prefix) as events:
        assert told(await take(events, 2)) == [
            (EventKind.PUT, prefix + "old", b"0"),
            (EventKind.LISTED, "", b""),
        ]
        await store.put(prefix + "new", b"1")
        await store.put("/elsewhere" + prefix, b"")
        await store.put(prefix + "new", b"2")
        await store.delete(prefix + "old")
        lease = await store.lease(60)
        await store.put(prefix + "leased", b"3", lease=lease)
        await lease.revoke()
        changes = await take(events, 5)
    assert told(changes) == [
        (EventKind.PUT, prefix + "new", b"1"),
        (EventKind.PUT, prefix + "new", b"2"),
        (EventKind.DELETE, prefix + "old", b""),
        (EventKind.PUT, prefix + "leased", b"3"),
        (EventKind.DELETE, prefix + "leased", b""),
    ]
    assert [change.revision for change in changes] == sorted({change.revision for change in changes})


async def test_a_watch_hears_of_a_lease_that_runs_out(store: KeyValue, prefix: str) -> None:
    async with watching(store, prefix) as events:
        await take(events, 1)
        lease = await store.lease(1)
        await store.put(prefix + "leased", b"", lease=lease)
        assert [event.kind for event in await take(events, 2)] == [EventKind.PUT, EventKind.DELETE]


async def test_a_watch_from_a_revision_tells_the_past(store: KeyValue, prefix: str) -> None:
    await store.put(prefix + "a", b"1")
    second = await store.put(prefix + "a", b"2")
    await store.delete(prefix + "a")
    last = await store.put(prefix + "b", b"3")
    async with watching(store, prefix, second) as events:
        assert [event.kind for event in await take(events, 3)] == [EventKind.PUT, EventKind.DELETE, EventKind.PUT]
    async with watching(store, prefix, last + 1) as events:
        await store.put(prefix + "c", b"4")
        assert told(await take(events, 1)) == [(EventKind.PUT, prefix + "c", b"4")]


async def test_a_watch_tells_two_thousand_changes_made_in_a_rush_by_several(key_value_url: str, prefix: str) -> None:
    async with (
        open_key_value(key_value_url) as store,
        open_key_value(key_value_url) as other,
        watching(store, prefix) as events,
    ):
        await take(events, 1)

        async def write(writer: KeyValue, name: str) -> None:
            for number in range(500):
                await writer.put(f"{prefix}{name}", b"%d" % number)

        writing = asyncio.gather(*(write([store, other][i % 2], f"w{i}") for i in range(4)))
        changes = await take(events, 2000, within=40)
        await writing
    for i in range(4):
        assert [int(change.value) for change in changes if change.key.endswith(f"w{i}")] == list(range(500))


async def test_a_watch_from_a_revision_that_is_forgotten_or_to_come_is_refused(store: KeyValue, prefix: str) -> None:
    first = await store.put(prefix + "a", b"1")
    last = await store.put(prefix + "a", b"2")
    await store.compact(last)
    for revision in (first, last + 1000):
        async with watching(store, prefix, revision) as events:
            with pytest.raises(FailedPrecondition):
                await take(events, 1)
    async with watching(store, prefix, last) as events:
        assert told(await take(events, 1)) == [(EventKind.PUT, prefix + "a", b"2")]


async def test_a_compaction_takes_nothing_from_entries_or_a_running_watch(store: KeyValue, prefix: str) -> None:
    async with watching(store, prefix) as events:
        await take(events, 1)
        for number in range(20):
            revision = await store.put(f"{prefix}{number % 5}", b"%d" % number)
            if number % 7 == 0:
                await take(events, 1)
        await store.delete(prefix + "0")
        await store.compact(revision)
        state: dict[str, bytes] = {}

        async def follow() -> None:
            async for event in events:
                if event.kind is EventKind.PUT:
                    state[event.key] = event.value
                elif event.kind is EventKind.DELETE:
                    state.pop(event.key, None)
                if event.key == prefix + "end":
                    return

        await store.put(prefix + "end", b"")
        await asyncio.wait_for(follow(), 10)
        assert state == {entry.key: entry.value async for entry in store.list(prefix)}
    assert len(state) == 5


async def test_closing_is_harmless_twice_and_a_closed_store_says_so(key_value_url: str) -> None:
    store = open_key_value(key_value_url)
    async with store:
        events = store.watch("/x")
        await take(events, 1)
    await store.__aexit__(None, None, None)
    with pytest.raises(Unavailable):
        await store.get("a")
    with pytest.raises(Unavailable):
        await take(events, 1)
