"""Whatever bytes come, InvalidInput with a sentence is all that comes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from encephalon.api.inference.v1 import inference_pb2 as pb
from encephalon.core.errors import InvalidInput
from encephalon.core.wire import (
    InferRequest,
    InferResponse,
    RequestedOutput,
    StreamError,
    Tensor,
    decode_request,
    decode_response,
    decode_stream_response,
    encode_request,
    encode_stream_response,
    peek_id,
    peek_stream_id,
)
from tests.unit.core import wire_messages as draw

DECODERS: list[tuple[Callable[[bytes], Any], Any]] = [
    (decode_request, pb.ModelInferRequest),
    (decode_response, pb.ModelInferResponse),
    (decode_stream_response, pb.ModelStreamInferResponse),
]
X = Tensor.of("x", np.zeros((1, 2), np.float32))


def attempt(decode: Callable[[bytes], Any], message: bytes) -> tuple[Any, str]:
    try:
        return decode(message), ""
    except InvalidInput as error:
        return None, error.message


def survives(message: bytes) -> None:
    """Decoded, or refused with a sentence; what we take, protobuf takes; what we took can be used."""
    for decode, theirs in DECODERS:
        decoded, refused = attempt(decode, message)
        if decoded is None:
            assert len(refused) > 20
            continue
        theirs.FromString(message)
        if isinstance(decoded, StreamError):
            continue
        for tensor in decoded.inputs if isinstance(decoded, InferRequest) else decoded.outputs:
            assert tensor.array.shape == tensor.shape
    peek_id(message)
    peek_stream_id(message)


@given(st.binary(max_size=200))
@example(b"\x0a")
@example(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
@example(b"\x07")
@example(b"\x2a\x00")
@example(b"\x12\x02\x0a\x05")
@settings(max_examples=1000)
def test_random_bytes(message: bytes) -> None:
    survives(message)


@given(draw.requests, st.data())
@settings(max_examples=500)
def test_damaged_requests(request: InferRequest, data: st.DataObject) -> None:
    message = bytearray(encode_request(request))
    for _ in range(data.draw(st.integers(1, 4))):
        if message:
            message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    survives(bytes(message))
    survives(bytes(message[: data.draw(st.integers(0, len(message)))]))


@given(draw.responses, st.data())
@settings(max_examples=300)
def test_damaged_answers(response: InferResponse, data: st.DataObject) -> None:
    message = bytearray(encode_stream_response(response))
    message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    survives(bytes(message))
    survives(bytes(message[: data.draw(st.integers(0, len(message)))]))


@given(st.binary(max_size=60))
@settings(max_examples=500)
def test_a_header_of_random_bytes(payload: bytes) -> None:
    survives(bytes([0x2A, len(payload)]) + payload)
    survives(bytes([0x22, len(payload)]) + payload)
    survives(bytes([0x32, len(payload)]) + payload)


def request(*inputs: tuple[str, str, list[int]], raw: list[bytes] | None = None) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="m")
    for name, datatype, shape in inputs:
        message.inputs.add(name=name, datatype=datatype, shape=shape)
    message.raw_input_contents.extend(raw or [])
    return message


def both_ways() -> pb.ModelInferRequest:
    message = request(("x", "FP32", [1]), raw=[bytes(4)])
    message.inputs[0].contents.fp32_contents.append(1)
    return message


def wrong_contents() -> pb.ModelInferRequest:
    message = request(("x", "FP32", [1]))
    message.inputs[0].contents.int_contents.append(1)
    return message


def untyped_contents() -> pb.ModelInferRequest:
    message = request(("x", "BF16", [1]))
    message.inputs[0].contents.fp32_contents.append(1)
    return message


def beyond_int8() -> pb.ModelInferRequest:
    message = request(("x", "INT8", [1]))
    message.inputs[0].contents.int_contents.append(300)
    return message


def shared_and_typed() -> pb.ModelInferRequest:
    message = wrong_contents()
    message.inputs[0].datatype = "INT32"
    message.inputs[0].parameters["shared_memory_region"].string_param = "r"
    return message


def shared_without_size() -> pb.ModelInferRequest:
    message = request(("x", "FP32", [1]))
    message.inputs[0].parameters["shared_memory_region"].string_param = "r"
    return message


def empty_parameter() -> pb.ModelInferRequest:
    message = request(("x", "FP32", [1]), raw=[bytes(4)])
    message.parameters["priority"].SetInParent()
    return message


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (request(("x", "FP32", [1, 2]), raw=[b"123"]), "tensor 'x' came with 3 bytes, expected 8 for FP32 [1, 2]"),
        (request(("x", "FP32", [1])), "tensor 'x' came without contents, expected 1 elements of FP32"),
        (
            request(("x", "FP32", [1]), ("y", "FP32", [1]), raw=[bytes(4)]),
            "1 raw contents came for 2 tensors ('x', 'y')",
        ),
        (request(raw=[bytes(4)]), "1 raw contents came for 0 tensors (no tensor)"),
        (request(("x", "FP32", [1] * 9), raw=[bytes(4)]), "tensor 'x' came with 9 dimensions"),
        (request(("x", "FP32", [-1]), raw=[bytes(4)]), "tensor 'x' came with shape [-1]"),
        (request(("x", "FP32", [2**62, 4]), raw=[b""]), "tensor 'x' came with shape"),
        (request(("x", "FLOAT", [1]), raw=[bytes(4)]), "tensor 'x': datatype 'FLOAT' is unknown"),
        (request(("", "FP32", [1]), raw=[bytes(4)]), "a tensor came without a name"),
        (request(("x", "BYTES", [1]), raw=[b"\x09\x00\x00\x00a"]), "tensor 'x' is BYTES and says that element 0"),
        (both_ways(), "tensor 'x' came in typed contents beside raw contents"),
        (wrong_contents(), "tensor 'x' came in int_contents, expected fp32_contents"),
        (untyped_contents(), "tensor 'x' is BF16, which has no typed contents"),
        (beyond_int8(), "tensor 'x' has an element that does not fit into INT8"),
        (shared_and_typed(), "tensor 'x' came both in its contents and in shared memory"),
        (shared_without_size(), "tensor 'x': shared_memory_byte_size came as None"),
        (empty_parameter(), "parameter 'priority' came without a value"),
    ],
)
def test_what_does_not_fit_is_named(message: pb.ModelInferRequest, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_request(message.SerializeToString())
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (b"\x0a\x02\xff\xfe", "not UTF-8"),
        (b"\x2a\x04\x0a\x02\xff\xfe", "not UTF-8"),
        (b"\x22\x04\x0a\x02\xff\xfe", "not UTF-8"),
        (b"\x32\x04\x0a\x02\xff\xfe", "not UTF-8"),
        (b"\x08\x01", "field 1 has wire type 0, expected 2"),
        (b"\x3d\x00\x00\x00\x00", "field 7 has wire type 5, expected 2"),
        (b"\x0a\x05ab", "field 1 has 5 bytes where only 2 are left"),
        (b"\x0a\x80", "ends in the middle"),
        (b"\xff\xff\xff\xff\xff\x01", "does not end"),
        (b"\x02\x00", "field number 0"),
        (b"\xa3\x06\xa4\x06", "field 100 has wire type 3"),
        (b"\xa1\x06\x00", "ends in the middle"),
    ],
)
def test_what_is_no_message_is_said(message: bytes, said: str) -> None:
    with pytest.raises(InvalidInput, match="Open Inference Protocol") as caught:
        decode_request(message)
    assert said in caught.value.message


@given(draw.requests)
def test_strict_where_protobuf_is(request: InferRequest) -> None:
    """A name that is not UTF-8 is refused by both."""
    message = encode_request(request) + b"\x1a\x01\xff"
    with pytest.raises(DecodeError):
        pb.ModelInferRequest.FromString(message)
    with pytest.raises(InvalidInput):
        decode_request(message)


@pytest.mark.parametrize(
    "request_",
    [
        InferRequest("\ud800"),
        InferRequest("m", id="\udfff"),
        InferRequest("m", parameters={"\ud800": 1}),
        InferRequest("m", parameters={"a": "\ud800"}),
        InferRequest("m", parameters={"a": 2**64}),
        InferRequest("m", parameters={"a": None}),  # type: ignore[dict-item]
        InferRequest("m", inputs=[X.renamed("\ud800")]),
        InferRequest("m", outputs=[RequestedOutput("\ud800")]),
    ],
)
def test_what_cannot_be_written(request_: InferRequest) -> None:
    with pytest.raises(InvalidInput):
        encode_request(request_)


def test_the_id_of_a_malformed_request() -> None:
    message = encode_request(InferRequest("m", id="42", inputs=[X]))
    assert peek_id(message + b"\x3a\x00") == "42"
    assert peek_id(message[:-1]) == ""
    assert peek_id(b"\x1a\x01\xff") == ""
    assert peek_stream_id(encode_stream_response(InferResponse("m", id="7", outputs=[X]))) == "7"
