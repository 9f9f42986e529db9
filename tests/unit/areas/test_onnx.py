"""ONNX graphs as networks, and graphs that are damaged, hostile or cannot be served."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from encephalon.areas import load_network
from encephalon.areas.graph.scan import scan
from encephalon.areas.importing import convert
from encephalon.core.errors import EncephalonError, InvalidInput, Unsupported
from tests.data import BESIDE
from tests.unit.areas.graphs import graph_of, model, value, vision

FASTEST_DET = BESIDE / "detectors" / "fastestdet" / "FastestDet.onnx"
X = np.array([[1, 2, 3], [0, 1, 0]], np.float32)
Y = [[17, 23], [3, 4]]


@pytest.mark.parametrize("batch", ["N", 1])
def test_a_graph_with_a_contract_of_its_own(batch: str | int, tmp_path: Path) -> None:
    path = tmp_path / "in.onnx"
    path.write_bytes(graph_of(batch))
    imported = convert(path, area="graph", code="900", out=tmp_path / "out.onnx", rename={"x": "numbers"})
    assert (imported.format, imported.architecture) == ("onnx", "ONNX graph")
    assert imported.path.read_bytes() == path.read_bytes()
    assert [(spec.name, spec.shape) for spec in imported.contract.inputs] == [("numbers", (-1, 3))]
    network = load_network("graph", "900", imported.path, imported.arguments)
    assert network.contract == imported.contract
    assert network({"numbers": X})["y"].tolist() == Y


def test_a_graph_in_an_area_fulfils_the_areas_contract() -> None:
    network = load_network("vision", "900", vision("embedding"), {"rename": {"embedding": "features"}})
    assert network.contract.outputs[0].shape == (-1, 2)
    picture = np.full((2, 5, 7), 3, np.uint8)
    assert network({"image": picture})["features"].tolist() == [[3, -3], [3, -3]]


def test_every_difference_from_the_areas_contract_is_listed() -> None:
    with pytest.raises(InvalidInput) as caught:
        load_network("vision", "900", vision("embedding", TensorProto.FLOAT))
    for part in (
        "the graph does not fulfil the contract of area vision",
        "input 'image' is FP32, expected UINT8",
        "output 'features' (FP32 [-1, -1]) is missing; it has 'embedding', 'probabilities'",
    ):
        assert part in caught.value.message
    with pytest.raises(InvalidInput, match=r"output 'features' is missing|'features' \(FP32"):
        load_network("hearing", "900", vision("embedding"))


def test_an_optional_input_has_a_mask_beside_it() -> None:
    nodes = [
        helper.make_node("Cast", ["image_features.present"], ["there"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["there", "one"], ["column"]),
        helper.make_node("Mul", ["image_features", "column"], ["seen"]),
        helper.make_node("Cast", ["audio_features.present"], ["there2"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["there2", "one"], ["column2"]),
        helper.make_node("Mul", ["audio_features", "column2"], ["heard"]),
        helper.make_node("Add", ["seen", "heard"], ["probabilities"]),
    ]
    inputs = [value(f"{name}_features", ["N", 2]) for name in ("image", "audio")]
    masks = [value(f"{name}_features.present", ["N"], TensorProto.BOOL) for name in ("image", "audio")]
    graph = model(nodes, inputs + masks, [value("probabilities", ["N", 2])], {"one": np.array([1])})
    network = load_network("association", "900", graph.SerializeToString())
    assert [(spec.name, spec.optional) for spec in network.contract.inputs] == [
        ("image_features", True),
        ("audio_features", True),
    ]
    image, audio = np.array([[1, 2], [3, 4]], np.float32), np.array([[10, 20], [30, 40]], np.float32)
    assert network({"image_features": image})["probabilities"].tolist() == image.tolist()
    both = {"image_features": image, "audio_features": audio, "audio_features.present": np.array([True, False])}
    assert network(both)["probabilities"].tolist() == [[11, 22], [3, 4]]


def test_every_cut_is_refused() -> None:
    whole = graph_of()
    for length in range(len(whole)):
        with pytest.raises(EncephalonError):
            load_network("graph", "900", whole[:length])


def test_changed_bytes_never_end_in_anything_but_a_sentence() -> None:
    random = np.random.default_rng(3)
    whole = np.frombuffer(graph_of(), np.uint8)
    for _ in range(200):
        changed = whole.copy()
        changed[random.integers(0, len(whole), 3)] = random.integers(0, 256, 3)
        try:
            load_network("graph", "900", changed.tobytes())
        except EncephalonError as error:
            assert error.message  # noqa: PT017 - whether it raises depends on the bytes


def test_tensors_in_other_files_are_refused(tmp_path: Path) -> None:
    """Without a look at the other file, which may be anybody's."""
    graph = model([helper.make_node("Add", ["x", "b"], ["y"])], [value("x", ["N", 2])], [value("y", ["N", 2])])
    tensor = graph.graph.initializer.add(name="b", data_type=TensorProto.FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/hostname")
    with pytest.raises(Unsupported, match="keeps tensors in other files"):
        load_network("graph", "900", graph.SerializeToString())


def test_operators_of_others_are_refused() -> None:
    node = helper.make_node("Magic", ["x"], ["y"], domain="com.example")
    graph = model([node], [value("x", ["N", 2])], [value("y", ["N", 2])], domains=["com.example"])
    with pytest.raises(Unsupported, match=r"operators that onnxruntime does not have: com\.example::Magic"):
        load_network("graph", "900", graph.SerializeToString())


def test_a_function_of_the_file_itself_is_no_foreign_operator() -> None:
    twice = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    node = helper.make_node("Twice", ["x"], ["y"], domain="own")
    graph = model([node], [value("x", ["N", 3])], [value("y", ["N", 3])], domains=["own"], functions=[twice])
    assert load_network("graph", "900", graph.SerializeToString())({"x": X})["y"].tolist() == (2 * X).tolist()


@pytest.mark.parametrize("depth", [30, 100])
def test_functions_that_unfold_without_end_are_refused(depth: int) -> None:
    """Each calls the next one twice: the last is written out 2**depth times."""
    opset = helper.make_opsetid("own", 1)

    def twice(number: int) -> Any:
        calls = [helper.make_node(f"f{number + 1}", [x], [y], domain="own") for x, y in ("xt", "ty")]
        return helper.make_function("own", f"f{number}", ["x"], ["y"], calls, [opset])

    neg = helper.make_function(
        "own", f"f{depth}", ["x"], ["y"], [helper.make_node("Neg", ["x"], ["y"])], [helper.make_opsetid("", 17)]
    )
    functions = [*map(twice, range(depth)), neg]
    node = helper.make_node("f0", ["x"], ["y"], domain="own")
    graph = model([node], [value("x", ["N", 3])], [value("y", ["N", 3])], domains=["own"], functions=functions)
    with pytest.raises(InvalidInput, match="has more parts than any real ONNX graph"):
        load_network("graph", "900", graph.SerializeToString())


def test_a_loop_is_refused() -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["v"], ["w"])],
        "body",
        [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("v", ["N", 2])],
        [value("on", [], TensorProto.BOOL), value("w", ["N", 2])],
    )
    node = helper.make_node("Loop", ["", "yes", "x"], ["y"], body=body)
    graph = model([node], [value("x", ["N", 2])], [value("y", ["N", 2])], {"yes": np.array(True)})
    with pytest.raises(Unsupported, match=r"repeats itself as its data decide \(Loop\)"):
        load_network("graph", "900", graph.SerializeToString())


