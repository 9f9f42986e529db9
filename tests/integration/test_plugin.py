"""A package that somebody else wrote is installed, and its networks run in regions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from encephalon.core.wire import InferRequest, Tensor
from tests.regions import region_process

TOUCH = Path(__file__).parents[1] / "plugins" / "touch"
BRAIN = """
brain: hand
inputs:
  pressure: {datatype: FP32, shape: [-1, -1]}
  image: {datatype: UINT8, shape: [-1, -1, -1]}
regions:
  skin: {network: touch/001, arguments: {threshold: 2.0}}
  eye: {network: vision/101}
pathways:
  - {from: pressure, to: skin.pressure}
  - {from: image, to: eye.image}
outputs: {strongest: skin.strongest, total: skin.total, bright: eye.probabilities}
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a program that sees the package; nothing is fetched for it."""
    folder = tmp_path_factory.mktemp("installed")
    source = tmp_path_factory.mktemp("source") / "touch"
    subprocess.run(["cp", "-r", str(TOUCH), str(source)], check=True)  # noqa: S607
    words = ["install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--target", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *words, str(source)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))}


async def test_an_area_that_a_package_brings_runs_in_a_region(installed: dict[str, str]) -> None:
    async with region_process(BRAIN, region="skin", environment=installed) as region, region.client() as client:
        pressure = np.array([[1, 5, 3], [2, 2, 9]], np.float32)
        answer = await client.infer(InferRequest("skin", inputs=[Tensor.of("pressure", pressure)]), 10)
        found = {output.name: output.array for output in answer.outputs}
        assert found["strongest"].tolist() == [[1], [2]]
        assert found["total"].tolist() == [[8], [13]]


async def test_a_network_that_a_package_adds_to_an_area_runs_in_a_region(installed: dict[str, str]) -> None:
    async with region_process(BRAIN, region="eye", environment=installed) as region, region.client() as client:
        image = np.full((1, 4, 4), 51, np.uint8)
        answer = await client.infer(InferRequest("eye", inputs=[Tensor.of("image", image)]), 10)
        np.testing.assert_allclose(answer.outputs[1].array, [[0.8, 0.2]], rtol=1e-6)


def test_without_the_package_the_brain_says_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "hand.yaml"
    path.write_text(BRAIN)
    done = subprocess.run(
        [sys.executable, "-m", "encephalon.region", "--brain", str(path), "--region", "skin"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode != 0
    assert "no area 'touch'" in done.stderr
