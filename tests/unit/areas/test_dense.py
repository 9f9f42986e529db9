"""The network of plain layers, and logits beside probabilities."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from encephalon.areas import load_network
from encephalon.areas.association import LateFusion
from encephalon.areas.dense import Dense
from encephalon.areas.torch_network import AreaModule, TorchNetwork
from encephalon.areas.vision import Vision
from encephalon.areas.weights import dumps
from encephalon.core.errors import InvalidInput

SIZES = {"inputs": 5, "outputs": 3, "width": 7, "depth": 2}


def network(**arguments: Any) -> TorchNetwork:
    found = load_network("diagnostics", "005", None, {**SIZES, **arguments})
    assert isinstance(found, TorchNetwork)
    return found


def test_the_seed_alone_decides_the_weights() -> None:
    torch.manual_seed(1)
    first = network(seed=4)
    torch.manual_seed(2)
    second, other = network(seed=4), network(seed=5)
    x = np.random.default_rng(0).standard_normal((6, 5), np.float32)
    answers = [each({"x": x}) for each in (first, second, other)]
    assert np.array_equal(answers[0]["y"], answers[1]["y"])
    assert not np.array_equal(answers[0]["y"], answers[2]["y"])
    np.testing.assert_allclose(answers[0]["probabilities"].sum(axis=1), 1, rtol=1e-6)
    assert [list(spec.shape) for spec in first.contract.outputs] == [[-1, 3], [-1, 3]]


def test_weights_come_back_from_a_file() -> None:
    module = Dense(**SIZES, seed=9)
    found = load_network("diagnostics", "005", dumps(module, "diagnostics/005", SIZES, "2"))
    assert isinstance(found, TorchNetwork)
    assert torch.equal(found.module.state_dict()["layers.0.weight"], module.state_dict()["layers.0.weight"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"depth": -1}, "depth is -1, expected a whole number from 0 to 256"),
        ({"seed": 1.5}, "seed is 1.5, expected a whole number"),
        ({"width": 0}, "width is 0, expected a whole number from 1"),
        ({"width": 65536, "depth": 2}, "that are 42.* parameters, at most"),
        ({"hidden": 3}, "has no argument 'hidden'"),
    ],
)
def test_what_cannot_be_built_is_explained(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        network(**arguments)
    assert network(depth=0)({"x": np.zeros((2, 5), np.float32)})["y"].shape == (2, 3)
    with pytest.raises(InvalidInput, match=r"tensor 'x' came with shape \[2, 4\], expected \[-1, 5\]"):
        network()({"x": np.zeros((2, 4), np.float32)})


@pytest.mark.parametrize(
    ("module", "inputs"),
    [
        (Dense(**SIZES), {"x": torch.ones(2, 5)}),
        (Vision("001"), {"image": torch.zeros(2, 28, 28, dtype=torch.uint8)}),
        (LateFusion(4, 6), {"audio_features": torch.ones(2, 6)}),
    ],
    ids=["dense", "vision", "association"],
)
def test_logits_stand_beside_probabilities(module: AreaModule, inputs: dict[str, torch.Tensor]) -> None:
    module.eval()
    found, plain = module.learning(inputs), module(inputs)
    assert found.keys() - plain.keys() == {"probabilities.logits"}
    assert all(torch.equal(found[name], plain[name]) for name in plain)
    torch.testing.assert_close(found["probabilities.logits"].softmax(dim=1), found["probabilities"])


def test_the_networks_beside_it_still_need_no_torch() -> None:
    program = "import sys; from encephalon.areas import load_network; load_network('diagnostics', '001'); "
    code = f"{program}sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
