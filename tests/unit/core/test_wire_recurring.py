"""Requests that are like an earlier one are read as if they were the first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encephalon.core.errors import InvalidInput
from encephalon.core.wire import InferRequest, Tensor, decode_request, encode_request, recurring
from tests.unit.core import wire_messages as draw


def request(id: str = "", fill: float = 0.0, model: str = "m", **more: str) -> InferRequest:
    tensors = [Tensor.of(name, np.full((1, 3), fill, np.float32)) for name in ("a", "b")]
    return InferRequest(model, id=id, parameters=dict(more), inputs=tensors)


def test_other_elements_and_ids() -> None:
    for number in range(10, 20):
        sent = request(str(number), number / 7)
        assert decode_request(encode_request(sent)) == sent


def test_other_fields_of_the_same_length() -> None:
    for model in ("m", "n", "m"):
        sent = request("1", model=model)
        assert decode_request(encode_request(sent)) == sent


def test_parameters_are_no_one_elses() -> None:
    message = encode_request(request("1"))
    decode_request(message).parameters["mine"] = 1
    decode_request(message).inputs.clear()
    assert decode_request(message) == request("1")


def test_an_id_that_is_no_text() -> None:
    message = encode_request(request("id"))
    decode_request(message)
    with pytest.raises(InvalidInput, match="UTF-8"):
        decode_request(message.replace(b"id", b"\xff\xff"))


def test_bytes_that_may_be_no_elements_are_looked_at() -> None:
    message = encode_request(InferRequest("m", inputs=[Tensor.of("t", np.array([True]))]))
    decode_request(message)
    with pytest.raises(InvalidInput, match="BOOL"):
        decode_request(message[:-1] + b"\x02")


@given(draw.requests, st.data())
def test_read_twice_is_read_the_same(sent: InferRequest, data: st.DataObject) -> None:
    message = encode_request(sent)
    assert decode_request(message) == decode_request(message) == sent
    damaged = bytearray(message or b"\x00")
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    assert outcome(bytes(damaged), forget=False) == outcome(bytes(damaged), forget=True)


def outcome(message: bytes, *, forget: bool) -> object:
    if forget:
        recurring.patterns.clear()
    try:
        return decode_request(message)
    except InvalidInput as error:
        return error.message


def test_few_are_remembered() -> None:
    for length in range(2 * recurring.MOST_PATTERNS):
        decode_request(encode_request(request("i" * length)))
    assert len(recurring.patterns) <= recurring.MOST_PATTERNS
