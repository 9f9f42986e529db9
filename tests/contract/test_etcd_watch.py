"""A watch on etcd through a cut network, a restart, a compaction and lost data. The network is cut by a proxy in
between.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import pytest

from encephalon.core.errors import NotFound, Unavailable
from encephalon.state import Event, EventKind, KeyValue, open_key_value
from tests.faults import faulty
from tests.servers import etcd_server
from tests.waiting import until


async def take(events: AsyncGenerator[Event, None], count: int, within: float = 15.0) -> list[Event]:
    async with asyncio.timeout(within):
        return [await anext(events) for _ in range(count)]


async def established(writer: KeyValue, events: AsyncGenerator[Event, None], prefix: str) -> None:
    """Until the watch's stream is open: only then is a cut an interruption that it must tell of."""
    while (await take(events, 1))[0].kind is not EventKind.LISTED:
        pass
    await writer.put(prefix + "sentinel", b"")
    await take(events, 1)


def told(events: list[Event], prefix: str) -> list[str]:
    return [f"{event.kind.value} {event.key.removeprefix(prefix)} {event.value.decode()}".strip() for event in events]


async def contents(store: KeyValue, prefix: str) -> dict[str, bytes]:
    return {entry.key: entry.value async for entry in store.list(prefix)}


async def test_a_cut_network_hides_no_change(etcd_url: str, prefix: str) -> None:
    async with (
        faulty(etcd_url.removeprefix("etcd://")) as line,
        open_key_value(etcd_url) as writer,
        open_key_value(f"etcd://{line.address}") as store,
        contextlib.aclosing(store.watch(prefix)) as events,
    ):
        await established(writer, events, prefix)
        pending = asyncio.ensure_future(take(events, 4))
        for number in (1, 2, 3):
            await line.cut()
            await writer.put(prefix + "a", b"%d" % number)
            await writer.delete(prefix + "a")
            await writer.put(prefix + "a", b"%d again" % number)
            await line.mend()
            assert told(await pending, prefix) == [
                "resumed",
                f"put a {number}",
                "delete a",
                f"put a {number} again",
            ]
            pending = asyncio.ensure_future(take(events, 4))
        pending.cancel()
        await asyncio.wait([pending])


async def test_a_compaction_during_a_cut_leaves_no_difference(etcd_url: str, prefix: str) -> None:
    async with (
        faulty(etcd_url.removeprefix("etcd://")) as line,
        open_key_value(etcd_url) as writer,
        open_key_value(f"etcd://{line.address}") as store,
        contextlib.aclosing(store.watch(prefix)) as events,
    ):
        for name in ("stays", "changes", "goes", "returns"):
            await writer.put(prefix + name, b"0")
        await established(writer, events, prefix)
        pending = asyncio.ensure_future(anext(events))
        await line.cut()
        await writer.put(prefix + "changes", b"1")
        await writer.delete(prefix + "goes")
        await writer.delete(prefix + "returns")
        await writer.put(prefix + "returns", b"2")
        revision = await writer.put(prefix + "comes", b"3")
        await writer.compact(revision)
        await line.mend()
        seen = [await pending]
        while len([event for event in seen if event.kind is not EventKind.RESUMED]) < 4:
            seen += await take(events, 1)
        assert seen[0].kind is EventKind.RESUMED
        changes = [event for event in seen if event.kind is not EventKind.RESUMED]
        assert sorted(told(changes, prefix)) == ["delete goes", "put changes 1", "put comes 3", "put returns 2"]
        await writer.put(prefix + "later", b"4")
        assert told(await take(events, 1), prefix) == ["put later 4"]


async def test_three_thousand_changes_during_a_cut_come_in_order_even_when_it_is_cut_again(
    etcd_url: str, prefix: str
) -> None:
    # More than a thousand revisions come in several batches; a second cut between them must not lose the rest.
    async with (
        faulty(etcd_url.removeprefix("etcd://")) as line,
        open_key_value(etcd_url) as writer,
        open_key_value(f"etcd://{line.address}") as store,
        contextlib.aclosing(store.watch(prefix)) as events,
    ):
        await established(writer, events, prefix)
        pending = asyncio.ensure_future(anext(events))
        await line.cut()
        for _ in range(30):
            await asyncio.gather(*(writer.put(prefix + "n", b"") for _ in range(100)))
        last = await writer.put(prefix + "end", b"")
        await line.mend()
        assert (await pending).kind is EventKind.RESUMED
        revisions: list[int] = []
        cuts = 0
        while not revisions or revisions[-1] != last:
            (event,) = await take(events, 1)
            if event.kind is EventKind.PUT:
                revisions.append(event.revision)
            if len(revisions) // 700 > cuts:
                cuts += 1
                await line.cut()
                await line.mend()
        assert cuts == 4
        assert len(revisions) == len(set(revisions)) == 3_001
        assert revisions == sorted(revisions)


