"""State dicts and safetensors of others become files that a region runs, or are refused."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper
from safetensors.torch import save

from encephalon.areas import load_network
from encephalon.areas.importing import Imported, convert
from encephalon.areas.importing.__main__ import main
from encephalon.areas.importing.naming import renamed
from encephalon.areas.importing.state_dict import read_state_dict
from encephalon.areas.vision import Vision
from encephalon.areas.weights import dumps, fill, pack, read
from encephalon.core.errors import InvalidInput, NotFound
from tests.data import BESIDE
from tests.unit.areas.graphs import graph_of, model, value

OSNET = BESIDE / "reid" / "osnet_x0_25_msmt17.pth"
PICTURE = np.random.default_rng(0).integers(0, 256, (2, 28, 28), np.uint8)


@pytest.fixture(scope="module")
def module() -> Vision:
    torch.manual_seed(0)
    return Vision("001", classes=3).eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def state(module: Vision) -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous() for name, tensor in module.state_dict().items()}


def brought_in(path: Path, **more: Any) -> Imported:
    asked = {"area": "vision", "code": "001", "arguments": {"classes": 3}, **more}
    return convert(path, out=path.with_name("out.safetensors"), **asked)


def check(imported: Imported, module: Vision) -> None:
    network = load_network("vision", "001", imported.path)
    expected = module({"image": torch.from_numpy(PICTURE)})["probabilities"].detach().numpy()
    np.testing.assert_allclose(network({"image": PICTURE})["probabilities"], expected, rtol=1e-5, atol=1e-6)
    assert imported.contract == network.contract
    assert imported.contract.outputs[1].shape == (-1, 3)
    assert (imported.format, imported.architecture) == ("safetensors", "LeNet3")


@pytest.mark.parametrize(
    ("wrap", "notes"),
    [
        (lambda tensors: tensors, ()),
        (lambda tensors: {"state_dict": tensors, "epoch": 7}, ("took the tensors under 'state_dict'",)),
        (
            lambda tensors: {"model": {"state_dict": tensors}},
            ("took the tensors under 'model'", "took the tensors und"),
        ),
        (lambda tensors: {f"module.{name}": value for name, value in tensors.items()}, ("took 'module.' off",)),
        (lambda tensors: {**tensors, "epoch": 7}, ("left out 1 entries that are no tensors",)),
        (lambda tensors: {name: value.half() for name, value in tensors.items()}, None),
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_state_dicts(module: Vision, folder: Path, wrap: Any, notes: tuple[str, ...] | None, legacy: bool) -> None:
    path = folder / "net.pt"
    torch.save(wrap(state(module)), path, _use_new_zipfile_serialization=not legacy)
    imported = brought_in(path)
    if notes is None:
        assert load_network("vision", "001", imported.path).contract == imported.contract
        return
    check(imported, module)
    assert all(found.startswith(note) for found, note in zip(imported.notes, notes, strict=True))


def test_foreign_names_follow_rules(module: Vision, folder: Path) -> None:
    foreign = {
        name.replace("body.", "backbone.features.").replace("head.", "fc."): value
        for name, value in state(module).items()
    }
    (folder / "net.safetensors").write_bytes(save(foreign))
    check(brought_in(folder / "net.safetensors", rename={"backbone.features": "body", "fc": "head"}), module)
    with pytest.raises(InvalidInput) as caught:
        brought_in(folder / "net.safetensors", rename={"fc": "head"})
    assert "'body.0.0.bias' is missing" in caught.value.message
    assert "'backbone.features.0.0.bias' is superfluous" in caught.value.message
    with pytest.raises(InvalidInput, match=r"no tensor's name begins with 'trunk'; there are backbone\.feat"):
        brought_in(folder / "net.safetensors", rename={"trunk": "body"})


def test_rules() -> None:
    assert renamed({"a.b": 1, "a.c": 2, "d": 3}, {"a.": "", "a.c": "e"}) == {"b": 1, "e": 2, "d": 3}
    with pytest.raises(InvalidInput, match=r"'a\.x' and 'b\.x' would both be named 'c\.x'"):
        renamed({"a.x": 1, "b.x": 2}, {"a": "c", "b": "c"})


def test_our_own_files_keep_their_arguments_and_version(module: Vision, folder: Path) -> None:
    (folder / "net.safetensors").write_bytes(dumps(module, "vision/001", {"classes": 3}, "7"))
    imported = brought_in(folder / "net.safetensors", arguments={})
    assert imported.arguments == {"classes": 3}
    assert imported.path.read_bytes() == (folder / "net.safetensors").read_bytes()
    with pytest.raises(InvalidInput, match=r"net\.safetensors holds vision/001, expected hearing/001"):
        brought_in(folder / "net.safetensors", area="hearing")


def test_what_does_not_fit_is_listed_and_nothing_is_written(module: Vision, folder: Path) -> None:
    tensors = state(module)
    tensors["head.bias"] = torch.zeros(4)
    del tensors["head.weight"]
    torch.save(tensors, folder / "net.pt")
    with pytest.raises(InvalidInput) as caught:
        brought_in(folder / "net.pt")
    assert "'head.weight' is missing; 'head.bias' has shape [4], expected [3]" in caught.value.message
    assert [path.name for path in folder.iterdir()] == ["net.pt"]


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("executed",))


def test_a_pickle_that_would_run_code_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"a": Evil()}, folder / "net.pt")
    (folder / "raw.pt").write_bytes(pickle.dumps(Evil()))
    (folder / "old.pt").write_bytes(pickle.dumps(Evil(), protocol=2))
    for name, says in (
        ("net.pt", "holds more than tensors .*print"),
        ("old.pt", "print"),
        ("raw.pt", "is a pickle that"),
    ):
        with pytest.raises(InvalidInput, match=says + r".*torch\.save\(model\.state_dict"):
            brought_in(folder / name)
    assert "executed" not in capsys.readouterr().out


def test_a_whole_module_is_refused_and_says_what_to_do(module: Vision, folder: Path) -> None:
    torch.save(module, folder / "net.pt")
    with pytest.raises(InvalidInput, match=r"holds more than tensors \(encephalon.*torch\.save\(model\.state_dict"):
        brought_in(folder / "net.pt")


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {}, torch.zeros(3)])
def test_what_holds_no_named_tensors_is_refused(folder: Path, content: Any) -> None:
    torch.save(content, folder / "net.pt")
    with pytest.raises(InvalidInput, match=r"expected tensors by name|holds no tensors by name"):
        brought_in(folder / "net.pt")


@pytest.mark.parametrize("legacy", [False, True])
def test_every_cut_of_a_state_dict_is_refused(folder: Path, legacy: bool) -> None:
    torch.save({"a": torch.zeros(2)}, folder / "whole.pt", _use_new_zipfile_serialization=not legacy)
    whole = (folder / "whole.pt").read_bytes()
    for length in range(0, len(whole), 1 if legacy else 7):
        (folder / "net.pt").write_bytes(whole[:length])
        with pytest.raises(InvalidInput):
            brought_in(folder / "net.pt")


def test_every_cut_of_safetensors_is_refused(folder: Path) -> None:
    whole = save({"a": torch.zeros(2), "b": torch.ones(3)})
    for length in range(len(whole)):
        (folder / "net.safetensors").write_bytes(whole[:length])
        with pytest.raises(InvalidInput):
            brought_in(folder / "net.safetensors")


@pytest.mark.parametrize("length", [1 << 20, 1 << 40, (1 << 63) - 1, (1 << 64) - 1])
def test_a_header_of_an_absurd_size_is_refused_at_once(folder: Path, length: int) -> None:
    (folder / "net.safetensors").write_bytes(length.to_bytes(8, "little") + b'{"a":{}}')
    began = time.perf_counter()
    with pytest.raises(InvalidInput, match="cannot be read as safetensors"):
        brought_in(folder / "net.safetensors")
    assert time.perf_counter() - began < 1


def test_a_tensor_that_repeats_its_bytes_is_refused(folder: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, folder / "net.pt")
    with pytest.raises(InvalidInput, match=r"tensor 'a' has shape \[1099511627776\], more than the file holds"):
        brought_in(folder / "net.pt")


def test_tied_weights_are_told_apart(folder: Path) -> None:
    tied = torch.arange(4.0)
    torch.save({"a": tied, "b": tied, "c": tied[1:]}, folder / "net.pt")
    tensors, _ = read_state_dict(folder / "net.pt")
    packed = read(pack(tensors, "vision/001", {}, "")).tensors
    assert {name: tensor.tolist() for name, tensor in packed.items()} == {
        "a": [0, 1, 2, 3], "b": [0, 1, 2, 3], "c": [1, 2, 3],
    }  # fmt: skip


def test_many_tensors_of_the_same_bytes_are_refused(folder: Path) -> None:
    torch.save({str(number): torch.zeros(1).expand(1000) for number in range(100)}, folder / "net.pt")
    with pytest.raises(InvalidInput, match="more than the file holds"):
        read_state_dict(folder / "net.pt")


def test_a_pickle_that_holds_itself_is_refused(folder: Path) -> None:
    endless: dict[str, Any] = {}
    endless |= dict.fromkeys(("state_dict", "model", "net"), endless)
    torch.save(endless, folder / "net.pt")
    with pytest.raises(InvalidInput, match="holds no tensors by name"):
        read_state_dict(folder / "net.pt")


def test_tensors_without_numbers_are_refused(folder: Path) -> None:
    torch.save({"a": torch.empty(3, device="meta")}, folder / "net.pt")
    with pytest.raises(InvalidInput, match="'a' is sparse, quantised or empty, expected plain numbers"):
        read_state_dict(folder / "net.pt")


def test_a_header_that_says_nothing_or_too_much() -> None:
    nothing, deep = b'{"__metadata__":null}', b'{"__metadata__":{"arguments":"' + b"[" * 5000 + b'"}}'
    assert read(len(nothing).to_bytes(8, "little") + nothing).arguments == {}
    with pytest.raises(InvalidInput, match="cannot be read as safetensors"):
        read(len(deep).to_bytes(8, "little") + deep)


@pytest.mark.parametrize(
    ("tensor", "fits"),
    [
        (torch.ones(3, dtype=torch.float64), True),
        (torch.full((3,), 1e300, dtype=torch.float64), False),
        (torch.ones(3).to(torch.float8_e4m3fn), True),
        (torch.full((3,), torch.nan).to(torch.float8_e4m3fn), False),
    ],
)
def test_numbers_must_fit_what_is_computed_with(tensor: torch.Tensor, fits: bool) -> None:
    module = torch.nn.Module()
    module.register_buffer("a", torch.zeros(3))
    if not fits:
        with pytest.raises(InvalidInput, match="'a' holds numbers that are not finite"):
            fill(module, {"a": tensor}, "x")
        return
    fill(module, {"a": tensor}, "x")
    assert module.state_dict()["a"].tolist() == [1, 1, 1]


def test_a_compressed_archive_is_refused(folder: Path) -> None:
    torch.save({"a": torch.zeros(1_000_000)}, folder / "whole.pt")
    with (
        zipfile.ZipFile(folder / "whole.pt") as whole,
        zipfile.ZipFile(folder / "net.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for member in whole.infolist():
            packed.writestr(member.filename, whole.read(member))
    with pytest.raises(InvalidInput, match="is compressed, which PyTorch never does"):
        brought_in(folder / "net.pt")


def test_what_is_asked_for_must_be_there(folder: Path) -> None:
    (folder / "net.onnx").write_bytes(graph_of())
    (folder / "net.h5").write_bytes(b"x")
    (folder / "net.weights").write_bytes(b"x")
    with pytest.raises(NotFound, match=r"none\.pt cannot be read: No such file"):
        brought_in(folder / "none.pt")
    with pytest.raises(NotFound, match="area 'vision' has no network '777'"):
        brought_in(folder / "net.onnx", code="777")
    with pytest.raises(InvalidInput, match=r"net\.onnx is an ONNX graph, but the code is 001; 900 is the code of ONNX"):
        brought_in(folder / "net.onnx")
    with pytest.raises(InvalidInput, match=r"net\.h5 has no name of a weights file; expected one that ends in \.safe"):
        brought_in(folder / "net.h5")
    with pytest.raises(InvalidInput, match="Darknet's weights need their cfg file"):
        brought_in(folder / "net.weights")
    with pytest.raises(InvalidInput, match="a cfg goes only with Darknet"):
        brought_in(folder / "net.onnx", area="graph", code="900", cfg=folder / "net.cfg")


@pytest.mark.skipif(not OSNET.is_file(), reason=f"no weights at {OSNET}")
def test_a_published_state_dict_is_read_and_compared_tensor_by_tensor(folder: Path) -> None:
    with pytest.raises(InvalidInput, match=r"do not fit vision/001: 'body\.0\.0\.bias' is missing; .* and \d+ more"):
        convert(OSNET, area="vision", code="001", out=folder / "o")


def test_as_a_command(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encephalon.areas.importing.__main__.limit_memory", lambda source: None)
    (folder / "net.onnx").write_bytes(graph_of())
    words = [str(folder / "net.onnx"), "--area", "graph", "--code", "900", "--out", str(folder / "out.onnx")]
    assert main([*words, "--rename", "x=numbers", "--argument", "threads=2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["path"] == str(folder / "out.onnx")
    assert found["arguments"] == {"threads": 2, "rename": {"x": "numbers"}}
    assert found["contract"]["inputs"][0]["name"] == "numbers"
    assert main(words) == 0
    assert "graph/900 ONNX graph is in" in capsys.readouterr().out
    assert main([*words, "--argument", "depth=high"]) == 1
    assert capsys.readouterr().err == "graph/900 has no argument 'depth'; it takes rename, threads\n"
    assert main([*words, "--argument", "depth=high", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["reason"] == "InvalidInput"


@pytest.mark.parametrize(
    ("sizes", "more", "says"),
    [
        # Eight gigabytes in one tensor; then 0.5 GB, over and over, in a process that has no time for it.
        ([1 << 16, 1 << 14, 1, 2], [], "failed on a trial with x [1, 2]"),
        ([1 << 13, 1 << 13, 1, 2], ["--timeout-s", "0.01"], "net.onnx has not answered within 0.01 s"),
    ],
)
def test_a_small_graph_that_unfolds_without_end_is_given_up(
    folder: Path, sizes: list[int], more: list[str], says: str
) -> None:
    nodes = [
        helper.make_node("Expand", ["x", "s"], ["c"]),
        helper.make_node("ReduceSum", ["c"], ["t"], keepdims=0),
        helper.make_node("Add", ["x", "t"], ["y"]),
    ]
    graph = model(nodes, [value("x", ["N", 2])], [value("y", ["N", 2])], {"s": np.array(sizes)})
    (folder / "net.onnx").write_bytes(graph.SerializeToString())
    words = [str(folder / "net.onnx"), "--area", "graph", "--code", "900", "--out", str(folder / "o"), "--json", *more]
    command = [sys.executable, "-m", "encephalon.areas.importing", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 1
    assert says in json.loads(done.stdout)["error"]["message"]


def test_the_process_keeps_within_its_memory_and_needs_no_torch_for_onnx(folder: Path) -> None:
    (folder / "net.onnx").write_bytes(graph_of())
    program = (
        "import sys; from encephalon.areas.importing.__main__ import main;"
        "sys.exit(main(sys.argv[1:]) or 'torch' in sys.modules)"
    )
    words = [str(folder / "net.onnx"), "--area", "graph", "--code", "900", "--out", str(folder / "out.onnx")]
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
