"""What is answered on the spot and what is left to the session; streams over it are tested in test_inference_stream."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encephalon.core import logs
from encephalon.core.inference import InferenceService, linked
from encephalon.core.inference.link import Link, open_link
from encephalon.core.wire import (
    InferRequest,
    InferResponse,
    RequestedOutput,
    SharedTensor,
    StreamError,
    Tensor,
    decode_stream_response,
    encode_request,
)
from tests.unit.core.echo import Echo, instantly

X = Tensor.of("x_fp32", np.ones((1, 2), np.float32))
FRAME = 1 << 20


def message(id: str = "7", **parameters: Any) -> bytes:
    return encode_request(InferRequest("echo", id=id, parameters=parameters, inputs=[X]))


def decoded(answer: bytes | None) -> InferResponse | StreamError:
    assert answer is not None
    return decode_stream_response(answer)


async def test_the_answer_is_that_of_the_domain() -> None:
    models = Echo()
    found = decoded(instantly(models).answer(message(timeout=2_000_000, priority=3)))
    assert isinstance(found, InferResponse)
    assert (found.id, found.outputs) == ("7", [X.renamed("y_fp32")])
    assert models.deadlines[0] == pytest.approx(2.0, abs=0.1)


async def test_errors_are_answers_too() -> None:
    unknown = decoded(instantly(Echo()).answer(encode_request(InferRequest("other", id="8", inputs=[X]))))
    assert isinstance(unknown, StreamError)
    assert (unknown.id, unknown.parameters["error_status"]) == ("8", "NOT_FOUND")
    malformed = decoded(instantly(Echo()).answer(message(timeout=-1)))
    assert isinstance(malformed, StreamError)
    assert "timeout" in malformed.message


async def test_what_is_not_ours_to_say_stays_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    models = Echo()
    monkeypatch.setattr(models, "describe", lambda *_: 1 / 0)
    found = decoded(instantly(models).answer(message()))
    assert isinstance(found, StreamError)
    assert "zero" not in found.message


SHARED = SharedTensor("x_fp32", "FP32", (1, 2), "r", 0, 8)
LEFT = {
    "a cancel message": message(cancel=True),
    "the flag of decoupled models": message(triton_enable_empty_final_response=True),
    "memory for outputs": message(**{"encephalon.output_region": "r", "encephalon.output_byte_size": 8}),
    "chosen outputs": encode_request(InferRequest("echo", inputs=[X], outputs=[RequestedOutput("y_fp32")])),
    "inputs in memory": encode_request(InferRequest("echo", shared_inputs=[SHARED])),
    "a large message": encode_request(
        InferRequest("echo", inputs=[Tensor.of("x_fp32", np.ones((1, 16_384), np.float32))])
    ),
    "rubbish": b"\xff\xff\xff",
}


@pytest.mark.parametrize("left", LEFT.values(), ids=LEFT.keys())
async def test_is_left_to_the_session(left: bytes) -> None:
    models = Echo()
    assert instantly(models).answer(left) is None
    assert not models.requests


async def test_a_network_that_is_not_cheap_is_left_to_the_session() -> None:
    models = Echo()
    assert instantly(models, cheap=False).answer(message()) is None
    assert not models.requests


async def test_an_answer_that_is_too_large_is_left_to_the_session() -> None:
    assert instantly(Echo(), max_message_bytes=10).answer(message()) is None


async def test_lines_of_the_log_carry_the_id_while_it_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    models, seen = Echo(), []
    monkeypatch.setattr(models, "describe", lambda *_: seen.append(logs.request_id.get()))
    instantly(models).answer(message("of this request"))
    assert seen == ["of this request"]
    assert logs.request_id.get() == ""


async def test_what_comes_together_is_answered_together(tmp_path: Path) -> None:
    async with linked(InferenceService(Echo()), str(tmp_path / "link"), FRAME, instant=instantly(Echo())):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "link"))
        frames = [message(str(number)) for number in range(200)]
        writer.write(b"".join(struct.pack("<I", len(frame)) + frame for frame in frames))
        got = []
        for _ in frames:
            (length,) = struct.unpack("<I", await asyncio.wait_for(reader.readexactly(4), 5))
            got.append(decoded(await reader.readexactly(length)).id)
        assert got == [str(number) for number in range(200)]
        writer.close()


async def test_nothing_is_computed_for_a_caller_that_takes_no_answers(tmp_path: Path) -> None:
    quick, models = Echo(), Echo()
    service = InferenceService(models, max_in_flight=4)
    async with linked(service, str(tmp_path / "link"), FRAME, instant=instantly(quick)):
        link = await open_link(str(tmp_path / "link"), FRAME, 1)
        link._transport.pause_reading()  # type: ignore[union-attr] -- nobody takes the answers
        before = -1
        sending = asyncio.create_task(send_for_ever(link))
        while len(quick.requests) != before:  # until a while passes in which nothing more is answered
            before = len(quick.requests)
            await asyncio.wait([sending], timeout=0.3)
        assert 0 < before < 20_000
        assert not sending.done()
        sending.cancel()
        link.cancel()


async def send_for_ever(link: Link) -> None:
    while True:
        await link.write(message())


async def test_a_link_that_ends_answers_nothing_more_on_the_spot(tmp_path: Path) -> None:
    quick = Echo()
    async with linked(InferenceService(Echo()), str(tmp_path / "link"), FRAME, instant=instantly(quick)):
        link = await open_link(str(tmp_path / "link"), FRAME, 1)
        await link.write(message("before"))
        read = await asyncio.wait_for(link.read(), 5)
        assert isinstance(read, bytes)
        assert decoded(read).id == "before"
    assert len(quick.requests) == 1
    link.cancel()
