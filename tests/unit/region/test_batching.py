from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encephalon.core.contract import Contract, TensorSpec
from encephalon.core.errors import FailedPrecondition, Internal
from encephalon.core.wire import Tensor
from encephalon.region.batching import shapes_of, split, stack, unify_shapes, zeros
from encephalon.region.fitting import check_contract

X = TensorSpec("x", "FP32", (-1, -1))
A = TensorSpec("a", "FP32", (-1, -1), optional=True)
Y = TensorSpec("y", "FP32", (-1, -1))
CONTRACT = Contract((X, A), (Y,))


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=8), st.integers(1, 5))
def test_what_is_stacked_and_split_again_is_what_came(messages: list[tuple[int, bool]], width: int) -> None:
    rows = [count for count, _ in messages]
    inputs = []
    for number, (count, present) in enumerate(messages):
        x = Tensor.of("x", np.full((count, width), number, np.float32))
        a = Tensor.of("a", np.full((count, 2), 100 + number, np.float32))
        inputs.append({"x": x, "a": a} if present else {"x": x})
    batch = stack(CONTRACT, inputs, rows)
    assert batch["x"].shape == (sum(rows), width)
    came = [present for _, present in messages]
    mask = np.repeat(came, rows)
    if any(came):
        assert batch["a"].shape == (sum(rows), 2)
        assert np.array_equal(batch["a"][mask], np.concatenate([i["a"].array for i in inputs if "a" in i]))
        assert not batch["a"][~mask].any()
    else:
        assert "a" not in batch
    assert ("a.present" in batch) == (any(came) and not all(came))
    if "a.present" in batch:
        assert np.array_equal(batch["a.present"], mask)
    parts = split(CONTRACT, {"y": batch["x"]}, rows, [None] * len(rows))
    for number, (part, count) in enumerate(zip(parts, rows, strict=True)):
        assert part[0].name == "y"
        assert np.array_equal(part[0].array, np.full((count, width), number, np.float32))


def test_shapes_unify_where_an_input_is_absent() -> None:
    x, wide = (Tensor.of("x", np.zeros((2, width), np.float32)) for width in (3, 4))
    a = Tensor.of("a", np.zeros((2, 7), np.float32))
    with_a, without = shapes_of(CONTRACT, {"x": x, "a": a}), shapes_of(CONTRACT, {"x": x})
    assert with_a == ((3,), (7,))
    assert unify_shapes(with_a, without) == unify_shapes(without, with_a) == with_a
    assert unify_shapes(without, shapes_of(CONTRACT, {"x": wide})) is None


@pytest.mark.parametrize(
    ("outputs", "sentence"),
    [
        ({}, "no output 'y'"),
        ({"y": np.zeros((3, 1), np.float32)}, "3 rows of 'y' for 2"),
        ({"y": np.zeros(2, np.float32)}, "broke the contract"),
        ({"y": np.zeros((2, 1), np.float64)}, "broke the contract"),
    ],
)
def test_outputs_that_break_the_contract_are_the_networks_fault(outputs: dict[str, np.ndarray], sentence: str) -> None:
    with pytest.raises(Internal, match=sentence):
        split(CONTRACT, outputs, [1, 1], [None, None])


def test_only_wanted_outputs_are_given() -> None:
    contract = Contract((X,), (Y, TensorSpec("z", "FP32", (-1, -1))))
    outputs = {"y": np.ones((2, 1), np.float32), "z": np.zeros((2, 1), np.float32)}
    parts = split(contract, outputs, [1, 1], [{"z"}, None])
    assert [[tensor.name for tensor in part] for part in parts] == [["z"], ["y", "z"]]


def test_an_empty_message_fits_every_contract() -> None:
    specs = [
        TensorSpec(kind, kind, (-1, 5, -1)) for kind in ("BOOL", "INT8", "UINT64", "FP16", "BF16", "FP64", "BYTES")
    ]
    contract = Contract(tuple(specs), ())
    message = zeros(contract, 3, any_size=32)
    assert contract.check_inputs(list(message.values())) == 3
    assert message["FP16"].shape == (3, 5, 32)


def spec(shape: tuple[int, ...], optional: bool = False, datatype: str = "FP32", name: str = "x") -> TensorSpec:
    return TensorSpec(name, datatype, shape, optional)


BASE = Contract((spec((-1, -1)), spec((-1, 8), True, name="a")), (spec((-1, 8), name="y"),))


def test_a_narrower_network_fits() -> None:
    check_contract(Contract((spec((-1, 64)), spec((-1, 8), True, name="a")), BASE.outputs), BASE)
    check_contract(Contract((*BASE.inputs, spec((-1,), True, name="new")), BASE.outputs), BASE)


@pytest.mark.parametrize(
    ("inputs", "outputs", "sentence"),
    [
        ((BASE.inputs[0],), BASE.outputs, "no input 'a'"),
        (BASE.inputs, (), "no output 'y'"),
        ((spec((-1, -1), datatype="FP64"), BASE.inputs[1]), BASE.outputs, "is FP64, expected FP32"),
        ((spec((-1, -1, -1)), BASE.inputs[1]), BASE.outputs, "has shape"),
        ((BASE.inputs[0], spec((-1, -1), True, name="a")), BASE.outputs, "has shape"),
        ((BASE.inputs[0], spec((-1, 8), name="a")), BASE.outputs, "is required, expected optional"),
        ((*BASE.inputs, spec((-1,), name="new")), BASE.outputs, "needs an input 'new'"),
    ],
)
def test_a_network_that_callers_would_notice_does_not_fit(
    inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], sentence: str
) -> None:
    with pytest.raises(FailedPrecondition, match=sentence):
        check_contract(Contract(inputs, outputs), BASE)
