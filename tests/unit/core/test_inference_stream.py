"""Many requests over one stream: answers, errors, cancellation, back-pressure, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from encephalon.core.errors import (
    Cancelled,
    DeadlineExceeded,
    Internal,
    InvalidInput,
    NotFound,
    Overloaded,
    Unavailable,
)
from encephalon.core.inference import InferenceClient, InferenceService, InferStream, linked
from encephalon.core.inference.names import SERVICE, method
from encephalon.core.wire import (
    InferRequest,
    InferResponse,
    StreamError,
    Tensor,
    decode_stream_response,
    encode_request,
    encode_stream_response,
)
from tests.unit.core.echo import Echo, instantly, served
from tests.waiting import until

X = Tensor.of("x_fp32", np.ones((1, 2), np.float32))


FRAME = 64 * 2**20
carrier = "gRPC"


@pytest.fixture(autouse=True, params=["gRPC", "local link", "instant"])
def _carried_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test is run over both, and over a link that answers on the spot what it can."""
    monkeypatch.setattr(sys.modules[__name__], "carrier", request.param)


@contextlib.asynccontextmanager
async def stream_to(service: InferenceService, folder: Path, **options: Any) -> AsyncIterator[InferStream]:
    async with contextlib.AsyncExitStack() as stack:
        address = await stack.enter_async_context(served(service, folder))
        if carrier != "gRPC":
            options["link"] = str(folder / "link")
            instant = instantly(service._models) if carrier == "instant" else None
            await stack.enter_async_context(linked(service, options["link"], FRAME, instant=instant))
        client = await stack.enter_async_context(InferenceClient(address))
        yield await stack.enter_async_context(await client.open_stream(**options))


def held(**more: Any) -> InferRequest:
    return InferRequest("echo", parameters={"hold": True, **more}, inputs=[X])


async def test_answers_come_as_they_are_ready_with_the_callers_ids(tmp_path: Path) -> None:
    models = Echo()
    async with stream_to(InferenceService(models), tmp_path) as stream:
        slow = asyncio.create_task(stream.infer(InferRequest("echo", "", "same", {"hold": True}, [X]), 10))
        await until(lambda: models.running == 1)
        quick = await stream.infer(InferRequest("echo", "1", "same", inputs=[X]), 10)
        assert not slow.done()
        assert (quick.id, quick.model_name, quick.model_version) == ("same", "echo", "1")
        assert quick.outputs == [X.renamed("y_fp32")]
        assert stream.in_flight == 1
        models.released.set()
        assert (await slow).id == "same"


async def test_a_thousand_at_once(tmp_path: Path) -> None:
    async with stream_to(InferenceService(Echo(), max_in_flight=16), tmp_path, max_in_flight=64) as stream:

        async def ask(number: int) -> None:
            array = np.full((1, 3), number, np.int32)
            answer = await stream.infer(InferRequest("echo", id="", inputs=[Tensor.of("x_int32", array)]), 30)
            assert answer.outputs[0].array.tolist() == array.tolist()

        await asyncio.gather(*map(ask, range(1000)))


async def test_errors_are_those_of_the_domain(tmp_path: Path) -> None:
    async with stream_to(InferenceService(Echo()), tmp_path) as stream:
        with pytest.raises(Overloaded, match="it failed as told") as caught:
            await stream.infer(InferRequest("echo", parameters={"fail": "Overloaded"}, inputs=[X]), 10)
        assert caught.value.details == {"tensor": "x", "region": "visual"}
        with pytest.raises(NotFound):
            await stream.infer(InferRequest("other", inputs=[X]), 10)
        with pytest.raises(Internal) as hidden:
            await stream.infer(InferRequest("echo", parameters={"crash": True}, inputs=[X]), 10)
        assert "secret" not in hidden.value.message
        assert (await stream.infer(InferRequest("echo", inputs=[X]), 10)).outputs


async def test_cancelling_one_caller_stops_its_work_only(tmp_path: Path) -> None:
    models = Echo()
    async with stream_to(InferenceService(models), tmp_path) as stream:
        one, other = (asyncio.create_task(stream.infer(held(), 10)) for _ in range(2))
        await until(lambda: models.running == 2)
        one.cancel()
        await until(lambda: models.cancelled == 1, within=1)
        assert models.running == 1
        with pytest.raises(asyncio.CancelledError):
            await one
        models.released.set()
        assert (await other).outputs


async def test_a_deadline_stops_the_work_and_the_server_knows_it(tmp_path: Path) -> None:
    models = Echo()
    async with stream_to(InferenceService(models), tmp_path) as stream:
        with pytest.raises(DeadlineExceeded, match="within"):
            await stream.infer(held(), 0.1)
        await until(lambda: models.running == 0, within=1)
        assert 0 < models.deadlines[0] <= 0.1
        with pytest.raises(DeadlineExceeded):
            await stream.infer(held(timeout=50_000), 10)
        assert 0 < models.deadlines[1] <= 0.05
        assert (await stream.infer(InferRequest("echo", inputs=[X]), 10)).outputs


