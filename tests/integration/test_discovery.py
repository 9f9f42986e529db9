"""Announce, resolve and follow on SQLite and on a real etcd, through stops, restarts and lost data."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from encephalon.core.errors import InvalidInput, Unavailable
from encephalon.discovery import Instance, announced, resolve, watch
from encephalon.state import KeyValue, open_key_value
from tests.faults import faulty
from tests.servers import Server, etcd_server
from tests.waiting import until

NAMESPACE = "test"


def instance(identity: str = "one", region: str = "visual", **fields: object) -> Instance:
    made = Instance(
        brain="digits",
        region=region,
        id=identity,
        address="127.0.0.1:9001",
        local_address="unix:/tmp/region.sock",
        network="vision/002",
        version="1",
        host="host",
        capacity=256,
        state=Instance.STATE_READY,
    )
    made.MergeFrom(Instance(**fields))  # type: ignore[arg-type]
    return made


class Follower:
    """Keeps every set that a watch gave."""

    def __init__(self) -> None:
        self.sets: list[list[str]] = []
        self.last: tuple[Instance, ...] = ()

    @property
    def ids(self) -> list[str] | None:
        return self.sets[-1] if self.sets else None

    async def run(self, store: KeyValue, grace_s: float) -> None:
        async with contextlib.aclosing(watch(store, NAMESPACE, "digits", grace_s=grace_s)) as sets:
            async for present in sets:
                self.last = present
                self.sets.append([found.id for found in present])


@contextlib.asynccontextmanager
async def following(store: KeyValue, grace_s: float = 5.0) -> AsyncIterator[Follower]:
    follower = Follower()
    task = asyncio.create_task(follower.run(store, grace_s))
    try:
        await until(lambda: follower.sets or task.done())
        yield follower
        assert not task.done(), "the watch ended"
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture(params=["sqlite", "etcd"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[KeyValue]:
    async with contextlib.AsyncExitStack() as stack:
        url = f"sqlite://{tmp_path}/store.db"
        if request.param == "etcd":
            url = (await stack.enter_async_context(etcd_server())).url
        yield await stack.enter_async_context(open_key_value(url))


@pytest.fixture
async def etcd() -> AsyncIterator[Server]:
    async with etcd_server() as server:
        yield server


async def test_an_announcement_is_found_for_as_long_as_its_block_lasts(store: KeyValue) -> None:
    async with following(store) as follower:
        assert follower.sets == [[]]
        async with announced(store, NAMESPACE, instance()) as announcement:
            assert await resolve(store, NAMESPACE, "digits") == [instance()]
            await until(lambda: follower.ids == ["one"])
            async with announced(store, NAMESPACE, instance("two", "auditory")):
                await until(lambda: follower.ids == ["two", "one"])
                assert await resolve(store, NAMESPACE, "digits", "auditory") == [instance("two", "auditory")]
                assert await resolve(store, NAMESPACE, "other") == []
                assert await resolve(store, "elsewhere", "digits") == []
            await until(lambda: follower.ids == ["one"], within=1)
            await announcement.update(state=Instance.STATE_DRAINING)
            assert (await resolve(store, NAMESPACE, "digits"))[0].state == Instance.STATE_DRAINING
            await until(lambda: follower.last and follower.last[0].state == Instance.STATE_DRAINING)
        assert await resolve(store, NAMESPACE, "digits") == []
        await until(lambda: follower.ids == [], within=1)
    assert follower.sets == [[], ["one"], ["two", "one"], ["one"], ["one"], []]


async def test_the_load_is_told_within_its_interval_and_not_with_every_change(store: KeyValue) -> None:
    async with (
        following(store) as follower,
        announced(store, NAMESPACE, instance(), load_interval_s=0.2) as announcement,
    ):
        for step in range(101):
            await announcement.update(load=step / 50)
        await until(lambda: follower.last and follower.last[0].load == 1.0, within=2)
        assert len(follower.sets) <= 4


async def test_a_lease_is_kept_beyond_its_time(store: KeyValue) -> None:
    async with (
        following(store) as follower,
        announced(store, NAMESPACE, instance(), lease_s=1),
    ):
        control = await store.lease(2.5)
        await store.put("/control", b"", lease=control)

        async def over() -> bool:
            return await store.get("/control") is None

        await until(over, within=10)
        assert follower.sets == [[], ["one"]]


async def test_names_with_any_characters_stay_apart(store: KeyValue) -> None:
    names = ["a/b", "a", "..", "ключ", "a%2Fb", "a b"]
    async with contextlib.AsyncExitStack() as stack:
        for name in names:
            await stack.enter_async_context(announced(store, NAMESPACE, instance("x/y", name, brain="b/c")))
        assert {found.region for found in await resolve(store, NAMESPACE, "b/c")} == set(names)
        for name in names:
            assert [found.region for found in await resolve(store, NAMESPACE, "b/c", name)] == [name]
        assert await resolve(store, NAMESPACE, "b") == []


@pytest.mark.parametrize(
    "fields",
    [{"address": "nowhere"}, {"address": "host:0"}, {"local_address": "/tmp/x"}, {"id": "i" * 300}, {"load": 1.5}],
)
async def test_an_instance_that_nobody_could_use_is_refused(store: KeyValue, fields: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        async with announced(store, NAMESPACE, instance(**fields)):
            pass
    with pytest.raises(InvalidInput):
        await resolve(store, NAMESPACE, "")


async def test_damaged_records_are_skipped(store: KeyValue) -> None:
    folder = f"/encephalon/{NAMESPACE}/instances/digits/visual/"
    foreign = instance("another").SerializeToString()
    bad = {"a": b"\xff\xff", "b": b"", "c": foreign, "d": bytes(20_000), "e/f": instance("f").SerializeToString()}
    for key, value in bad.items():
        await store.put(folder + key, value)
    async with following(store) as follower, announced(store, NAMESPACE, instance()):
        await until(lambda: follower.ids == ["one"])
        assert await resolve(store, NAMESPACE, "digits") == [instance()]
        # The announcement notices and repairs; the last good record stays in the set meanwhile.
        await store.put(folder + "one", b"\xff")
        await until(lambda: _is_repaired(store), within=5)
        assert follower.sets == [[], ["one"]]


async def _is_repaired(store: KeyValue) -> bool:
    return await resolve(store, NAMESPACE, "digits") == [instance()]


async def test_a_deleted_announcement_is_written_again(store: KeyValue) -> None:
    async with announced(store, NAMESPACE, instance(), lease_s=1):
        await store.delete(f"/encephalon/{NAMESPACE}/instances/digits/visual/one")
        await until(lambda: _is_repaired(store), within=5)


async def test_an_instance_that_dies_leaves_when_its_lease_runs_out(etcd: Server) -> None:
    async with (
        open_key_value(etcd.url) as store,
        following(store) as follower,
        faulty(etcd.address) as line,
        contextlib.AsyncExitStack() as region,
    ):
        its_store = await region.enter_async_context(open_key_value(f"etcd://{line.address}", deadline_s=0.5))
        await region.enter_async_context(announced(its_store, NAMESPACE, instance(), lease_s=1))
        await until(lambda: follower.ids == ["one"])
        await line.cut()
        start = asyncio.get_running_loop().time()
        await until(lambda: follower.ids == [], within=5)
        assert asyncio.get_running_loop().time() - start < 3
        await line.mend()
        await until(lambda: follower.ids == ["one"], within=5)


@pytest.mark.parametrize(
    "lost", [pytest.param(False, marks=pytest.mark.slow, id="data kept"), pytest.param(True, id="data lost")]
)
async def test_etcd_is_away_for_longer_than_a_lease_and_nobody_is_missed(etcd: Server, lost: bool) -> None:
    # Scaled: a lease of 2 s, away for two of them, as 10 s are two of the usual 5 s.
    async with (
        open_key_value(etcd.url) as regions,
        open_key_value(etcd.url) as coordinator,
        announced(regions, NAMESPACE, instance(), lease_s=2),
        announced(regions, NAMESPACE, instance("two"), lease_s=2) as second,
        following(coordinator, grace_s=2) as follower,
    ):
        assert follower.sets == [["one", "two"]]
        dead = await regions.lease(2)
        gone = instance("gone")
        key = f"/encephalon/{NAMESPACE}/instances/digits/visual/gone"
        await regions.put(key, gone.SerializeToString(), lease=dead)
        await until(lambda: follower.ids == ["gone", "one", "two"])
        await etcd.stop()
        if lost:
            etcd.wipe()
        stopped = asyncio.get_running_loop().time()
        await second.update(load=0.5)
        await until(lambda: asyncio.get_running_loop().time() - stopped > 4, within=6)
        await etcd.start()
        # Who lives stays in every set that is told; who died meanwhile leaves after the grace.
        await until(lambda: follower.ids == ["one", "two"], within=12)
        assert all({"one", "two"} <= set(ids) for ids in follower.sets)
        await until(lambda: follower.last[1].load == 0.5, within=5)

        async def both_announced() -> bool:
            return len(await resolve(coordinator, NAMESPACE, "digits")) == 2

        await until(both_announced, within=5)


async def test_a_change_of_state_while_the_store_is_away_is_told_when_it_is_back(etcd: Server) -> None:
    async with (
        open_key_value(etcd.url, deadline_s=0.5) as store,
        announced(store, NAMESPACE, instance(), lease_s=2) as announcement,
        following(store, grace_s=2) as follower,
    ):
        await etcd.stop()
        await announcement.update(state=Instance.STATE_DRAINING)
        await etcd.start()
        await until(lambda: follower.last[0].state == Instance.STATE_DRAINING, within=10)
        assert all(ids == ["one"] for ids in follower.sets)


async def test_leaving_while_the_store_is_away_takes_no_longer_than_its_deadline(etcd: Server) -> None:
    async with open_key_value(etcd.url, deadline_s=1) as store:
        async with announced(store, NAMESPACE, instance()):
            await etcd.stop()
            start = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - start < 2.5


async def test_a_store_out_of_reach_at_the_beginning_is_one_sentence(etcd: Server) -> None:
    async with open_key_value(etcd.url, deadline_s=0.5) as store:
        await etcd.stop()
        with pytest.raises(Unavailable, match="etcd at"):
            async with announced(store, NAMESPACE, instance()):
                pass
        with pytest.raises(Unavailable, match="etcd at"):
            await anext(watch(store, NAMESPACE, "digits"))
