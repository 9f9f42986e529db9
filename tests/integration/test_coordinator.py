"""A coordinator over the wire: stand-ins for regions, and real regions that are killed."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest

from encephalon.api.coordinator.v1 import coordinator_pb2 as pb
from encephalon.core.errors import FailedPrecondition, InvalidManifest, NotFound, Unavailable
from encephalon.core.inference import InferenceClient
from encephalon.library.brains import parse_manifest
from encephalon.state import open_key_value
from tests.coordinated import Standin, ask, brain_of, coordinated, served, total
from tests.load import steady_load
from tests.regions import RegionProcess, manifest, region_process
from tests.waiting import until

EXAMPLES = Path(__file__).resolve().parents[2] / "deploy" / "examples"


async def until_ready(client: InferenceClient, name: str = "test") -> None:
    await until(lambda: client.model_ready(name), within=10, what=f"brain {name} is ready")


async def test_any_server_of_the_protocol_is_a_region() -> None:
    async with served(Standin()) as address, coordinated(brain_of(address)) as (_, client):
        await until_ready(client)
        answer = await client.infer(ask(value=2.0), 5)
        assert total(answer) == 8
        assert answer.parameters["missing_regions"] == ""
        assert answer.parameters["version.r0"] == "1"
        described = await client.describe("test")
        assert [step.model_name for step in described.steps] == ["r0"]
        assert (await client.statistics("test"))[0].success.count == 1


async def test_brains_come_and_go_over_the_wire() -> None:
    async with served(Standin()) as address, coordinated() as (_, client):
        config = brain_of(address).to_json()
        await client.load("test", {"config": config})
        await until_ready(client)
        await client.infer(ask(), 5)
        with pytest.raises(InvalidManifest, match="test line 1: unknown key 'brian'"):
            await client.load("test", {"config": config.replace('"brain"', '"brian"')})
        await client.infer(ask(), 5)
        await client.unload("test")
        with pytest.raises(NotFound, match="no brain 'test' is loaded"):
            await client.infer(ask(), 5)
        assert [entry.state for entry in await client.index()] == ["UNAVAILABLE"]


async def test_a_server_that_is_away_is_named_and_awaited() -> None:
    standin = Standin()
    async with served(standin) as address:
        pass
    async with coordinated(brain_of(address)) as (_, client):
        with pytest.raises(Unavailable, match="region 'r0': the server at"):
            await client.load("test", {"config": brain_of(address).to_json()})
        await until(lambda: client.index())
        assert [entry.state for entry in await client.index()] == ["LOADING"]
        async with served(standin, address):
            await until_ready(client)
            assert total(await client.infer(ask(), 5)) == 4


async def test_a_caller_that_cancels_stops_its_work_in_every_region() -> None:
    first, second = Standin(), Standin()
    first.hanging = second.hanging = True
    async with served(first) as one, served(second) as other, coordinated(brain_of(one, other)) as (_, client):
        await until_ready(client)
        asking = asyncio.ensure_future(client.infer(ask(), 30))
        await until(lambda: first.asked and second.asked)
        asking.cancel()
        await until(lambda: first.cancelled == second.cancelled == 1, within=0.1)
        # The stream that carried the work is still good for others.
        first.hanging = second.hanging = False
        assert total(await client.infer(ask(), 5)) == 8


async def test_a_caller_that_dies_stops_its_work_in_every_region() -> None:
    standin = Standin()
    standin.hanging = True
    async with served(standin) as address, coordinated(brain_of(address)) as (running, client):
        await until_ready(client)
        async with InferenceClient(running.server.addresses[0]) as dying:
            stream = await dying.open_stream()
            asking = asyncio.ensure_future(stream.infer(ask(), 30))
            await until(lambda: standin.asked)
            await stream.close()
        await until(lambda: standin.cancelled == 1, within=0.1)
        with contextlib.suppress(Unavailable):
            await asking


async def test_replacing_under_load_loses_nothing() -> None:
    async with served(Standin()) as address, coordinated(brain_of(address)) as (_, client):
        await until_ready(client)
        config = brain_of(address, address).to_json()
        versions: set[str] = set()

        async def answer() -> None:
            response = await client.infer(ask(), 5)
            assert total(response) == 4 * len(response.outputs)
            versions.add(response.model_version)

        async with steady_load(answer, callers=8) as load:
            for number in range(10):
                await client.load("test", {"config": config if number % 2 else brain_of(address).to_json()})
                seen = load.answered()
                await until(lambda seen=seen: load.answered() > seen + 20)
        assert load.failures == []
        assert len(versions) >= 10


async def test_brains_are_kept_for_the_next_coordinator(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/state.db"
    async with served(Standin()) as address:
        async with open_key_value(url) as store, coordinated(store=store) as (_, client):
            await client.load("test", {"config": brain_of(address).to_json()})
        async with open_key_value(url) as store, coordinated(store=store) as (_, client):
            await until_ready(client)
            await client.infer(ask(), 5)
            await client.unload("test")
        async with open_key_value(url) as store, coordinated(store=store) as (_, client):
            assert await client.index() == []


async def test_describe_brain_over_the_wire() -> None:
    async with served(Standin()) as address, coordinated(brain_of(address)) as (running, client):
        await until_ready(client)
        async with grpc.aio.insecure_channel(running.server.addresses[0]) as channel:
            call = channel.unary_unary("/encephalon.api.coordinator.v1.CoordinatorService/DescribeBrain")
            answer = pb.DescribeBrainResponse.FromString(
                await call(pb.DescribeBrainRequest(brain="test").SerializeToString())
            )
            assert answer.regions[0].breaker == pb.Region.BREAKER_CLOSED
            assert len(answer.regions[0].replicas) == 1
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(pb.DescribeBrainRequest(brain="nobody").SerializeToString())
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND


# Real regions


@contextlib.asynccontextmanager
async def replicas(url: str, count: int):
    async with contextlib.AsyncExitStack() as stack:
        coming = [
            stack.enter_async_context(region_process(manifest(), "--state", url, "--unix", unix_path(url, number)))
            for number in range(count)
        ]
        yield [await each for each in coming]


def unix_path(url: str, number: int) -> str:
    return f"{Path(url.removeprefix('sqlite://')).parent}/{number}.sock"


@contextlib.asynccontextmanager
async def brain_with_replicas(folder: Path, count: int):
    url = f"sqlite://{folder}/state.db"
    async with (
        open_key_value(url) as store,
        replicas(url, count) as regions,
        coordinated(parse_manifest(manifest()), store=store) as (running, client),
    ):
        link = running.brains.served("test").links["echo"]
        await until(lambda: sum(not each.ejected for each in link.replicas.values()) == count, within=10)
        yield regions, client, url


async def test_one_of_two_replicas_is_killed_and_no_request_fails(tmp_path: Path) -> None:
    async with brain_with_replicas(tmp_path, 2) as (regions, client, _):
        async with steady_load(lambda: client.infer(ask(), 5), callers=16) as load:
            await until(lambda: load.answered() > 300, within=20)
            regions[0].process.kill()
            before = load.answered()
            await until(lambda: load.answered() > before + 1000, within=30)
        assert load.failures == []


async def test_the_only_replica_is_killed_and_another_comes(tmp_path: Path) -> None:
    async with brain_with_replicas(tmp_path, 1) as (regions, client, url):
        await client.infer(ask(), 5)
        regions[0].process.kill()
        for _ in range(3):
            started = time.monotonic()
            with pytest.raises(Unavailable, match="region 'echo'"):
                await client.infer(ask(), 5)
            assert time.monotonic() - started < 1
        assert not await client.model_ready("test")
        async with replicas(url, 1):
            await until_ready(client)
            assert total(await client.infer(ask(), 5)) == 4


async def test_a_draining_replica_hands_over_without_a_failure(tmp_path: Path) -> None:
    async with brain_with_replicas(tmp_path, 2) as (regions, client, _):
        async with steady_load(lambda: client.infer(ask(), 5), callers=8) as load:
            await until(lambda: load.answered() > 100, within=20)
            leaving: RegionProcess = regions[0]
            leaving.terminate()
            assert await leaving.ended() == 0
            before = load.answered()
            await until(lambda: load.answered() > before + 100, within=20)
        assert load.failures == []


# The process


def run(*arguments: str) -> tuple[int, str]:
    words = [sys.executable, "-m", "encephalon.coordinator", *arguments]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--brain", "none.yaml"], 2, "cannot read the manifest none.yaml"),
        (["--state", "redis://x"], 2, "unknown scheme"),
        (["--state", "etcd://127.0.0.1:1"], 1, "127.0.0.1:1"),
        (["--default-timeout-s", "never"], 2, "--default-timeout-s"),
    ],
)
def test_mistakes_are_one_sentence(arguments: list[str], code: int, says: str) -> None:
    returned, text = run("--listen", "127.0.0.1:0", *arguments)
    assert returned == code
    sentences = [line for line in text.splitlines() if not line.startswith("{")]
    assert len(sentences) == 1
    assert says in sentences[0]


def test_a_bad_manifest_names_line_and_pathway(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text((EXAMPLES / "pair.yaml").read_text().replace("join.a", "join.c"))
    code, text = run("--listen", "127.0.0.1:0", "--brain", str(path))
    assert code == 2
    assert "bad.yaml line 17: pathway first.y -> join.c: join has no input 'c'" in text


async def test_a_port_in_use_is_one_sentence() -> None:
    async with served(Standin()) as address:
        code, text = await asyncio.to_thread(run, "--listen", address)
        assert code == 1
        assert f"cannot listen on {address}" in text
    with pytest.raises(FailedPrecondition):
        async with served(Standin()) as address, served(Standin(), address):
            pass
