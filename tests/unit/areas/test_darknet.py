"""Darknet's networks against numbers that OpenCV computed, and files that are damaged or hostile."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path

import numpy as np
import pytest

from encephalon.areas import load_network
from encephalon.areas.graph.cfg import read_cfg
from encephalon.areas.graph.darknet import DarknetLayer, reorganise
from encephalon.areas.graph.plan import Layer, plan_of
from encephalon.areas.importing import Imported, convert
from encephalon.core.errors import InvalidInput
from tests.data import BESIDE
from tests.references.darknet import CFGS, EPSILON, NET, REFERENCE, SAMPLES, picture, weights_file

YOLO_FASTEST = BESIDE / "detectors" / "yolo-fastest" / "ModelZoo"
EXPECTED: dict[str, dict[str, list[float]]] = json.loads(REFERENCE.read_text())
SMALL = NET + "[convolutional]\nbatch_normalize=1\nfilters=2\nsize=1\nactivation=leaky\n[maxpool]\nsize=2\nstride=2\n"


def brought_in(folder: Path, cfg: str, weights: bytes | None = None) -> Imported:
    (folder / "net.cfg").write_text(cfg)
    (folder / "net.weights").write_bytes(weights_file(plan_of(cfg)) if weights is None else weights)
    return convert(
        folder / "net.weights", area="graph", code="901", out=folder / "net.safetensors", cfg=folder / "net.cfg"
    )


def check(cfg: str, path: Path, expected: dict[str, list[float]]) -> None:
    network = load_network("graph", "901", path, {"epsilon": EPSILON})
    found = network({"image": picture(plan_of(cfg))})
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        values = found[name].ravel()
        step = max(1, len(values) // SAMPLES)
        assert len(values[::step]) == len(wanted)
        # 1e-4 of numbers that go up to 30 in the large networks.
        np.testing.assert_allclose(values[::step], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", list(CFGS))
def test_answers_are_those_of_opencv(name: str, tmp_path: Path) -> None:
    imported = brought_in(tmp_path, CFGS[name])
    assert (imported.architecture, imported.format, imported.arguments) == (
        "Darknet graph",
        "safetensors",
        {"cfg": CFGS[name]},
    )
    assert [spec.name for spec in imported.contract.outputs] == list(EXPECTED[name])
    check(CFGS[name], imported.path, EXPECTED[name])


@pytest.mark.skipif(not YOLO_FASTEST.is_dir(), reason=f"no networks at {YOLO_FASTEST}")
@pytest.mark.parametrize("name", [name for name in EXPECTED if name not in CFGS])
def test_published_networks_answer_as_in_opencv(name: str, tmp_path: Path) -> None:
    (cfg,) = YOLO_FASTEST.glob(f"*/{name}.cfg")
    imported = convert(cfg.with_suffix(".weights"), area="graph", code="901", out=tmp_path / "net.safetensors", cfg=cfg)
    assert imported.notes[0].startswith("trained on ")
    assert imported.contract.inputs[0].shape == (-1, 3, 320, 320)
    assert [spec.shape[2:] for spec in imported.contract.outputs] == [(10, 10), (20, 20)]
    check(cfg.read_text(), imported.path, EXPECTED[name])


def test_connected_and_dropout_by_hand(tmp_path: Path) -> None:
    cfg = "[net]\nchannels=1\nheight=1\nwidth=2\n[dropout]\n[connected]\noutput=2\nactivation=relu\n"
    numbers = np.array([10, -20, 1, 2, 3, 4], "<f4")  # biases, then a row per output
    imported = brought_in(tmp_path, cfg, struct.pack("<3iQ", 0, 2, 0, 0) + numbers.tobytes())
    network = load_network("graph", "901", imported.path)
    found = network({"image": np.array([[[[1, 1]]], [[[2, 5]]]], np.float32)})["output"]
    assert found.reshape(2, 2).tolist() == [[13, 0], [22, 6]]


def test_scaling_by_another_layer(tmp_path: Path) -> None:
    squeeze = "[avgpool]\n[scale_channels]\nfrom=-2\n[sam]\nfrom=-1\n"
    cfg = NET + "[convolutional]\nfilters=2\nsize=1\nactivation=linear\n" + squeeze
    network = load_network("graph", "901", brought_in(tmp_path, cfg).path)
    x = picture(plan_of(cfg))
    layers = network.module.layers  # type: ignore[attr-defined]
    first = np.einsum("oi,bihw->bohw", layers[0].weight.numpy()[:, :, 0, 0], x) + layers[0].bias.numpy()[:, None, None]
    scaled = first * first.mean((2, 3), keepdims=True)
    np.testing.assert_allclose(network({"image": x})["output"], scaled * scaled, rtol=1e-4)


def test_reorg_moves_numbers_as_darknets_loop_does() -> None:
    channels, height, width, stride = 8, 4, 6, 2
    x = np.arange(channels * height * width, dtype=np.float32)
    expected = np.empty_like(x)
    for k in range(channels):  # reorg_cpu of Darknet's blas.c, forward = 0
        for j in range(height):
            for i in range(width):
                offset, c2 = divmod(k, channels // stride**2)
                w2, h2 = i * stride + offset % stride, j * stride + offset // stride
                expected[i + width * (j + height * k)] = x[w2 + width * stride * (h2 + height * stride * c2)]
    import torch

    layer = DarknetLayer(Layer("reorg", 1, (32, 2, 3), (-1,), {"stride": stride}), EPSILON)
    found = reorganise(layer, torch.from_numpy(x.reshape(1, channels, height, width)))
    assert found.shape == (1, 32, 2, 3)
    np.testing.assert_array_equal(found.numpy().ravel(), expected)


def test_every_cut_is_refused_and_names_what_is_missing(tmp_path: Path) -> None:
    whole = weights_file(plan_of(SMALL))
    for length in range(len(whole)):
        with pytest.raises(InvalidInput):
            brought_in(tmp_path, SMALL, whole[:length])
    with pytest.raises(InvalidInput) as caught:
        brought_in(tmp_path, SMALL, whole[: 20 + 4 * 5])
    for part in (
        "'layers.0.mean' has 1 of 2 numbers",
        "'layers.0.variance' is missing",
        "'layers.0.weight' is missing",
    ):
        assert part in caught.value.message
    with pytest.raises(InvalidInput, match=r"has 15 numbers, but the cfg takes 14; 1 are left over"):
        brought_in(tmp_path, SMALL, whole + bytes(4))
    assert not (tmp_path / "net.safetensors").exists()


def test_numbers_that_are_not_finite_are_named(tmp_path: Path) -> None:
    whole = weights_file(plan_of(SMALL))
    with pytest.raises(InvalidInput, match=r"'layers\.0\.weight' holds numbers that are not finite"):
        brought_in(tmp_path, SMALL, whole[:-4] + struct.pack("<f", float("nan")))


def test_the_older_header_is_understood(tmp_path: Path) -> None:
    whole = weights_file(plan_of(SMALL))
    older = struct.pack("<3iI", 0, 1, 0, 7) + whole[20:]
    assert brought_in(tmp_path, SMALL, older).notes == ("trained on 7 pictures",)
    with pytest.raises(InvalidInput, match=r"version 5000\.1"):
        brought_in(tmp_path, SMALL, struct.pack("<3iI", 5000, 1, 0, 7) + whole[20:])


@pytest.mark.parametrize(
    ("cfg", "says"),
    [
        ("", "does not start with a section [net]"),
        ("[convolutional]\n", "does not start with a section [net]"),
        ("width=3\n[net]\n", "cfg line 1: 'width=3' is no 'key=value' below a section"),
        ("\x00\x01\x02\n", "is it a cfg file?"),
        (NET, "no layer follows"),
        ("[net]\nchannels=3\nheight=12\n[avgpool]\n", "cfg line 1, [net]: 'width' is missing"),
        (NET.replace("12", "twelve") + "[avgpool]\n", "'height' is 'twelve', expected a whole number from 1 to 8192"),
        (NET.replace("12", "9" * 5_000) + "[avgpool]\n", "'height' is '999"),
        (NET + "[lstm]\n", "cfg line 5, [lstm]: there is no such layer; known are convolutional"),
        (NET + "[convolutional]\nactivation=magic\n", "activation 'magic' is not supported; known are linear, leaky"),
        (NET + "[convolutional]\nsize=50\nactivation=linear\n", "nothing is left of its input [3, 12, 16]"),
        (NET + "[convolutional]\nfilters=4\ngroups=2\n", "3 channels and 4 filters cannot be divided into 2 groups"),
        (NET + "[convolutional]\nbinary=1\n", "'binary=1' is not supported"),
        (NET + "[convolutional]\nfilters=1000000\nsize=1000\npad=1\n", "more than any real one"),
        (NET + "[upsample]\nstride=64\n" * 3, "more than any real one"),
        (NET + "[upsample]\nstride=65\n", "'stride' is '65', expected a whole number from 1 to 64"),
        (NET + "[route]\nlayers=-1\n", "'layers' names layer -1, but there are 0 before it"),
        (NET + "[avgpool]\n[route]\nlayers=\n", "'layers' is ''"),
        (NET + "[avgpool]\n[shortcut]\nfrom=1\n", "'from' names layer 1, but there are 1 before it"),
        (NET + "[upsample]\n[maxpool]\nstride=2\n[shortcut]\nfrom=0\n", "adds [3, 24, 32] to [3, 12, 16]"),
        (NET + "[upsample]\n[maxpool]\nstride=2\n[route]\nlayers=0,1\n", "they must be equal"),
        (NET + "[avgpool]\n" * 2_001, "the cfg has 2002 sections, expected at most 2000"),
        (NET + "[reorg]\nstride=2\n", "cannot be divided by the stride 2"),
        ("#" * 10_000_000, "the cfg has 10000000 characters, expected at most"),
    ],
)
def test_a_cfg_that_cannot_be_is_refused_at_once(cfg: str, says: str) -> None:
    began = time.perf_counter()
    with pytest.raises(InvalidInput) as caught:
        plan_of(cfg)
    assert says in caught.value.message
    assert time.perf_counter() - began < 2


def test_a_large_cfg_file_is_not_even_read(tmp_path: Path) -> None:
    (tmp_path / "net.cfg").write_text("[net]\n" * 2_000_000)
    (tmp_path / "net.weights").write_bytes(bytes(100))
    with pytest.raises(InvalidInput, match=r"net\.cfg has 12000000 bytes, expected a cfg of at most"):
        convert(tmp_path / "net.weights", area="graph", code="901", out=tmp_path / "o", cfg=tmp_path / "net.cfg")


def test_an_absurd_network_takes_no_memory(tmp_path: Path) -> None:
    """Half a billion parameters on paper: the weights' size says that it cannot be."""
    cfg = NET + "[convolutional]\nfilters=4000\nsize=1\nactivation=linear\n" * 30
    began = time.perf_counter()
    with pytest.raises(InvalidInput, match=r"'layers\.0\.bias' has 2 of 4000 numbers"):
        brought_in(tmp_path, cfg, bytes(24))
    assert time.perf_counter() - began < 2


def test_comments_and_spaces_do_not_matter() -> None:
    (net, route) = read_cfg("# a comment\n[net] ; another\n\n width = 3 # wide\n[ROUTE]\nlayers = -1, -2 ,\n")
    assert (net.kind, net.options, net.line) == ("net", {"width": "3"}, 2)
    assert (route.kind, route.numbers("layers")) == ("route", [-1, -2])


def test_weights_are_needed_and_the_cfg_is_text(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="graph/901 has no weights of its own"):
        load_network("graph", "901")
    imported = brought_in(tmp_path, SMALL)
    with pytest.raises(InvalidInput, match="the cfg is int, expected the text of a Darknet cfg file"):
        load_network("graph", "901", imported.path, {"cfg": 7})