async def test_waiting_for_a_place_ends_with_the_deadline(tmp_path: Path) -> None:
    models = Echo()
    async with stream_to(InferenceService(models), tmp_path, max_in_flight=1) as stream:
        first = asyncio.create_task(stream.infer(held(), 10))
        await until(lambda: models.running == 1)
        with pytest.raises(DeadlineExceeded):
            await stream.infer(held(), 0.05)
        models.released.set()
        assert (await first).outputs
        assert len(models.requests) == 1


async def test_what_is_too_large_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async with (
        served(InferenceService(Echo()), tmp_path) as address,
        InferenceClient(address, max_message_bytes=1000) as client,
    ):
        large = InferRequest("echo", inputs=[Tensor.of("x_fp32", np.zeros((1, 1000), np.float32))])
        async with await client.open_stream() as stream:
            with pytest.raises(InvalidInput, match="expected at most 1000"):
                await stream.infer(large, 10)
            assert (await stream.infer(InferRequest("echo", inputs=[X]), 10)).outputs
        with pytest.raises(InvalidInput, match="expected at most 1000"):
            await client.infer(large, 10)


async def test_closing_fails_those_who_wait(tmp_path: Path) -> None:
    models = Echo()
    async with stream_to(InferenceService(models), tmp_path) as stream:
        waiting = [asyncio.create_task(stream.infer(held(), 10)) for _ in range(3)]
        await until(lambda: models.running == 3)
        await stream.close()
        await stream.close()
        for task in waiting:
            with pytest.raises(Unavailable, match="closed"):
                await task
        with pytest.raises(Unavailable):
            await stream.infer(held(), 10)
        await until(lambda: models.cancelled == 3, within=1)


async def test_a_server_that_goes_away_fails_everybody_at_once(tmp_path: Path) -> None:
    models = Echo()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([InferenceService(models).handler()])
    server.add_insecure_port(f"unix:{tmp_path}/s")
    await server.start()
    async with InferenceClient(f"unix:{tmp_path}/s") as client, await client.open_stream() as stream:
        waiting = [asyncio.create_task(stream.infer(held(), 30)) for _ in range(3)]
        await until(lambda: models.running == 3)
        await server.stop(0)
        done, pending = await asyncio.wait(waiting, timeout=2)
        assert not pending
        assert all(type(task.exception()) is Unavailable for task in done)
        assert type(stream.broken) is Unavailable
        with pytest.raises(Unavailable):
            await client.open_stream(timeout_s=1)
    await until(lambda: models.cancelled == 3, within=1)


async def test_draining_answers_what_was_read(tmp_path: Path) -> None:
    models = Echo()
    service = InferenceService(models)
    async with stream_to(service, tmp_path) as stream:
        held_up = asyncio.create_task(stream.infer(held(), 10))
        await until(lambda: models.running == 1)
        service.drain()
        models.released.set()
        assert (await held_up).outputs
        await until(lambda: stream.broken is not None)
        with pytest.raises(Unavailable):
            await stream.infer(held(), 10)


@contextlib.asynccontextmanager
async def bare_stream(service: InferenceService, folder: Path) -> AsyncIterator[Any]:
    async with served(service, folder) as address, grpc.aio.insecure_channel(address) as channel:
        call = channel.stream_stream(method("ModelStreamInfer"))()
        yield call
        call.cancel()


async def test_a_malformed_message_is_answered_and_ends_nothing(tmp_path: Path) -> None:
    async with bare_stream(InferenceService(Echo(), max_message_bytes=500), tmp_path) as call:
        good = encode_request(InferRequest("echo", id="7", inputs=[X]))
        long = "7" * 600
        bad = {
            b"\xff\xff": "",
            good + b"\x3a\x00": "7",
            good[:-1]: "",
            encode_request(InferRequest("echo", "", long)): long,
        }
        for message, id in bad.items():
            await call.write(message)
            answer = decode_stream_response(await call.read())
            assert isinstance(answer, StreamError)
            assert (answer.id, answer.parameters["error_reason"]) == (id, InvalidInput.__name__)
        await call.write(good)
        answer = decode_stream_response(await call.read())
        assert isinstance(answer, InferResponse)
        assert answer.id == "7"


async def test_an_answer_that_is_too_large_fails_its_request_only(tmp_path: Path) -> None:
    question = encode_request(InferRequest("echo", id="7", inputs=[X]))
    async with bare_stream(InferenceService(Echo(), max_message_bytes=len(question)), tmp_path) as call:
        for _ in range(2):
            await call.write(question)
            answer = decode_stream_response(await call.read())
            assert isinstance(answer, StreamError)
            assert answer.id == "7"
            assert answer.message.startswith("the answer has ")


