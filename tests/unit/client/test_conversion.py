from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from encephalon.client.conversion import to_tensors
from encephalon.core.contract import Contract, TensorSpec
from encephalon.core.errors import InvalidInput

CONTRACT = Contract(
    inputs=(
        TensorSpec("image", "UINT8", (-1, -1, -1), optional=True),
        TensorSpec("audio", "INT16", (-1, -1), optional=True),
        TensorSpec("numbers", "FP32", (-1, 3), optional=True),
        TensorSpec("short", "BF16", (-1, 2), optional=True),
        TensorSpec("text", "BYTES", (-1, 1), optional=True),
    ),
    outputs=(),
)


def test_arrays_of_the_contracts_rank_are_a_batch() -> None:
    tensors, single = to_tensors(CONTRACT, {"image": np.zeros((5, 28, 28), np.uint8)})
    assert not single
    assert [(tensor.name, tensor.datatype, tensor.shape) for tensor in tensors] == [("image", "UINT8", (5, 28, 28))]


def test_one_row_gets_a_batch_dimension() -> None:
    tensors, single = to_tensors(CONTRACT, {"image": np.zeros((28, 28), np.uint8), "audio": np.zeros(9, np.int16)})
    assert single
    assert [tensor.shape for tensor in tensors] == [(1, 28, 28), (1, 9)]


def test_none_means_not_sent() -> None:
    tensors, _ = to_tensors(CONTRACT, {"image": None, "audio": np.zeros(9, np.int16)})
    assert [tensor.name for tensor in tensors] == ["audio"]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("numbers", [[1, 2, 3]], np.array([[1, 2, 3]], np.float32)),
        ("numbers", [0.5, 1.5, 2.5], np.array([[0.5, 1.5, 2.5]], np.float32)),
        ("numbers", np.array([[1, 2, 3]], np.uint8), np.array([[1, 2, 3]], np.float32)),
        ("audio", [1, -1, 7], np.array([[1, -1, 7]], np.int16)),
        ("audio", np.arange(3, dtype=">i2"), np.array([[0, 1, 2]], np.int16)),
        ("short", np.array([[1, 2]], ml_dtypes.bfloat16), np.array([[1, 2]], ml_dtypes.bfloat16)),
        ("text", [["ä"]], np.array([["ä".encode()]], object)),
    ],
)
def test_values_that_fit_take_the_contracts_datatype(name: str, value: object, expected: np.ndarray) -> None:
    (tensor,), _ = to_tensors(CONTRACT, {name: value})
    np.testing.assert_array_equal(tensor.array, expected)
    assert tensor.array.dtype == expected.dtype


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"picture": np.zeros((1, 2, 2), np.uint8)}, "unknown input 'picture'; expected image, audio"),
        ({"image": np.zeros((28,), np.uint8)}, "input 'image' came with shape [28]"),
        ({"image": np.zeros((1, 1, 28, 28), np.uint8)}, "or one row [-1, -1]"),
        ({"image": np.zeros((28, 28), np.float64)}, "came as float64, expected uint8 (UINT8)"),
        ({"numbers": np.zeros((1, 3), np.float64)}, ".astype(numpy.float32)"),
        ({"audio": [1, 40000]}, "values that are no int16"),
        ({"audio": [0.5]}, "values that are no int16"),
        ({"audio": "hello"}, "cannot be read as int16"),
        ({"audio": [[1, 2], [3]]}, "cannot be read as int16"),
        ({"numbers": np.zeros((1, 4), np.float32)}, "tensor 'numbers' came with shape [1, 4], expected [-1, 3]"),
        ({"image": np.zeros((28, 28), np.uint8), "audio": np.zeros((1, 9), np.int16)}, "'image' came as one row"),
        ({"image": np.zeros((2, 8, 8), np.uint8), "audio": np.zeros((1, 9), np.int16)}, "unequal batch sizes"),
        ({}, "no input came"),
        ({"image": None}, "no input came"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence(inputs: dict[str, object], sentence: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        to_tensors(CONTRACT, inputs)
    assert sentence in raised.value.message
