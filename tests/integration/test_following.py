"""Brains of the library as a user runs them: swapped, moved back, and followed whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.cli.followers import follower
from encephalon.cli.rollback import rolled_back
from encephalon.cli.swap import swap
from encephalon.client import Brains, connect
from encephalon.coordinator import CoordinatorSettings, coordinate
from encephalon.core.errors import EncephalonError, FailedPrecondition, NotFound
from encephalon.library.library import Library
from encephalon.state import open_key_value
from tests.followed import Stores, add_brain, ask_both, brain_text, following_region, library_in, version_of
from tests.running import RunningBrain, running
from tests.servers import etcd_server
from tests.waiting import until

FOURTH = """
brain: both
inputs:
  left: {datatype: FP32, shape: [-1, -1]}
  right: {datatype: FP32, shape: [-1, -1]}
regions:
  first: {network: diagnostics/001, arguments: {offset: 4}, max_delay_ms: 0}
  second: {network: diagnostics/001, arguments: {offset: 4000}, max_delay_ms: 0}
  fourth: {network: diagnostics/001, max_delay_ms: 0}
  join: {network: diagnostics/002, max_delay_ms: 0}
pathways:
  - {from: left, to: first.x}
  - {from: right, to: second.x}
  - {from: second.y, to: fourth.x}
  - {from: first.y, to: join.a}
  - {from: fourth.y, to: join.b}
outputs: {sum: join.y, one: first.y}
"""


async def encephalon(brain: RunningBrain, *arguments: str) -> tuple[int, str, str]:
    """Runs the command on the state folder of a brain: its code and what it printed and said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "encephalon.cli", *arguments, "--state-dir", str(brain.state_dir)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    printed, said = await process.communicate()
    return int(process.returncode or 0), printed.decode(), said.decode()


async def add_network(library: Library, name: str, code: str, arguments: str) -> None:
    network = pb.Network(area="diagnostics", code=code, arguments=arguments)
    await library.add(pb.Record(id=pb.Reference(kind=pb.KIND_NETWORK, name=name), network=network))


async def version(brains: Brains) -> int:
    return version_of(await ask_both(brains, 1.0, 2.0), 1.0, 2.0)


def answers(brains: Brains, wanted: int) -> Callable[[], Awaitable[bool]]:
    async def answered() -> bool:
        try:
            return await version(brains) == wanted
        except EncephalonError:
            return False

    return answered


async def test_a_network_is_swapped_refused_and_moved_back(tmp_path: Path) -> None:
    async with library_in(Stores(tmp_path)) as library:
        await add_brain(library, brain_text(1), "production")
        await add_network(library, "plus-70", "001", '{"offset": 70.0}')
        await add_network(library, "broken", "004", "{}")
        async with running("both", tmp_path) as brain, brain.connect() as brains:
            assert await version(brains) == 1
            code, printed, said = await encephalon(brain, "swap", "first=plus-70", "--json")
            assert code == 0, said
            assert json.loads(printed) == {
                "brain": "both", "version": 2, "previous": 1, "alias": "production",
                "networks": {"first": "network:plus-70@1"}, "carried": {},
            }  # fmt: skip
            answer = await ask_both(brains, 1.0, 2.0)
            assert (answer.version, answer["one"][0, 0]) == ("2", 71.0)

            record = follower("both", tmp_path)
            with pytest.raises(FailedPrecondition) as refused:
                await swap(library, record, "production", {"first": "broken"}, 20.0)
            assert "version 3 cannot be served: version diagnostics-004-" in refused.value.message
            assert "warming up with 1 rows failed" in refused.value.message
            assert "brain 'both' stays what it was" in refused.value.message
            assert (await ask_both(brains, 1.0, 2.0)).version == "2"
            assert (await library.aliases("brain", "both"))["production"].version == 2

            code, printed, said = await encephalon(brain, "rollback", "both")
            assert code == 0, said
            assert "means version 1 again, which is in service; it was 2" in printed
            assert await version(brains) == 1
            with pytest.raises(FailedPrecondition, match="nothing that is still there before it"):
                await rolled_back(library, "both", "production", record, 20.0)
            with pytest.raises(NotFound, match="brain 'digits' does not run here; running: both"):
                follower("digits", tmp_path)

            status = json.loads((await encephalon(brain, "status", "--json"))[1])["brains"][0]
            assert (status["version"], status["follows"], status["pending"]) == ("1", "both@production", None)


async def test_a_version_with_another_region_starts_it_and_killed_processes_come_back(tmp_path: Path) -> None:
    async with library_in(Stores(tmp_path)) as library:
        await add_brain(library, brain_text(1), "production")
        for number in (2, 3):
            assert await add_brain(library, brain_text(number)) == number
        assert await add_brain(library, FOURTH) == 4
        async with running("both@production", tmp_path) as brain, brain.connect() as brains:
            await library.alias("brain:both@4", "production")
            await until(answers(brains, 4), 20, "the version with a fourth region answers")
            assert brain.pid("fourth-0")
            for name in ("first-0", "coordinator"):
                killed = brain.kill(name)
                await until(lambda: brain.pid(name) not in (None, killed), 10, f"{name} has a new process")  # noqa: B023
                await until(answers(brains, 4), 20, f"version 4 answers after {name} was killed")
            await library.alias("brain:both@3", "production")
            await until(answers(brains, 3), 20, "version 3 answers")


async def test_without_its_store_everything_goes_on_and_catches_up(tmp_path: Path) -> None:
    async with etcd_server() as etcd, AsyncExitStack() as stack:
        stores = Stores(tmp_path)
        stores.state = etcd.url
        library = await stack.enter_async_context(library_in(stores))
        await add_brain(library, brain_text(1), "production")
        await add_brain(library, brain_text(2))
        for region in ("first", "second", "join"):
            await stack.enter_async_context(following_region(stores, "both@production", region))
        store = await stack.enter_async_context(open_key_value(etcd.url))
        settings = CoordinatorSettings(listen="127.0.0.1:0", follow=["both@production"])
        running = await stack.enter_async_context(coordinate(settings, [], store=store))
        brains = await stack.enter_async_context(connect(running.server.addresses[0]))
        await until(answers(brains, 1), 20, "version 1 answers")
        await etcd.kill()
        for _ in range(50):
            assert await version(brains) == 1
        await etcd.start()
        await until(lambda: moved(library, 2), 20, "etcd is back")
        asked = 0
        while await version(brains) != 2:  # no request fails while they catch up
            asked += 1
            assert asked < 50_000
            await asyncio.sleep(0)
        np.testing.assert_equal(await version(brains), 2)


async def moved(library: Library, number: int) -> bool:
    try:
        await library.alias(f"brain:both@{number}", "production")
    except EncephalonError:
        return False
    return True
