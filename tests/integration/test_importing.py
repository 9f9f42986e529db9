"""A network of somebody else, from its file to the answer of a region."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encephalon.areas.graph.plan import plan_of
from encephalon.core.errors import FailedPrecondition, InvalidInput, InvalidManifest
from encephalon.core.wire import InferRequest, Tensor
from encephalon.library.brains import parse_manifest
from tests.data import BESIDE
from tests.references.darknet import CFGS, picture, weights_file
from tests.regions import region_process, run_region
from tests.unit.areas.graphs import graph_of, vision

YOLO = BESIDE / "detectors" / "yolo-fastest" / "ModelZoo" / "yolo-fastest-1.1_body" / "yolo-fastest-1.1_body.cfg"


async def brought_in(*words: object) -> dict[str, Any]:
    """What the process that imports says of the network."""
    command = [sys.executable, "-m", "encephalon.areas.importing", *map(str, words), "--json"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=55, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def brain(imported: dict[str, Any], **changes: object) -> str:
    """One region with this network; every input and output of it is one of the brain."""
    contract = imported["contract"]
    tensors = {
        kind: {spec["name"]: {"datatype": spec["datatype"], "shape": spec["shape"]} for spec in contract[kind]}
        for kind in ("inputs", "outputs")
    }
    region = {
        "network": f"{imported['area']}/{imported['code']}",
        "weights": imported["path"],
        "arguments": imported["arguments"],
        "max_batch": 4,
        **(tensors if imported["area"] == "graph" else {}),
        **changes,
    }
    return json.dumps(
        {
            "brain": "borrowed",
            "inputs": tensors["inputs"],
            "regions": {"echo": {key: value for key, value in region.items() if value is not None}},
            "pathways": [{"from": name, "to": f"echo.{name}"} for name in tensors["inputs"]],
            "outputs": {name: f"echo.{name}" for name in tensors["outputs"]},
        }
    )


async def ask(text: str, **inputs: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    async with region_process(text) as region, region.client() as client:
        tensors = [Tensor.of(name, array) for name, array in inputs.items()]
        answer = await client.infer(InferRequest("echo", inputs=tensors), 20)
        return {output.name: output.array for output in answer.outputs}


async def test_a_graph_of_onnx(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(graph_of())
    imported = await brought_in(
        tmp_path / "net.onnx",
        "--area",
        "graph",
        "--code",
        "900",
        "--out",
        tmp_path / "in.onnx",
        "--rename",
        "x=numbers",
    )
    found = await ask(brain(imported), numbers=np.array([[1, 2, 3]], np.float32))
    assert found["y"].tolist() == [[17, 23]]


async def test_a_graph_of_onnx_that_sees(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(vision())
    imported = await brought_in(
        tmp_path / "net.onnx", "--area", "vision", "--code", "900", "--out", tmp_path / "in.onnx"
    )
    found = await ask(brain(imported), image=np.full((3, 4, 4), 9, np.uint8))
    assert found["features"].tolist() == [[9, -9]] * 3


async def test_a_region_of_vision_changes_to_a_graph_of_onnx(tmp_path: Path) -> None:
    text = json.dumps(
        {
            "brain": "eye",
            "inputs": {"image": {"datatype": "UINT8", "shape": [-1, -1, -1]}},
            "regions": {"echo": {"network": "vision/900", "weights": "net.onnx"}},
            "pathways": [{"from": "image", "to": "echo.image"}],
            "outputs": {"features": "echo.features"},
        }
    )
    (tmp_path / "net.onnx").write_bytes(vision())
    picture = Tensor.of("image", np.full((1, 4, 4), 9, np.uint8))
    text = text.replace("net.onnx", str(tmp_path / "net.onnx"))
    async with region_process(text) as region, region.client() as client:
        await client.load(
            "echo",
            {
                "config": json.dumps({"arguments": {"rename": {"seen": "features"}}}),
                "file:2/model.onnx": vision("seen"),
            },
        )
        answer = await client.infer(InferRequest("echo", inputs=[picture]), 20)
        assert answer.model_version == "2"
        assert answer.outputs[0].array.tolist() == [[9, -9]]
        with pytest.raises((InvalidInput, FailedPrecondition), match="does not fulfil the contract of area vision"):
            await client.load("echo", {"config": '{"arguments": {}}', "file:3/model.onnx": graph_of()})
        assert (await client.infer(InferRequest("echo", inputs=[picture]), 20)).model_version == "2"


async def test_a_network_of_darknet(tmp_path: Path) -> None:
    plan = plan_of(CFGS["heads"])
    (tmp_path / "net.cfg").write_text(CFGS["heads"])
    (tmp_path / "net.weights").write_bytes(weights_file(plan))
    out = tmp_path / "in.safetensors"
    imported = await brought_in(
        tmp_path / "net.weights", "--cfg", tmp_path / "net.cfg", "--area", "graph", "--code", "901", "--out", out
    )
    # The file has its arguments in it, so a manifest may leave them out.
    found = await ask(brain(imported, arguments={}), image=np.repeat(picture(plan), 2, axis=0))
    assert {name: array.shape for name, array in found.items()} == {
        "head_0": (2, 18, 12, 16),
        "head_1": (2, 18, 24, 32),
    }
    np.testing.assert_allclose(found["head_0"][0], found["head_0"][1], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not YOLO.is_file(), reason=f"no network at {YOLO}")
async def test_a_published_network_of_darknet(tmp_path: Path) -> None:
    imported = await brought_in(
        YOLO.with_suffix(".weights"),
        "--cfg",
        YOLO,
        "--area",
        "graph",
        "--code",
        "901",
        "--out",
        tmp_path / "in.safetensors",
    )
    found = await ask(brain(imported, arguments=None), image=np.zeros((1, 3, 320, 320), np.float32))
    assert {name: array.shape for name, array in found.items()} == {
        "head_0": (1, 18, 10, 10),
        "head_1": (1, 18, 20, 20),
    }


async def test_a_manifest_must_say_what_a_graph_takes_and_gives(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(graph_of())
    imported = await brought_in(
        tmp_path / "net.onnx", "--area", "graph", "--code", "900", "--out", tmp_path / "in.onnx"
    )
    other: dict[str, object] = {"network": "diagnostics/001", "weights": None, "arguments": None}
    for changes, says in (
        ({"inputs": None, "outputs": None}, "network graph/900 has a contract of its own; give its inputs and outputs"),
        ({"outputs": None}, "region 'echo' gives no outputs"),
        ({"inputs": {"x": {"datatype": "FP64", "shape": [-1, 3]}}}, "FP32 goes into FP64"),
        (other, "'inputs' of region 'echo' goes only with an address or a network whose contract its file tells"),
    ):
        with pytest.raises(InvalidManifest, match=re.escape(says)):
            parse_manifest(brain(imported, **changes))
    path = tmp_path / "brain.yaml"
    path.write_text(brain(imported).replace("[-1, 2]", "[-1, 5]"))
    code, said = await asyncio.to_thread(run_region, path)
    assert code != 0
    assert "its output 'y' has shape [-1, 2], expected [-1, 5]" in said