async def test_a_stalled_network_is_noticed(etcd_url: str, prefix: str) -> None:
    async with (
        faulty(etcd_url.removeprefix("etcd://")) as line,
        open_key_value(f"etcd://{line.address}", deadline_s=0.3) as store,
    ):
        line.stall()
        start = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable, match=r"did not answer within 0\.3 s"):
            await store.get(prefix)
        assert asyncio.get_running_loop().time() - start < 1
        line.flow()

        async def answers() -> bool:
            with contextlib.suppress(Unavailable):
                return await store.get(prefix) is None
            return False

        await until(answers)


async def test_a_restart_of_etcd_hides_no_change(prefix: str) -> None:
    async with (
        etcd_server() as etcd,
        open_key_value(etcd.url, deadline_s=10) as store,
        contextlib.aclosing(store.watch(prefix)) as events,
    ):
        await established(store, events, prefix)
        pending = asyncio.ensure_future(take(events, 3))
        await etcd.kill()
        await etcd.start()
        await store.put(prefix + "a", b"2")
        await store.put(prefix + "b", b"3")
        assert told(await pending, prefix) == ["resumed", "put a 2", "put b 3"]


@pytest.mark.parametrize("puts_after", [0, 1, 40])
async def test_data_that_is_lost_is_told_as_the_difference(prefix: str, puts_after: int) -> None:
    # Forty puts overtake the old revision, one does not: neither may fool the watch.
    async with (
        etcd_server() as etcd,
        open_key_value(etcd.url, deadline_s=10) as store,
        contextlib.aclosing(store.watch(prefix)) as events,
    ):
        for number in range(10):
            await store.put(f"{prefix}{number}", b"old")
        await established(store, events, prefix)
        pending = asyncio.ensure_future(anext(events))
        await etcd.kill()
        etcd.wipe()
        await etcd.start()
        async with open_key_value(etcd.url, deadline_s=10) as other:
            for number in range(puts_after):
                await other.put(f"{prefix}new{number}", b"new")
            await other.put(prefix + "3", b"again")
            await other.put(prefix + "end", b"")
            assert (await pending).kind is EventKind.RESUMED
            state = {f"{prefix}{number}": b"old" for number in range(10)} | {prefix + "sentinel": b""}
            async with asyncio.timeout(20):
                async for event in events:
                    if event.kind is EventKind.PUT:
                        state[event.key] = event.value
                    elif event.kind is EventKind.DELETE:
                        state.pop(event.key, None)
                    if event.key == prefix + "end":
                        break
            assert state == await contents(other, prefix)
            assert len(state) == puts_after + 2


async def test_another_value_under_the_same_revision_of_another_store_is_told(prefix: str) -> None:
    async with (
        etcd_server() as etcd,
        faulty(etcd.address) as line,
        open_key_value(f"etcd://{line.address}") as store,
        contextlib.aclosing(store.watch(prefix)) as events,
    ):
        await established(store, events, prefix)
        revision = await store.put(prefix + "a", b"old")
        await take(events, 1)
        pending = asyncio.ensure_future(take(events, 3))
        await line.cut()
        await etcd.kill()
        etcd.wipe()
        await etcd.start()
        async with open_key_value(etcd.url) as other:
            while await other.put("/elsewhere" + prefix, b"") < revision - 1:
                pass
            assert await other.put(prefix + "a", b"new") == revision
        await line.mend()
        assert told(await pending, prefix) == ["resumed", "delete sentinel", "put a new"]


async def test_a_lease_is_kept_through_a_restart_and_lost_with_the_data(prefix: str) -> None:
    async with etcd_server() as etcd, open_key_value(etcd.url, deadline_s=10) as store:
        lease = await store.lease(5)
        await store.put(prefix + "a", b"", lease=lease)
        await etcd.kill()
        await etcd.start()
        await lease.keep()
        assert await store.get(prefix + "a") is not None
        await etcd.kill()
        etcd.wipe()
        await etcd.start()
        with pytest.raises(NotFound):
            await lease.keep()
        assert lease.lost.is_set()
