"""1,000 requests during ten hot swaps: none is lost, each is answered by exactly one version and by its own numbers."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encephalon.areas.vision import Vision
from encephalon.areas.weights import dumps
from encephalon.core.errors import (
    AlreadyExists,
    Corrupt,
    Denied,
    EncephalonError,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    Unavailable,
)
from encephalon.core.inference import InferenceClient
from encephalon.core.wire import InferRequest, Tensor
from encephalon.state import open_objects
from tests.regions import RegionProcess, infer, manifest, region_process, request, scrape
from tests.waiting import until

SWAPS, REQUESTS, CALLERS = 10, 1000, 20


def config(**values: Any) -> dict[str, str]:
    return {"config": json.dumps(values)}


@pytest.mark.parametrize("network", ["diagnostics/001", "mixed"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_thousand_requests_during_ten_swaps(network: str, stream: bool) -> None:
    """Version v adds v, and says so. "mixed" alternates between networks on the event loop and in the worker."""
    async with region_process(manifest(arguments={"offset": 1.0})) as region, region.client() as client:
        opened = await client.open_stream() if stream else None
        left = REQUESTS
        versions: Counter[str] = Counter()
        swapped = asyncio.Event()

        async def caller(number: int) -> None:
            nonlocal left
            while left > 0 or not swapped.is_set():
                left -= 1
                asked = request(float(number), rows=1 + number % 3)
                answer = await (opened.infer(asked, 10) if opened else client.infer(asked, 10))
                values = set(answer.outputs[0].array.ravel().tolist())
                offset = 0 if network == "mixed" and int(answer.model_version) % 2 == 0 else int(answer.model_version)
                assert values == {number + offset}, answer.model_version
                versions[answer.model_version] += 1

        async def swap() -> None:
            for version in range(2, SWAPS + 2):
                seen = sum(versions.values())
                await until(lambda: sum(versions.values()) >= seen + REQUESTS // SWAPS // 2)  # noqa: B023
                if network == "mixed" and version % 2 == 0:
                    await client.load("echo", config(network="diagnostics/003", arguments={"delay_ms": 2.0}))
                else:
                    await client.load("echo", config(network="diagnostics/001", arguments={"offset": version}))
            await until(lambda: versions[str(SWAPS + 1)] > 0)
            swapped.set()

        await asyncio.gather(swap(), *(caller(number) for number in range(CALLERS)))
        assert sum(versions.values()) >= REQUESTS
        assert set(versions) == {str(version) for version in range(1, SWAPS + 2)}
        if opened:
            await opened.close()


async def test_messages_that_wait_are_computed_by_the_version_that_admitted_them() -> None:
    text = manifest("diagnostics/003", arguments={"delay_ms": 300.0}, max_batch=1)
    async with region_process(text) as region, region.client() as client:
        waiting = [asyncio.create_task(infer(client, float(n))) for n in range(4)]
        await until(lambda: at_least(region, 3))
        await client.load("echo", config(network="diagnostics/001", arguments={"offset": 100.0}))
        assert (await infer(client, 1.0)).outputs[0].array[0, 0] == 101.0
        answers = await asyncio.gather(*waiting)
        assert [answer.model_version for answer in answers] == ["1"] * 4
        assert [answer.outputs[0].array[0, 0] for answer in answers] == [0.0, 1.0, 2.0, 3.0]


async def at_least(region: RegionProcess, messages: int) -> bool:
    return await region.waiting() >= messages


async def refused(client: InferenceClient, kind: type[EncephalonError], parameters: dict[str, Any]) -> str:
    with pytest.raises(kind) as caught:
        await client.load("echo", parameters)
    assert (await infer(client)).model_version == "1"
    return caught.value.message


async def test_whatever_cannot_be_loaded_keeps_the_old_and_says_so() -> None:
    async with region_process(manifest()) as region, region.client() as client:
        kept = "version 1 stays in service"
        assert kept in await refused(client, NotFound, config(network="diagnostics/009"))
        assert kept in await refused(client, InvalidInput, config(arguments={"offset": "much"}))
        assert kept in await refused(client, InvalidInput, config(arguments={"speed": 3}))
        wrong = await refused(client, FailedPrecondition, config(network="diagnostics/002"))
        assert "it has no input 'x'" in wrong
        assert kept in wrong
        broken = await refused(client, FailedPrecondition, config(network="diagnostics/004"))
        assert "warming up with 1 rows failed" in broken
        states = {(entry.version, entry.state) for entry in await client.index()}
        assert states == {("1", "READY"), ("2", "UNAVAILABLE")}
        assert "warming up" in next(entry.reason for entry in await client.index() if entry.version == "2")
        assert await client.ready()


NONSENSE: list[dict[str, Any]] = [
    {"config": "{"},
    {"config": "[]"},
    {"config": 7},
    {"config": json.dumps({"netwrok": "vision/002"})},
    {"config": json.dumps({"network": "../etc/passwd"})},
    {"config": json.dumps({"network": ["vision/002"]})},
    {"config": json.dumps({"version": "a/b"})},
    {"config": "[" * 100_000},
    {"file:2/model.safetensors": "text"},
    {"file:2/model.safetensors": b"1", "file:3/model.safetensors": b"2"},
    {"file:../model.safetensors": b"1"},
    {"model": "x"},
]


async def test_parameters_that_cannot_be_are_refused() -> None:
    async with region_process(manifest()) as region, region.client() as client:
        for parameters in NONSENSE:
            await refused(client, InvalidInput, parameters)


async def test_versions_are_named_and_repeating_a_load_is_harmless() -> None:
    async with region_process(manifest()) as region, region.client() as client:
        await client.load("echo", config(arguments={"offset": 5.0}, version="tuned-1"))
        assert (await infer(client)).model_version == "tuned-1"
        await client.load("echo", config(arguments={"offset": 5.0}, version="tuned-1"))
        await client.load("echo", config(arguments={"offset": 5.0}))
        await client.load("echo")
        assert (await infer(client)).model_version == "tuned-1"
        with pytest.raises(AlreadyExists, match="tuned-1"):
            await client.load("echo", config(arguments={"offset": 6.0}, version="tuned-1"))
        await client.load("echo", config(arguments={"offset": 6.0}))
        assert (await infer(client)).model_version == "2"
        assert 'version="tuned-1"' not in await asyncio.to_thread(scrape, region.metrics_port)


async def test_unloading_finishes_what_was_admitted_and_loading_brings_it_back() -> None:
    text = manifest("diagnostics/003", arguments={"delay_ms": 200.0}, max_batch=1)
    async with region_process(text) as region, region.client() as client:
        admitted = [asyncio.create_task(infer(client, float(n))) for n in range(3)]
        await until(lambda: at_least(region, 2))
        unloading = asyncio.create_task(client.unload("echo"))
        await until(lambda: not_ready(client))
        with pytest.raises(Unavailable, match="unloaded"):
            await infer(client)
        await unloading
        assert [(await each).outputs[0].array[0, 0] for each in admitted] == [0.0, 1.0, 2.0]
        assert [entry.state for entry in await client.index()] == ["UNAVAILABLE"]
        await client.load("echo")
        assert await client.ready()
        await infer(client)


async def not_ready(client: InferenceClient) -> bool:
    return not await client.ready()


IMAGE = np.random.default_rng(1).integers(0, 256, (3, 28, 28), dtype=np.uint8)
VISION = (
    "brain: test\n"
    "inputs: {image: {datatype: UINT8, shape: [-1, -1, -1]}}\n"
    "regions: {echo: {network: vision/001, weights: FOLDER/one.safetensors}}\n"
    "pathways: [{from: image, to: echo.image}]\n"
    "outputs: {probabilities: echo.probabilities}\n"
)


def weights_of(code: str) -> bytes:
    torch.set_num_threads(1)
    torch.manual_seed(int(code))
    return dumps(Vision(code), f"vision/{code}", {}, "test")


async def probabilities(client: InferenceClient) -> tuple[str, np.ndarray]:
    answer = await client.infer(InferRequest("echo", inputs=[Tensor.of("image", IMAGE)]), 30)
    return answer.model_version, next(t.array for t in answer.outputs if t.name == "probabilities")


async def test_weights_come_as_bytes_as_objects_and_as_files_of_one_folder(tmp_path: Path) -> None:
    one, two = weights_of("001"), weights_of("002")
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "one.safetensors").write_bytes(one)
    (folder / "two.safetensors").write_bytes(two)
    (tmp_path / "outside.safetensors").write_bytes(two)
    (folder / "link.safetensors").symlink_to(tmp_path / "outside.safetensors")
    digest, wrong = hashlib.sha256(two).hexdigest(), hashlib.sha256(one).hexdigest()
    url = f"folder://{tmp_path}/objects"
    async with open_objects(url) as objects:
        await objects.put(f"sha256/{digest}", two)
        await objects.put(f"sha256/{wrong}", two)  # not what its name says
    async with (
        region_process(VISION.replace("FOLDER", str(folder)), "--objects", url, "--weights", str(folder)) as region,
        region.client() as client,
    ):
        first = (await probabilities(client))[1]

        async def load(**values: Any) -> tuple[str, np.ndarray]:
            await client.load("echo", config(network="vision/002", **values))
            return await probabilities(client)

        version, second = await load(weights="two.safetensors")
        assert version == "2"
        assert not np.allclose(first, second)
        for name, weights in [("a", f"object:sha256:{digest}"), ("b", "./two.safetensors")]:
            version, again = await load(weights=weights, version=name)
            assert version == name
            assert np.array_equal(again, second)
        await client.load("echo", {**config(network="vision/002"), "file:7/model.safetensors": two})
        version, again = await probabilities(client)
        assert version == "7"
        assert np.array_equal(again, second)
        for kind, weights, sentence in [
            (Corrupt, f"object:sha256:{wrong}", "has the digest"),
            (NotFound, f"object:sha256:{'0' * 64}", "0000"),
            (InvalidInput, "object:sha256:xyz", "name no object"),
            (Denied, "../outside.safetensors", "outside of"),
            (Denied, str(tmp_path / "outside.safetensors"), "outside of"),
            (Denied, "link.safetensors", "outside of"),
            (NotFound, "none.safetensors", "no weight file"),
        ]:
            with pytest.raises(kind, match=sentence):
                await load(weights=weights)
            with pytest.raises(kind, match="version 7 stays in service"):
                await load(weights=weights)
        for data in (b"", b"\x00" * 1000, two[:5000], two[:-1], one):
            with pytest.raises(EncephalonError, match="version 7 stays in service"):
                await client.load("echo", {"file:8/model.safetensors": data})
        version, again = await probabilities(client)
        assert version == "7"
        assert np.array_equal(again, second)