@pytest.mark.parametrize(
    ("shape", "says"),
    [([], "has 0 dimensions, expected a batch first"), ([4, 3], "4 rows at a time; export it with a first dimension")],
)
def test_a_graph_without_a_batch_is_refused(shape: list[int], says: str) -> None:
    graph = model([helper.make_node("Neg", ["x"], ["y"])], [value("x", shape)], [value("y", shape)])
    with pytest.raises(Unsupported, match=says):
        load_network("graph", "900", graph.SerializeToString())


def test_a_graph_that_gives_other_rows_than_it_takes_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=1)
    graph = model([node], [value("x", ["N", 3])], [value("y", ["M", 1])])
    path = tmp_path / "in.onnx"
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(InvalidInput, match=r"gave 'y' as \[1, 1\] for 2 rows; the first dimension must be the batch"):
        convert(path, area="graph", code="900", out=tmp_path / "out.onnx")


def test_strings_are_refused() -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    text = [value(name, ["N"], TensorProto.STRING) for name in ("x", "y")]
    with pytest.raises(Unsupported, match=r"tensor 'x' of the graph is a tensor\(string\), expected one of"):
        load_network("graph", "900", model([node], text[:1], text[1:]).SerializeToString())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"rename": {"z": "a"}}, "rename names 'z', which the graph does not have; it has x, y"),
        ({"rename": {"x": "y"}}, "two of the graph's tensors have one name"),
        ({"rename": ["x"]}, "expected names of the graph to names of the contract"),
        ({"threads": 0}, "threads is 0, expected 1 to 256"),
        ({"depth": 1}, "graph/900 has no argument 'depth'; it takes rename, threads"),
    ],
)
def test_arguments_that_cannot_be(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_network("graph", "900", graph_of(), arguments)
    assert says in caught.value.message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 10,
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes(10),
        b"\xff" * 100,
        b"\x3a\x02\x0a\x10",
        bytes(4) + b"ORTM" + bytes(100),
        b"\x0a" * 1_000,
    ],
)
def test_what_is_no_graph_is_refused_at_once(data: bytes) -> None:
    began = time.perf_counter()
    with pytest.raises((InvalidInput, Unsupported)):
        load_network("graph", "900", data)
    assert time.perf_counter() - began < 2


def test_a_graph_in_a_graph_without_end_is_refused() -> None:
    """Attribute in node in graph in attribute ..., which a recursive reader would die of."""
    data = b""
    for _ in range(500):
        for tag in (b"\x32", b"\x2a", b"\x0a"):  # attribute.g, node.attribute, graph.node
            data = tag + varint(len(data)) + data
    with pytest.raises(InvalidInput, match="nests deeper"):
        scan(b"\x3a" + varint(len(data)) + data)


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


@pytest.mark.skipif(not FASTEST_DET.is_file(), reason=f"no network at {FASTEST_DET}")
def test_a_published_network_runs_row_by_row(tmp_path: Path) -> None:
    imported = convert(
        FASTEST_DET, area="graph", code="900", out=tmp_path / "o", rename={"input.1": "image", "758": "map"}
    )
    network = load_network("graph", "900", imported.path, imported.arguments)
    pictures = np.random.default_rng(0).random((2, 3, 352, 352), np.float32)
    both = network({"image": pictures})["map"]
    assert both.shape == (2, 85, 22, 22)
    np.testing.assert_array_equal(both[1:], network({"image": pictures[1:]})["map"])