async def test_a_stream_that_begins_while_the_server_drains_ends_at_once(tmp_path: Path) -> None:
    service = InferenceService(Echo())
    async with bare_stream(service, tmp_path) as call:
        service.drain()
        # Nothing is written: whether a message meets the end of a stream on its way is for the transport to tell.
        assert await call.read() is grpc.aio.EOF
        assert await call.code() == grpc.StatusCode.OK


async def test_a_cancelled_request_is_answered_once(tmp_path: Path) -> None:
    models = Echo()
    async with bare_stream(InferenceService(models), tmp_path) as call:
        stop = encode_request(InferRequest("echo", id="7", parameters={"cancel": True}))
        await call.write(stop)  # nothing to stop yet
        await call.write(encode_request(InferRequest("echo", id="7", parameters={"hold": True}, inputs=[X])))
        await call.write(stop)
        await call.write(stop)
        answer = decode_stream_response(await call.read())
        assert isinstance(answer, StreamError)
        assert (answer.id, answer.parameters["error_reason"]) == ("7", Cancelled.__name__)
        await call.write(encode_request(InferRequest("echo", id="8", inputs=[X])))
        assert decode_stream_response(await call.read()).id == "8"  # type: ignore[union-attr]


async def test_reading_stops_at_the_limit(tmp_path: Path) -> None:
    models = Echo()
    async with bare_stream(InferenceService(models, max_in_flight=2), tmp_path) as call:
        for number in range(5):
            await call.write(
                encode_request(InferRequest("echo", id=str(number), parameters={"hold": True}, inputs=[X]))
            )
        await until(lambda: models.running == 2)
        await call.write(encode_request(InferRequest("echo", id="5", inputs=[X])))
        assert models.running == 2
        models.released.set()
        await call.done_writing()
        ids = [decode_stream_response(message).id async for message in call]  # type: ignore[union-attr]
        assert sorted(ids) == list("012345")
        assert await call.code() == grpc.StatusCode.OK


async def test_a_caller_that_vanishes_stops_its_work(tmp_path: Path) -> None:
    models = Echo()
    async with bare_stream(InferenceService(models), tmp_path) as call:
        await call.write(encode_request(held()))
        await until(lambda: models.running == 1)
        call.cancel()
        await until(lambda: models.cancelled == 1, within=1)


async def test_the_final_answer_flag_for_clients_of_decoupled_models(tmp_path: Path) -> None:
    async with stream_to(InferenceService(Echo()), tmp_path) as stream:
        flag = {"triton_enable_empty_final_response": True}
        answer = await stream.infer(InferRequest("echo", parameters=dict(flag), inputs=[X]), 10)
        assert answer.parameters["triton_final_response"] is True


async def answering(folder: Path, answer: Any) -> tuple[grpc.aio.Server, str]:
    """A server of the protocol that is not ours: no extensions, and `answer` writes its stream."""

    async def metadata(_: bytes, __: object) -> bytes:
        return b""

    server = grpc.aio.server()
    methods = {
        "ServerMetadata": grpc.unary_unary_rpc_method_handler(metadata),
        "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(answer),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, methods)])
    server.add_insecure_port(f"unix:{folder}/s")
    await server.start()
    return server, f"unix:{folder}/s"


async def test_other_servers_never_see_a_cancel(tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def swallow(requests: AsyncIterator[bytes], _: object) -> AsyncIterator[bytes]:
        async for message in requests:
            seen.append(message)
            if b"last" in message:
                yield encode_stream_response(InferResponse("last", id="2"))

    server, address = await answering(tmp_path, swallow)
    async with InferenceClient(address) as client, await client.open_stream() as stream:
        with pytest.raises(DeadlineExceeded):
            await stream.infer(InferRequest("first"), 0.05)
        assert (await stream.infer(InferRequest("last", id="mine"), 10)).id == "mine"
    await server.stop(None)
    assert len(seen) == 2


async def test_garbage_from_a_server_fails_one_request(tmp_path: Path) -> None:
    async def garble(requests: AsyncIterator[bytes], _: object) -> AsyncIterator[bytes]:
        yield b"\xff\xff\xff"
        yield encode_stream_response(InferResponse("m", id="nobody asked"))
        async for message in requests:
            if b"bad" in message:
                yield b"\x12\x05\x1a\x011\x32\x00"
            else:
                yield encode_stream_response(InferResponse("m", id="2"))

    server, address = await answering(tmp_path, garble)
    async with InferenceClient(address) as client, await client.open_stream() as stream:
        with pytest.raises(Internal, match="malformed answer"):
            await stream.infer(InferRequest("bad"), 10)
        assert (await stream.infer(InferRequest("good"), 10)).model_name == "m"
    await server.stop(None)
