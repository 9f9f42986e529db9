"""Writers, removers and collectors of garbage are killed at every step; the library stays whole."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from encephalon.library.library import Library
from encephalon.library.store.keys import OBJECTS
from tests.chaos.library_work import library_at, write
from tests.dying import Doom, When
from tests.forks import Forked, forks
from tests.servers import etcd_server
from tests.waiting import until

WHEN: Sequence[When] = ("before", "amid", "behind")
AT_ONCE = 8


class Stores(NamedTuple):
    state: str
    objects: str


class Kill(NamedTuple):
    job: str
    call: int
    when: When


@pytest.fixture
async def forked() -> AsyncIterator[Forked]:
    async with forks("tests.chaos.library_work") as forked:
        yield forked


@pytest.fixture
def embedded(tmp_path: Path) -> Stores:
    return Stores(f"sqlite://{tmp_path}/state.db", f"folder://{tmp_path}/objects")


async def kills(stores: Stores) -> list[Kill]:
    """Each call that a writer makes, some of them twice, and the calls of the others, in an order like any other."""
    doom, chance = Doom(0), random.Random(3)
    await write(**stores._asdict(), doom=doom)
    found = [Kill("write", *step) for step in itertools.product(range(1, doom.calls + 1), WHEN)]
    found += chance.choices(found, k=40)
    found += [Kill("collect", *step) for step in itertools.product(range(1, 31), WHEN)]
    found += [Kill("remove", *step) for step in itertools.product(range(1, 13), WHEN)]
    chance.shuffle(found)
    return found


async def killed(forked: Forked, stores: Stores, planned: Sequence[Kill]) -> int:
    """Several at once; how many were killed before they were done."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(kill: Kill) -> int:
        async with turns:
            arguments: dict[str, Any] = {**stores._asdict(), "call": kill.call, "when": kill.when}
            return await forked(kill.job, arguments)

    statuses = await asyncio.gather(*(one(kill) for kill in planned))
    assert set(statuses) <= {0, -signal.SIGKILL}
    return statuses.count(-signal.SIGKILL)


async def check_whole(library: Library) -> None:
    """Nothing is wrong; the collection takes what nobody needs and nothing else; numbers have no gaps."""

    async def nobody_writes() -> bool:
        return not [entry async for entry in library.key_value.list(library.stores.keys.writers)]

    await until(nobody_writes, within=20, what="the writers' leases run out")
    assert await library.verify() == []
    await library.gc(grace_s=0)
    assert await library.verify() == []
    usage = await library.du()
    stored = [found.key async for found in library.objects.list(OBJECTS)]
    assert (usage.unreached, usage.objects) == (0, len(stored))
    for kind, name in (("network", "digits"), ("network", "common"), ("data_set", "pictures"), ("brain", "digits")):
        versions = await library.versions(kind, name)
        assert versions == list(range(1, len(versions) + 1))
        head = await library.show(f"{kind}:{name}")
        assert head.id.version == versions[-1]


async def test_killed_at_any_step_of_an_embedded_library(forked: Forked, embedded: Stores) -> None:
    planned = await kills(embedded)
    assert await killed(forked, embedded, planned) >= 200
    async with library_at(*embedded) as library:
        await check_whole(library)


async def test_killed_at_some_steps_over_etcd(forked: Forked, tmp_path: Path) -> None:
    async with etcd_server() as etcd:
        stores = Stores(etcd.url, f"folder://{tmp_path}/objects")
        planned = await kills(stores)
        assert await killed(forked, stores, planned[:40]) >= 20
        async with library_at(*stores) as library:
            await check_whole(library)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_killed_at_any_step_over_etcd(forked: Forked, tmp_path: Path) -> None:
    async with etcd_server() as etcd:
        stores = Stores(etcd.url, f"folder://{tmp_path}/objects")
        assert await killed(forked, stores, await kills(stores)) >= 200
        async with library_at(*stores) as library:
            await check_whole(library)
