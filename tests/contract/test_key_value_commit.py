"""Several changes at once: all or nothing, in one revision, on SQLite and on a real etcd."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator

import pytest

from encephalon.core.errors import Conflict, InvalidInput, NotFound, Unavailable
from encephalon.state import ABSENT, Change, Event, EventKind, KeyValue, Unchanged, open_key_value
from tests.faults import faulty
from tests.waiting import until

MIB = 1024 * 1024


async def contents(store: KeyValue, prefix: str) -> dict[str, bytes]:
    return {entry.key.removeprefix(prefix): entry.value async for entry in store.list(prefix)}


async def take(events: AsyncGenerator[Event, None], count: int) -> list[Event]:
    async with asyncio.timeout(10):
        return [await anext(events) for _ in range(count)]


async def test_all_changes_of_a_commit_have_its_revision(store: KeyValue, prefix: str) -> None:
    before = await store.put(prefix + "old", b"0")
    await store.put(prefix + "goes", b"0")
    revision = await store.commit(
        [
            Change(prefix + "new", b"1", ABSENT),
            Change(prefix + "old", b"2", before),
            Change(prefix + "goes", None),
            Change(prefix + "never was", None),
            Unchanged(prefix + "absent", ABSENT),
        ]
    )
    assert revision > before
    assert await contents(store, prefix) == {"new": b"1", "old": b"2"}
    assert {entry.revision async for entry in store.list(prefix)} == {revision}
    assert await store.put(prefix + "later", b"") > revision


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_one_expectation_that_fails_leaves_everything(store: KeyValue, prefix: str, place: int) -> None:
    revision = await store.put(prefix + "a", b"1")
    items: list[Change | Unchanged] = [
        Change(prefix + "b", b"new", ABSENT),
        Change(prefix + "a", None, revision),
        Change(prefix + "c", b"new"),
    ]
    failing = [Change(prefix + "x", b"", revision), Unchanged(prefix + "x", revision), Change(prefix + "x", None, 1)]
    items.insert(place, failing[place])
    with pytest.raises(Conflict) as caught:
        await store.commit([*items, Unchanged(prefix + "y", 77)])
    expected = "1" if place == 2 else str(revision)
    assert caught.value.details == {"key": prefix + "x", "expected": expected, "found": str(ABSENT)}
    assert await contents(store, prefix) == {"a": b"1"}


async def test_a_conflict_tells_what_was_found(store: KeyValue, prefix: str) -> None:
    revision = await store.put(prefix + "a", b"1")
    for item in (Change(prefix + "a", b"2", ABSENT), Unchanged(prefix + "a", ABSENT), Change(prefix + "a", None, 1)):
        with pytest.raises(Conflict) as caught:
            await store.commit([item])
        assert caught.value.details["found"] == str(revision)


async def test_conditions_alone_and_deletes_of_nothing_change_nothing(store: KeyValue, prefix: str) -> None:
    revision = await store.put(prefix + "a", b"1")
    assert await store.commit([Unchanged(prefix + "a", revision), Unchanged(prefix + "b", ABSENT)]) >= revision
    assert await store.commit([Change(prefix + "b", None, ABSENT), Change(prefix + "c", None)]) >= revision
    with pytest.raises(Conflict):
        await store.commit([Unchanged(prefix + "a", revision - 1)])
    async with contextlib.aclosing(store.watch(prefix, revision)) as events:
        await store.put(prefix + "end", b"")
        assert [event.key for event in await take(events, 2)] == [prefix + "a", prefix + "end"]


async def test_a_commit_puts_under_leases_and_takes_keys_from_them(store: KeyValue, prefix: str) -> None:
    one, two = await store.lease(60), await store.lease(60)
    await store.put(prefix + "freed", b"", lease=one)
    await store.commit(
        [
            Change(prefix + "one", b"", lease=one),
            Change(prefix + "two", b"", lease=two),
            Change(prefix + "freed", b""),
        ]
    )
    await one.revoke()
    assert set(await contents(store, prefix)) == {"two", "freed"}
    revision = await store.put(prefix + "kept", b"", lease=two)
    with pytest.raises(NotFound, match="lease"):
        await store.commit(
            [
                Unchanged(prefix + "kept", revision),
                Change(prefix + "two", b"changed", lease=two),
                Change(prefix + "one", b"", lease=one),
            ]
        )
    assert await contents(store, prefix) == {"two": b"", "freed": b"", "kept": b""}
    assert not two.lost.is_set()


async def test_a_lease_that_has_run_out_is_told_so(store: KeyValue, prefix: str) -> None:
    kept, lost = await store.lease(60), await store.lease(1)
    await store.put(prefix + "a", b"", lease=lost)

    async def gone() -> bool:
        return await store.get(prefix + "a") is None

    await until(gone, within=lost.ttl_seconds + 3)
    with pytest.raises(NotFound):
        await store.commit([Change(prefix + "b", b"", lease=kept), Change(prefix + "c", b"", lease=lost)])
    assert lost.lost.is_set()
    assert not kept.lost.is_set()


async def test_a_watch_tells_the_changes_of_a_commit_in_their_order(store: KeyValue, prefix: str) -> None:
    await store.put(prefix + "m", b"0")
    async with contextlib.aclosing(store.watch(prefix)) as events:
        await take(events, 2)
        revision = await store.commit(
            [
                Change(prefix + "z", b"1"),
                Change(prefix + "m", None),
                Change(prefix + "a", b"2"),
                Change("/elsewhere" + prefix, b""),
                Change(prefix + "k", b"3"),
            ]
        )
        told = await take(events, 4)
    assert [(event.kind, event.key.removeprefix(prefix), event.revision) for event in told] == [
        (EventKind.PUT, "z", revision),
        (EventKind.DELETE, "m", revision),
        (EventKind.PUT, "a", revision),
        (EventKind.PUT, "k", revision),
    ]
    async with contextlib.aclosing(store.watch(prefix, revision)) as events:
        assert await take(events, 4) == told


async def test_a_watch_that_catches_up_loses_nothing_of_large_commits(store: KeyValue, prefix: str) -> None:
    # The batches in which a watch catches up end within a commit.
    first = await store.put(prefix + "first", b"")
    for number in range(21):
        await store.commit([Change(f"{prefix}{item:02}", b"%d" % number) for item in range(97)])
    async with contextlib.aclosing(store.watch(prefix, first + 1)) as events:
        told = await take(events, 21 * 97)
    assert [(event.key[-2:], int(event.value)) for event in told] == [
        (f"{item:02}", number) for number in range(21) for item in range(97)
    ]


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([], "at least one"),
        ([Change("a", b""), Unchanged("a", 1)], "twice"),
        ([Change("a", b""), Change("a", None)], "twice"),
        ([Change(f"{number}", b"") for number in range(101)], "at most 100"),
        ([Change("", b"")], "empty"),
        ([Unchanged("k" * 5000, 1)], "at most 4096"),
        ([Change("\ud800", None)], "Unicode"),
        ([Change("a", bytes(MIB)), Change("b", b"1")], f"at most {MIB}"),
        ([Unchanged("k" * 4000 + f"{number}", 1) for number in range(33)], "at most 131072"),
    ],
)
async def test_what_a_commit_cannot_hold_is_refused(
    store: KeyValue, items: list[Change | Unchanged], reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        await store.commit(items)


async def test_a_commit_of_all_that_is_allowed_fits(store: KeyValue, prefix: str) -> None:
    keys = [prefix + f"{number:03}" + "k" * (1310 - len(prefix) - 3) for number in range(100)]
    for expected in (ABSENT, 0):
        revision = await store.commit([Change(key, bytes(MIB // 100), expected) for key in keys])
        with pytest.raises(Conflict):
            await store.commit([Change(key, bytes(MIB // 100), ABSENT) for key in keys])
        await store.commit([Change(key, None, revision) for key in keys])
    assert await contents(store, prefix) == {}


async def transfer(store: KeyValue, prefix: str, times: int, start: int) -> None:
    """Moves ones around between ten accounts, whose sum must stay."""
    for step in range(times):
        source, target = (start + step) % 10, (start + 3 * step + 1) % 10
        while source != target:
            entries = [await store.get(f"{prefix}{number}") for number in (source, target)]
            held = [(int(entry.value), entry.revision) if entry else (0, ABSENT) for entry in entries]
            change = [
                Change(f"{prefix}{number}", b"%d" % (value + more), revision)
                for number, (value, revision), more in zip((source, target), held, (-1, 1), strict=True)
            ]
            with contextlib.suppress(Conflict):
                await store.commit([*change, Change(f"{prefix}done/{start}/{step}", b"", ABSENT)])
                break


_OTHER_PROCESS = """
import asyncio, sys
from encephalon.state import open_key_value
from tests.contract.test_key_value_commit import transfer
async def main(url, prefix, start):
    async with open_key_value(url, deadline_s=20) as store:
        await asyncio.gather(*(transfer(store, prefix, 10, int(start) + i) for i in range(6)))
