from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from encephalon.areas import load_network
from encephalon.areas.torch_network import TorchNetwork
from encephalon.areas.vision import Vision
from encephalon.areas.weights import dumps, read
from encephalon.core.errors import InvalidInput, NotFound
from encephalon.library.areas import AREAS


@pytest.fixture(scope="module")
def module() -> Vision:
    torch.manual_seed(0)
    return Vision("001").eval()


def without(state: dict[str, torch.Tensor], *names: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in state.items() if name not in names}


def test_weights_survive_a_round_trip_from_bytes_and_from_a_file(module: Vision, tmp_path: Path) -> None:
    data = dumps(module, "vision/001", {"classes": 10}, "7")
    path = tmp_path / "weights.safetensors"
    path.write_bytes(data)
    picture = np.random.default_rng(0).integers(0, 256, (2, 28, 28), np.uint8)
    expected = module({"image": torch.from_numpy(picture)})
    for source in (data, path):
        network = load_network("vision", "001", source)
        assert isinstance(network, TorchNetwork)
        assert network.version == "7"
        found = network({"image": picture})
        for name in ("features", "probabilities"):
            np.testing.assert_allclose(found[name], expected[name].detach().numpy(), rtol=1e-5, atol=1e-6)
            assert found[name].dtype == np.float32


def test_read_only_inputs_stay_as_they_are_and_any_batch_goes(module: Vision) -> None:
    network = load_network("vision", "001", dumps(module, "vision/001", {}, ""))
    picture = np.frombuffer(bytes(28 * 28 * 5), np.uint8).reshape(5, 28, 28)
    whole = network({"image": picture})["probabilities"]
    one = network({"image": picture[:1]})["probabilities"]
    np.testing.assert_allclose(whole[:1], one, rtol=1e-5)
    assert network({"image": picture[:0]})["features"].shape == (0, 288)


def test_half_precision_is_stored_and_float32_computed(module: Vision) -> None:
    state = {name: tensor.to(torch.float16).contiguous() for name, tensor in module.state_dict().items()}
    network = load_network("vision", "001", save(state))
    assert isinstance(network, TorchNetwork)
    assert {p.dtype for p in network.module.parameters()} == {torch.float32}


def test_arguments_come_from_the_file_and_may_be_overridden(module: Vision) -> None:
    data = dumps(Vision("001", classes=3), "vision/001", {"classes": 3}, "1")
    assert load_network("vision", "001", data).contract.outputs[1].shape == (-1, 3)
    with pytest.raises(InvalidInput, match=r"'head.bias' has shape \[3\], expected \[4\]"):
        load_network("vision", "001", data, {"classes": 4})
    with pytest.raises(InvalidInput, match="vision/001 has no argument 'width'; it takes classes"):
        load_network("vision", "001", data, {"width": 4})


@pytest.mark.parametrize("classes", [0, -1, 10**12, "10", 2.0])
def test_a_file_that_asks_for_an_absurd_size_is_refused(module: Vision, classes: object) -> None:
    with pytest.raises(InvalidInput, match=r"classes is .*, expected a whole number from 1 to 65536"):
        load_network("vision", "001", dumps(module, "vision/001", {"classes": classes}, ""))
    sizes = {"image_features": 288, "audio_features": 1152, "width": classes}
    with pytest.raises(InvalidInput, match=r"width is .*, expected a whole number from 1"):
        load_network("association", "001", arguments=sizes)


def test_every_difference_is_listed(module: Vision) -> None:
    state = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    broken = {
        **without(state, "head.weight"),
        "extra": torch.zeros(1),
        "body.0.0.bias": torch.zeros(9),
        "head.bias": torch.full((10,), torch.nan),
        "body.1.0.bias": torch.zeros(16, dtype=torch.int32),
    }
    with pytest.raises(InvalidInput) as caught:
        load_network("vision", "001", save(broken))
    for part in (
        "'head.weight' is missing",
        "'extra' is superfluous",
        "'body.0.0.bias' has shape [9], expected [8]",
        "'head.bias' holds numbers that are not finite",
        "'body.1.0.bias' has type int32, expected floating point",
    ):
        assert part in caught.value.message
    assert caught.value.details["faults"] == "5"


def test_weights_of_another_network_are_refused_even_when_their_shapes_fit(module: Vision) -> None:
    with pytest.raises(InvalidInput, match=r"are those of vision/001, expected hearing/001"):
        load_network("hearing", "001", dumps(module, "vision/001", {}, "1"))


@pytest.mark.parametrize("data", [b"", b"x" * 7, b"no safetensors at all", (10**9).to_bytes(8, "little") + b"{}"])
def test_what_is_no_safetensors_file_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="cannot be read as safetensors"):
        load_network("vision", "001", data)


def test_a_cut_file_is_refused(module: Vision) -> None:
    with pytest.raises(InvalidInput, match="cannot be read as safetensors"):
        load_network("vision", "001", dumps(module, "vision/001", {}, "1")[:-100])


def test_arguments_that_are_no_object_are_refused() -> None:
    with pytest.raises(InvalidInput, match="expected a JSON object"):
        read(save({"a": torch.zeros(1)}, {"arguments": "[1]"}))


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        NotFound, match="there is no area 'smell'; there are vision, hearing, association, diagnostics, graph"
    ):
        load_network("smell", "001")
    with pytest.raises(NotFound, match="has no network '005'; it has 001 LeNet3"):
        load_network("vision", "005")
    with pytest.raises(NotFound, match=r"none\.safetensors cannot be read: No such file"):
        load_network("vision", "001", tmp_path / "none.safetensors")


@pytest.mark.parametrize("area", ["vision", "hearing", "association"])
def test_the_packaged_weights_load_and_fit_their_contract(area: str) -> None:
    declared = AREAS[area].contract
    assert declared is not None
    for code in AREAS[area].networks.keys() - {"900"}:
        contract = load_network(area, code).contract
        for wide, narrow in zip(declared.inputs + declared.outputs, contract.inputs + contract.outputs, strict=True):
            assert (wide.name, wide.datatype, wide.optional) == (narrow.name, narrow.datatype, narrow.optional)
            assert all(size in (-1, own) for size, own in zip(wide.shape, narrow.shape, strict=True))
