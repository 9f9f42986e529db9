"""The codec writes and reads what protobuf itself writes and reads."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from encephalon.api.inference.v1 import inference_pb2 as pb
from encephalon.core.errors import InvalidInput
from encephalon.core.wire import (
    InferRequest,
    InferResponse,
    Parameter,
    SharedTensor,
    StreamError,
    Tensor,
    decode_request,
    decode_response,
    decode_stream_response,
    encode_request,
    encode_response,
    encode_stream_error,
    encode_stream_response,
)
from tests.unit.core import wire_messages as draw


def same_but_for_order(ours: bytes, theirs: Message) -> bool:
    """Protobuf leaves the order of a map's entries open."""
    return len(ours) == theirs.ByteSize() and type(theirs).FromString(ours) == theirs


@given(draw.requests)
def test_requests_are_protobufs_bytes_both_ways(request: InferRequest) -> None:
    theirs = draw.protobuf_request(request)
    assert same_but_for_order(encode_request(request), theirs)
    assert decode_request(theirs.SerializeToString()) == request


@given(draw.responses)
def test_responses_are_protobufs_bytes_both_ways(response: InferResponse) -> None:
    message = draw.protobuf_response(response)
    assert same_but_for_order(encode_response(response), message)
    assert decode_response(message.SerializeToString()) == response


@given(draw.responses)
def test_stream_responses_are_protobufs_bytes_both_ways(response: InferResponse) -> None:
    message = pb.ModelStreamInferResponse(infer_response=draw.protobuf_response(response))
    assert same_but_for_order(encode_stream_response(response), message)
    assert decode_stream_response(message.SerializeToString()) == response


@given(draw.usual_parameters)
def test_the_usual_parameters_are_as_protobuf_writes_them(parameters: dict[str, Parameter]) -> None:
    response = InferResponse("m", parameters=parameters)
    message = draw.protobuf_response(response)
    assert same_but_for_order(encode_response(response), message)
    assert decode_response(message.SerializeToString()) == response


@given(draw.names, draw.texts, draw.parameters)
def test_stream_errors_round_trip(message: str, id: str, parameters: dict[str, Any]) -> None:
    error = StreamError(message, id, parameters)
    assert decode_stream_response(encode_stream_error(error)) == error
    theirs = pb.ModelStreamInferResponse.FromString(encode_stream_error(error))
    assert (theirs.error_message, theirs.infer_response.id) == (message, id)


@given(draw.requests, st.randoms())
def test_fields_in_any_order_with_strangers_between(request: InferRequest, source: random.Random) -> None:
    """Repeated fields keep their order among themselves; all else is shuffled, and unknown fields are passed over."""
    groups: dict[int, list[bytes]] = {}
    for number, payload in top_level(encode_request(request)):
        groups.setdefault(number, []).append(payload)
    strangers = [b"\x98\x06\x96\x01", b"\xa1\x06" + bytes(8), b"\xa5\x06" + bytes(4), b"\xaa\x06\x03abc"]
    pieces = strangers.copy()
    order = [number for number, payloads in groups.items() for _ in payloads] + [0] * len(strangers)
    source.shuffle(order)
    mixed = b"".join(pieces.pop() if number == 0 else groups[number].pop(0) for number in order)
    assert pb.ModelInferRequest.FromString(mixed).inputs == draw.protobuf_request(request).inputs
    assert decode_request(mixed) == request


def test_the_last_of_a_repeated_scalar_counts() -> None:
    first, second = InferRequest("a", "1", "x"), InferRequest("b", "", "y")
    found = decode_request(encode_request(first) + encode_request(second))
    assert (found.model_name, found.model_version, found.id) == ("b", "1", "y")


def test_a_stream_response_in_two_halves_is_merged() -> None:
    tensor = Tensor.of("y", np.arange(3, dtype=np.int16))
    halves = InferResponse("m", "1", "7"), InferResponse("", outputs=[tensor])
    whole = b"".join(map(encode_stream_response, halves))
    theirs = pb.ModelStreamInferResponse.FromString(whole)
    assert theirs.infer_response.id == "7"
    assert decode_stream_response(whole) == InferResponse("m", "1", "7", outputs=[tensor])


def test_payloads_are_slices_of_the_message() -> None:
    message = encode_request(InferRequest("m", inputs=[Tensor.of("x", np.arange(1000, dtype=np.float32))]))
    decoded = decode_request(message).inputs[0]
    assert np.shares_memory(decoded.array, np.frombuffer(message, np.uint8))


TYPED: list[tuple[str, str, list[Any]]] = [
    ("BOOL", "bool_contents", [True, False]),
    ("INT8", "int_contents", [-128, 127]),
    ("INT16", "int_contents", [-(2**15), 2**15 - 1]),
    ("INT32", "int_contents", [-(2**31), 2**31 - 1]),
    ("INT64", "int64_contents", [-(2**63), 2**63 - 1]),
    ("UINT8", "uint_contents", [0, 255]),
    ("UINT16", "uint_contents", [0, 2**16 - 1]),
    ("UINT32", "uint_contents", [0, 2**32 - 1]),
    ("UINT64", "uint64_contents", [0, 2**64 - 1]),
    ("FP32", "fp32_contents", [1.5, float("inf")]),
    ("FP64", "fp64_contents", [1e300, -0.0]),
    ("BYTES", "bytes_contents", [b"", b"ab"]),
]


@pytest.mark.parametrize(("datatype", "field", "values"), TYPED)
def test_typed_contents(datatype: str, field: str, values: list[Any]) -> None:
    message = pb.ModelInferRequest(model_name="m")
    header = message.inputs.add(name="x", datatype=datatype, shape=[1, 2])
    getattr(header.contents, field).extend(values)
    assert decode_request(message.SerializeToString()).inputs[0].array.tolist() == [values]
    getattr(header.contents, field).append(values[0])
    with pytest.raises(InvalidInput, match="tensor 'x' came with 3 elements, expected 2"):
        decode_request(message.SerializeToString())


def test_typed_contents_longer_than_what_is_remembered() -> None:
    message = pb.ModelInferRequest(model_name="m")
    header = message.inputs.add(name="x", datatype="FP32", shape=[1000])
    header.contents.fp32_contents.extend(range(1000))
    assert decode_request(message.SerializeToString()).inputs[0].array.tolist() == list(range(1000))


def test_typed_answers_of_other_servers() -> None:
    message = pb.ModelInferResponse(model_name="m")
    message.outputs.add(name="y", datatype="INT64", shape=[2]).contents.int64_contents.extend([5, 6])
    assert decode_response(message.SerializeToString()).outputs[0].array.tolist() == [5, 6]


def test_shared_outputs_may_lack_an_empty_raw_entry() -> None:
    place = SharedTensor("y", "FP32", (1,), "region", 0, 4)
    tensor = Tensor.of("z", np.ones(1, np.float32))
    message = draw.protobuf_response(InferResponse("m", outputs=[tensor], shared_outputs=[place]))
    del message.raw_output_contents[1]
    found = decode_response(message.SerializeToString())
    assert (found.outputs, found.shared_outputs) == ([tensor], [place])


def top_level(message: bytes) -> list[tuple[int, bytes]]:
    """Fields 1 to 7, all length-delimited, with their tags; written apart from the codec's own scanner."""
    found, position = [], 0
    while position < len(message):
        start, number = position, message[position] >> 3
        position, length, shift = position + 1, 0, 0
        while True:
            byte = message[position]
            length |= (byte & 127) << shift
            position, shift = position + 1, shift + 7
            if byte < 128:
                break
        position += length
        found.append((number, message[start:position]))
    return found