asyncio.run(main(*sys.argv[1:]))
"""


async def test_commits_of_two_processes_are_whole(key_value_url: str, prefix: str) -> None:
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", _OTHER_PROCESS, key_value_url, prefix, str(start))
        for start in (0, 100)
    ]
    async with open_key_value(key_value_url, deadline_s=20) as store:
        assert await asyncio.gather(*(process.wait() for process in processes)) == [0, 0]
        state = await contents(store, prefix)
    accounts = {key: int(value) for key, value in state.items() if "/" not in key}
    moves = [
        (start + step) % 10 != (start + 3 * step + 1) % 10
        for base in (0, 100)
        for start in range(base, base + 6)
        for step in range(10)
    ]
    assert sum(accounts.values()) == 0
    assert len(state) - len(accounts) == sum(moves)


async def test_a_commit_without_an_answer_is_done_as_a_whole_or_not_at_all(etcd_url: str, prefix: str) -> None:
    async with (
        faulty(etcd_url.removeprefix("etcd://")) as line,
        open_key_value(etcd_url) as other,
        open_key_value(f"etcd://{line.address}", deadline_s=0.5) as store,
    ):
        seen = set()
        for number in range(6):
            name = f"{prefix}{number}/"
            cutting = asyncio.ensure_future(_cut_soon(line.cut, number))
            try:
                await store.commit([Change(f"{name}{item}", bytes(5000), ABSENT) for item in range(100)])
                answered = True
            except Unavailable:
                answered = False
            await cutting
            found = len(await contents(other, name))
            assert found in ({100} if answered else {0, 100})
            seen.add(found)
            await line.mend()
        assert seen


async def _cut_soon(cut: object, turns: int) -> None:
    for _ in range(turns * 3):
        await asyncio.sleep(0)
    await cut()  # type: ignore[operator]


@pytest.mark.parametrize("page", [1, 7, 1000])
async def test_pages_hold_each_entry_once_and_begin_behind_a_key(store: KeyValue, prefix: str, page: int) -> None:
    names = [f"{prefix}{number:02}" for number in range(23)]
    await store.commit([Change(name, b"v") for name in names])
    await store.commit([Change(prefix[:-1], b""), Change(prefix[:-1] + "0", b"")])

    async def paged(after: str = "") -> list[str]:
        pages = [entries async for entries in store.pages(prefix, page=page, after=after)]
        assert all(1 <= len(entries) <= page for entries in pages)
        return [entry.key for entries in pages for entry in entries]

    assert await paged() == names
    assert await paged(names[4]) == names[5:]
    assert await paged(names[4] + "x") == names[5:]
    assert await paged(prefix) == names
    assert await paged("/") == await paged("\x00") == names
    assert await paged(names[-1]) == await paged("\U0010ffff") == []


async def test_pages_of_large_values_fit(store: KeyValue, prefix: str) -> None:
    for number in range(40):
        await store.put(f"{prefix}{number:02}", bytes(MIB))
    sizes = [len(entry.value) async for page in store.pages(prefix, page=5000) for entry in page]
    assert sizes == [MIB] * 40
