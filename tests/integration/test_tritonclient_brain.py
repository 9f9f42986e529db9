"""tritonclient, in a process of its own, calls a brain on its coordinator and a region directly."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.running import EXAMPLES, RunningBrain, running_brain

ROOT = Path(__file__).resolve().parents[2]


async def program(*words: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    return out.decode()


async def called(address: str, model: str, inputs: str, output: str) -> dict[str, Any]:
    words = ("-m", "tests.integration.triton_caller", address, model, inputs, output)
    return dict(json.loads((await program(*words)).splitlines()[-1]))


def check(seen: dict[str, Any], model: str, inputs: list[str]) -> None:
    assert seen["live"]
    assert seen["ready"]
    assert seen["model_ready"]
    assert seen["metadata"] == inputs
    assert seen["config"]["name"] == model
    assert [tensor["name"] for tensor in seen["config"]["input"]] == inputs
    assert [model, "READY"] in seen["index"]
    assert seen["unary"]
    assert seen["aio"]
    assert seen["stream"]
    assert seen["shared_memory"]
    assert seen["counted"]
    status, message = seen["unknown"]
    assert "NOT_FOUND" in status
    assert "nobody" in message


async def region_address(brain: RunningBrain, name: str, region: str) -> str:
    async with brain.connect() as brains:
        regions = (await brains.describe(name)).regions
    return next(item for item in regions if item.name == region).replicas[0].address


@pytest.mark.timeout(180)
async def test_tritonclient_speaks_with_the_coordinator_and_with_a_region() -> None:
    async with running_brain(EXAMPLES / "pair.yaml") as brain:
        seen = await called(brain.address, "pair", "left,right", "sum")
        check(seen, "pair", ["left", "right"])
        steps = seen["config"]["ensemble_scheduling"]["step"]
        assert {step["model_name"] for step in steps} == {"first", "second", "join"}
        check(await called(await region_address(brain, "pair", "first"), "first", "x", "y"), "first", ["x"])
        await program("-c", LOADING, brain.address, (EXAMPLES / "pair.yaml").read_text())


LOADING = """
import sys
import tritonclient.grpc as grpcclient
address, manifest = sys.argv[1:]
with grpcclient.InferenceServerClient(address) as client:
    client.load_model("pair", config=manifest)          # replaces the one that runs
    assert client.is_model_ready("pair")
    try:
        client.load_model("pair", config=manifest.replace("join.b}", "join.nothing}"))
    except grpcclient.InferenceServerException as error:
        assert "line" in error.message() and "join" in error.message(), error.message()
    else:
        raise AssertionError("a broken manifest was loaded")
    assert client.is_model_ready("pair")                 # the old one is kept
    client.unload_model("pair")
    states = {entry.name: entry.state for entry in client.get_model_repository_index().models}
    assert states.get("pair") != "READY", states
    client.load_model("pair", config=manifest)
    assert client.is_model_ready("pair")
"""


async def test_tritonclient_can_be_imported_beside_us_in_either_order() -> None:
    both = "import numpy, {}, {}; import encephalon.api.inference.v1.inference_pb2, tritonclient.grpc.service_pb2"
    await program("-c", both.format("encephalon", "tritonclient.grpc"))
    await program("-c", both.format("tritonclient.grpc", "encephalon"))
