from __future__ import annotations

import pytest
import torch

from encephalon.api.learning.v1 import learning_pb2 as pb
from encephalon.core.errors import InvalidInput
from encephalon.learning.activations import MOST_TENSORS, decode, encode


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(2, 3),
        torch.randn(3, 2).t(),
        torch.randn(4).bfloat16(),
        torch.tensor([True, False]),
        torch.empty(0, 3),
        torch.tensor(2.5, dtype=torch.float64),
        torch.randint(255, (2, 2, 2), dtype=torch.uint8),
        torch.ones(2, requires_grad=True),
    ],
)
def test_a_tensor_comes_as_it_went(tensor: torch.Tensor) -> None:
    found = decode(encode({"t": tensor}))["t"]
    assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
    assert torch.equal(found, tensor.detach())
    found.fill_(1)


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ([pb.NamedTensor(name="a", datatype="FP32", shape=[2], data=b"1234")], "'a' came with 4 bytes, expected 8"),
        ([pb.NamedTensor(name="a", datatype="BYTES", shape=[0])], "'a' came as BYTES"),
        ([pb.NamedTensor(name="a", datatype="FP32", shape=[1 << 62, 1 << 62])], "'a' came with shape"),
        ([pb.NamedTensor(name="a", datatype="FP32", shape=[0] * 9)], "'a' came with 9 dimensions"),
        ([pb.NamedTensor(name="a", datatype="BOOL", shape=[1], data=b"\x02")], "'a' is BOOL"),
        ([pb.NamedTensor(name="a", datatype="FP32", shape=[0])] * 2, "'a' came twice"),
        (
            [pb.NamedTensor(name=str(number), datatype="FP32", shape=[0]) for number in range(MOST_TENSORS + 1)],
            "more than 512 tensors",
        ),
    ],
)
def test_what_is_no_tensor_is_named(tensors: list[pb.NamedTensor], sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        decode(tensors)


def test_a_dtype_that_does_not_travel_is_named() -> None:
    with pytest.raises(InvalidInput, match="'t' is torch"):
        encode({"t": torch.ones(1, dtype=torch.complex64)})
