"""A brain of several regions as one module: order, gradients, masks, what is frozen, and where it begins."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.areas.network import Arrays
from encephalon.areas.torch_network import AreaModule, TorchNetwork
from encephalon.core.errors import InvalidInput
from encephalon.learning.brain import LearningBrain, chosen
from encephalon.learning.region import LearningRegion
from encephalon.learning.routing import Routing
from encephalon.library.areas import find_network
from encephalon.library.brains import parse_manifest
from tests.unit.learning.brains import FORK, brain_of, settings_of

ONE = find_network("diagnostics", "001")


def batch(rows: int = 4) -> dict[str, Tensor]:
    drawn = torch.Generator().manual_seed(7)
    return {name: torch.randn(rows, 3, generator=drawn) for name in ("x", "z")}


class Normed(AreaModule):
    """Has a running mean, and an integer beside it."""

    contract = ONE

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"y": self.norm(inputs["x"]) * self.scale}


class Halved:
    """No torch module."""

    contract = ONE

    def __call__(self, inputs: Arrays) -> Arrays:
        return {"y": inputs["x"] / np.float32(2)}


def row(*networks: object, settings: object = None, **more: object) -> LearningBrain:
    """Regions a, b, ... one behind the other."""
    names = "abc"[: len(networks)]
    paths = ", ".join(f"{{from: {before}.y, to: {after}.x}}" for before, after in pairwise(names))
    text = (
        "brain: row\ninputs: {x: {datatype: FP32, shape: [-1, 3]}}\n"
        f"regions: {{{', '.join(f'{name}: {{network: diagnostics/001}}' for name in names)}}}\n"
        f"pathways: [{{from: x, to: a.x}}{', ' if paths else ''}{paths}]\noutputs: {{y: {names[-1]}.y}}\n"
    )
    regions = {
        name: LearningRegion(name, TorchNetwork(each) if isinstance(each, AreaModule) else each)  # type: ignore[arg-type]
        for name, each in zip(names, networks, strict=True)
    }
    routing = Routing(parse_manifest(text), {})
    for name in chosen(routing, regions, settings_of(**more)):
        regions[name].learn()
    return LearningBrain(routing, regions)


def test_tensors_stand_in_the_order_in_which_they_are_used() -> None:
    brain = brain_of()
    tensors = brain.tensors()
    assert [tensor.name for tensor in tensors][:5] == [
        "left/layers.0.weight",
        "left/layers.0.bias",
        "left/layers.2.weight",
        "left/layers.2.bias",
        "right/layers.0.weight",
    ]
    assert [tensor.name for tensor in tensors] == list(brain.state())
    assert all(tuple(tensor.shape) == brain.state()[tensor.name].shape for tensor in tensors)
    assert {tensor.kind for tensor in tensors} == {pb.Tensor.KIND_PARAMETER}
    assert brain.classes == {"class": 3}


def test_gradients_reach_every_region_and_outputs_have_logits() -> None:
    brain = brain_of(modality_dropout=0.0)
    outputs = brain(batch())
    assert set(outputs) == {"class", "class.logits", "left"}
    torch.testing.assert_close(outputs["class"], outputs["class.logits"].softmax(dim=1))
    outputs["class.logits"].sum().backward()
    without = [name for name, each in brain.state().items() if each.grad is None]
    assert without == ["join/image.missing", "join/audio.missing"]


def test_a_row_without_an_input_counts_as_if_it_had_come_alone_without_it() -> None:
    brain = brain_of().eval()
    inputs = batch()
    mask = torch.tensor([True, False, True, False])
    mixed = brain({**inputs, "x.present": mask})
    assert mixed["left.present"].tolist() == mask.tolist()
    assert "class.present" not in mixed
    for rows, given in ((mask, inputs), (~mask, {"z": inputs["z"]})):
        alone = brain({name: each[rows] for name, each in given.items()})
        torch.testing.assert_close(mixed["class"][rows], alone["class"])
    nobody = brain({**inputs, "x.present": torch.zeros(4, dtype=torch.bool)})
    assert "left" not in nobody
    torch.testing.assert_close(nobody["class"], brain({"z": inputs["z"]})["class"])
    assert brain({}) == {}


def test_only_what_targets_draw_on_is_computed_and_learned() -> None:
    brain = brain_of(targets={"left": 1.0})
    assert list(brain.regions) == ["left"]
    outputs = brain(batch())
    assert set(outputs) == {"left", "left.logits"}  # a target that is no probability is taken for logits
    assert [spec.name for spec in brain.routing.inputs] == ["x"]


def test_a_frozen_region_lets_gradients_through() -> None:
    brain = brain_of(freeze=("join",)).train()
    assert {tensor.name.partition("/")[0] for tensor in brain.tensors()} == {"left", "right"}
    assert not brain.regions["join"].module.training
    brain(batch())["class.logits"].square().sum().backward()
    assert all(each.grad is not None for each in brain.state().values())
    assert all(each.grad is None for each in brain.regions["join"].module.parameters())
    assert brain_of(learn=("join",)).regions["join"].trainable


def test_buffers_travel_when_they_are_floating_point() -> None:
    brain = row(Normed()).train()
    kinds = {tensor.name: tensor.kind for tensor in brain.tensors()}
    assert kinds == {
        "a/scale": pb.Tensor.KIND_PARAMETER,
        "a/norm.weight": pb.Tensor.KIND_PARAMETER,
        "a/norm.bias": pb.Tensor.KIND_PARAMETER,
        "a/norm.running_mean": pb.Tensor.KIND_BUFFER,
        "a/norm.running_var": pb.Tensor.KIND_BUFFER,
    }


def test_what_is_no_torch_module_stays_as_it_is() -> None:
    brain = row(Halved(), Normed())
    assert [name for name, region in brain.regions.items() if region.trainable] == ["b"]
    assert brain(batch())["y"].requires_grad
    with pytest.raises(InvalidInput, match="region 'a' cannot learn: its network is no torch module; freeze it"):
        row(Halved(), Normed(), learn=("a",))
    with pytest.raises(InvalidInput, match="region 'a' cannot learn: no gradient comes to it from a target"):
        row(Normed(), Halved(), learn=("a",))
    with pytest.raises(InvalidInput, match=r"no region of brain 'row' learns \('a': its network is no torch module\)"):
        row(Halved())


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"targets": {"clas": 1.0}}, "brain 'fork' has no output 'clas'; it has class, left"),
        ({"targets": {"left": 1.0}, "learn": ("join",)}, "'join' cannot learn: the targets left do not draw on it"),
        ({"freeze": ("left", "right", "join")}, "no region of brain 'fork' learns"),
    ],
)
def test_settings_that_do_not_fit_are_explained(more: dict[str, object], sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        brain_of(**more)


def test_a_region_elsewhere_is_refused() -> None:
    text = FORK.replace(
        "{network: diagnostics/005, arguments: {inputs: 3, outputs: 4, width: 5, seed: 1}}", "{address: 'h:1'}"
    )
    with pytest.raises(InvalidInput, match="region 'left' runs at h:1, where nothing can be learned"):
        brain_of(text)


def test_from_scratch_is_the_same_everywhere_and_another_for_each_seed() -> None:
    def begun(**more: object) -> dict[str, Tensor]:
        return {name: each.detach().clone() for name, each in brain_of(from_scratch=True, **more).state().items()}

    torch.manual_seed(5)
    first = begun()
    torch.manual_seed(6)
    again = begun()
    region = brain_of().regions["left"]
    drawn = torch.get_rng_state()
    region.learn(from_scratch=True)
    assert torch.equal(drawn, torch.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = begun(seed=1)
    assert not torch.equal(first["left/layers.0.weight"], other["left/layers.0.weight"])
    assert not torch.equal(first["left/layers.0.weight"], first["right/layers.0.weight"])
    frozen = brain_of(from_scratch=True, freeze=("left",)).regions["left"]
    assert frozen.fingerprint() == brain_of(freeze=("left",)).regions["left"].fingerprint()
    with pytest.raises(
        InvalidInput, match="cannot begin from scratch: its layer '' \\(Normed\\) has no reset_parameters"
    ):
        LearningRegion("a", TorchNetwork(Normed())).learn(from_scratch=True)


def test_bfloat16_computes_in_it_and_answers_in_float32() -> None:
    brain, plain = brain_of(precision="bf16"), brain_of()
    found, expected = brain(batch()), plain(batch())
    assert found["class"].dtype == torch.float32
    assert not torch.equal(found["class"], expected["class"])
    torch.testing.assert_close(found["class"], expected["class"], atol=0.1, rtol=0.0)


def test_the_digest_tells_what_is_computed() -> None:
    digests = [
        brain_of().digest("data"),
        brain_of().digest("other data"),
        brain_of(FORK.replace("seed: 1", "seed: 3"), freeze=("left",)).digest("data"),
        brain_of(freeze=("left",)).digest("data"),
        brain_of(precision="bf16").digest("data"),
        brain_of(targets={"left": 1.0}).digest("data"),
    ]
    assert len(set(digests)) == len(digests)
    assert brain_of().digest("data") == digests[0]
