"""Tensors: arrays and bytes in both directions, and what is refused."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from encephalon.core.errors import InvalidInput
from encephalon.core.wire import DATATYPES, Tensor, datatype_of, dtype_of

FIXED = [name for name in DATATYPES if name != "BYTES"]


@pytest.mark.parametrize("datatype", FIXED)
@given(data=st.data())
def test_every_datatype_round_trips(datatype: str, data: st.DataObject) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    raw = data.draw(st.binary(min_size=64 * 8 * 4, max_size=64 * 8 * 4))
    dtype = dtype_of(datatype)
    count = int(np.prod(shape))
    if datatype == "BOOL":
        array = (np.frombuffer(raw, np.uint8)[:count] > 127).reshape(shape)
    else:
        array = np.frombuffer(raw, dtype)[:count].reshape(shape)
    tensor = Tensor.of("x", array)
    assert (tensor.datatype, tensor.shape, tensor.nbytes) == (datatype, shape, array.nbytes)
    again = Tensor.raw("x", datatype, shape, bytes(tensor.data))
    assert again == tensor
    assert again.array.dtype == dtype
    assert again.array.tobytes() == array.tobytes()


@given(st.lists(st.binary(max_size=20), max_size=12))
def test_bytes_round_trip(values: list[bytes]) -> None:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    tensor = Tensor.of("words", array)
    again = Tensor.raw("words", "BYTES", [len(values)], tensor.data)
    assert again.array.tolist() == values
    assert again.renamed("other").array.tolist() == values


def test_strings_become_utf8() -> None:
    assert Tensor.of("w", np.array([["Grüße", "b"]])).array.tolist() == [["Grüße".encode(), b"b"]]
    assert Tensor.of("w", np.array([b"ab", b"c"])).array.tolist() == [b"ab", b"c"]
    assert bytes(Tensor.of("w", np.array([b"ab"])).data) == b"\x02\x00\x00\x00ab"


def test_other_byte_orders_and_layouts() -> None:
    big = np.arange(6, dtype=">i4").reshape(2, 3)
    tensor = Tensor.of("x", big.T)
    assert tensor.datatype == "INT32"
    assert tensor.array.tolist() == big.T.tolist()
    assert bytes(tensor.data) == np.ascontiguousarray(big.T).astype("<i4").tobytes()


def test_shares_memory_and_is_read_only() -> None:
    array = np.zeros((2, 2), np.float32)
    tensor = Tensor.of("x", array)
    assert np.shares_memory(tensor.array, array)
    assert array.flags.writeable
    assert tensor.data.readonly
    raw = bytes(16)
    view = Tensor.raw("x", "FP32", [2, 2], raw).renamed("y").array
    assert np.shares_memory(view, np.frombuffer(raw, np.uint8))
    for read_only in (tensor.array, view):
        with pytest.raises(ValueError, match="read-only"):
            read_only[0, 0] = 1


def test_scalars_and_empty_tensors() -> None:
    scalar = Tensor.of("x", np.array(3.0, np.float64))
    assert (scalar.shape, scalar.nbytes) == ((), 8)
    empty = Tensor.of("x", np.zeros((0, 4), np.float32))
    assert (empty.nbytes, bytes(empty.data)) == (0, b"")
    assert Tensor.raw("x", "FP32", [0, 4], b"").array.shape == (0, 4)


def test_bfloat16_is_ml_dtypes() -> None:
    array = np.array([1.5, -2.0], dtype=ml_dtypes.bfloat16)
    tensor = Tensor.of("x", array, "BF16")
    assert Tensor.raw("x", "BF16", [2], tensor.data).array.astype(np.float32).tolist() == [1.5, -2.0]


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "said"),
    [
        ("FP32", [2, 2], b"123", "tensor 'x' came with 3 bytes, expected 16 for FP32 [2, 2]"),
        ("FP8", [1], b"1", "datatype 'FP8' is unknown"),
        ("", [1], b"1", "datatype '' is unknown"),
        ("UINT8", [1] * 9, b"1", "9 dimensions, expected at most 8"),
        ("UINT8", [-1], b"", "no negative dimension"),
        ("UINT8", [2**62, 2**62], b"", "more than"),
        ("UINT8", [0, 2**62, 2**62], b"", "more than"),
        ("BOOL", [2], b"\x01\x02", "byte 2, expected 0 or 1"),
        ("BYTES", [1], b"\x05\x00\x00\x00abc", "element 0 has 5 bytes where only 3 are left"),
        ("BYTES", [1], b"\x05\x00", "ends inside the length of element 0"),
        ("BYTES", [2], b"\x01\x00\x00\x00a", "holds 1 elements, expected 2"),
        ("BYTES", [0], b"\x01\x00\x00\x00a", "holds 1 elements, expected 0"),
    ],
)
def test_misfits_are_refused(datatype: str, shape: list[int], data: bytes, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Tensor.raw("x", datatype, shape, data)
    assert said in caught.value.message
    assert "'x'" in caught.value.message
    assert caught.value.details["tensor"] == "x"


@pytest.mark.parametrize("array", [np.zeros(2, np.complex64), np.zeros(2, "M8[s]"), np.zeros(2, [("a", "i4")])])
def test_dtypes_without_a_datatype(array: np.ndarray[Any, Any]) -> None:
    with pytest.raises(InvalidInput, match="dtype"):
        Tensor.of("x", array)


def test_a_datatype_that_was_not_meant() -> None:
    with pytest.raises(InvalidInput, match="tensor 'x' came as FP64, expected FP32; convert it before sending"):
        Tensor.of("x", np.zeros(2), "FP32")
    with pytest.raises(InvalidInput, match="element of type int"):
        Tensor.of("x", np.array([1], dtype=object))
    with pytest.raises(InvalidInput, match="33 dimensions"):
        Tensor.of("x", np.zeros([1] * 33))


def test_names_of_dtypes() -> None:
    assert [datatype_of(dtype_of(name)) for name in DATATYPES] == list(DATATYPES)


def test_equality_is_by_content() -> None:
    one = Tensor.of("x", np.arange(3, dtype=np.int8))
    assert one == Tensor.raw("x", "INT8", [3], b"\x00\x01\x02")
    assert one != one.renamed("y")
    assert one != 3
    assert repr(one) == "Tensor('x', INT8 [3])"
