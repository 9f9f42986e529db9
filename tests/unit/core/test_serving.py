"""A server as its callers see it, with a service of three methods behind it."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from encephalon.core.errors import FailedPrecondition, InvalidInput, Overloaded
from encephalon.core.metrics import REGISTRY
from encephalon.core.serving import Limits, Server, serving
from encephalon.core.status import from_rpc_error
from tests.waiting import until

LOCAL = "127.0.0.1:0"


class Echo:
    """Answers what came; some words make it fail."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.cancelled = 0

    async def once(self, request: bytes, context: Any) -> bytes:
        match request:
            case b"overload":
                raise Overloaded("the mailbox is full; come back later", capacity=3)
            case b"bug":
                raise ZeroDivisionError("a secret")
            case b"wait":
                try:
                    await self.release.wait()
                except asyncio.CancelledError:
                    self.cancelled += 1
                    raise
        return request

    async def many(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield await self.once(request, context)

    def handler(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            "test.Echo",
            {
                "Once": grpc.unary_unary_rpc_method_handler(self.once),
                "Many": grpc.stream_stream_rpc_method_handler(self.many),
            },
        )


async def once(server: Server, message: bytes, **more: Any) -> bytes:
    async with grpc.aio.insecure_channel(server.addresses[0]) as channel:
        answer: bytes = await channel.unary_unary("/test.Echo/Once")(message, timeout=10, **more)
        return answer


async def test_listens_on_several_addresses(tmp_path: Path) -> None:
    async with serving([Echo().handler()], addresses=[LOCAL, f"unix:{tmp_path}/echo.sock"]) as server:
        assert server.ports[0] > 0
        assert server.ports[1] == 0
        for address in server.addresses:
            async with grpc.aio.insecure_channel(address) as channel:
                assert await channel.unary_unary("/test.Echo/Once")(b"x", timeout=10) == b"x"
    assert not (tmp_path / "echo.sock").exists()


async def test_an_error_of_the_tree_arrives_as_its_class_with_its_facts() -> None:
    async with serving([Echo().handler()], addresses=[LOCAL]) as server:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await once(server, b"overload")
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    error = from_rpc_error(caught.value)
    assert isinstance(error, Overloaded)
    assert error.message == "the mailbox is full; come back later"
    assert error.details == {"capacity": "3"}


async def test_a_bug_is_internal_and_keeps_its_secret_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with serving([Echo().handler()], addresses=[LOCAL]) as server:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await once(server, b"bug")
        assert await once(server, b"and on it goes") == b"and on it goes"
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(caught.value.details())


async def test_an_error_ends_a_stream_with_its_status() -> None:
    async with (
        serving([Echo().handler()], addresses=[LOCAL]) as server,
        grpc.aio.insecure_channel(server.addresses[0]) as channel,
    ):
        call = channel.stream_stream("/test.Echo/Many")(iter([b"a", b"overload", b"b"]), timeout=10)
        assert await call.read() == b"a"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert isinstance(from_rpc_error(caught.value), Overloaded)


async def test_a_message_beyond_the_limit_is_refused_and_the_server_goes_on() -> None:
    async with serving([Echo().handler()], addresses=[LOCAL], limits=Limits(max_message_bytes=1000)) as server:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await once(server, bytes(2000))
        assert isinstance(from_rpc_error(caught.value), InvalidInput)
        assert await once(server, bytes(900)) == bytes(900)


def test_unlimited_messages_are_not_to_be_had() -> None:
    with pytest.raises(ValueError, match="max_message_bytes"):
        Limits(max_message_bytes=-1)


async def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    async with serving([Echo().handler()], addresses=[LOCAL, f"unix:{tmp_path}/a.sock"]) as server:
        for address in server.addresses:
            with pytest.raises(FailedPrecondition, match=f"cannot listen on {address}"):
                async with serving([Echo().handler()], addresses=[address]):
                    pass
        assert await once(server, b"still here") == b"still here"


async def test_a_dead_socket_file_is_replaced_and_another_file_is_not(tmp_path: Path) -> None:
    dead = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(dead))
    async with serving([Echo().handler()], addresses=[f"unix:{dead}"]) as server:
        assert await once(server, b"x") == b"x"
    precious = tmp_path / "precious"
    precious.write_text("data")
    for address in (f"unix:{precious}", f"unix:{tmp_path}/no/folder.sock", f"unix:{tmp_path}/{'x' * 200}"):
        with pytest.raises(FailedPrecondition):
            async with serving([Echo().handler()], addresses=[address]):
                pass
    assert precious.read_text() == "data"
    with pytest.raises(InvalidInput, match="no address"):
        async with serving([Echo().handler()], addresses=["nonsense"]):
            pass


async def test_health_is_the_readiness_of_the_domain() -> None:
    ready = False
    async with (
        serving([Echo().handler()], addresses=[LOCAL], ready=lambda: ready) as server,
        grpc.aio.insecure_channel(server.addresses[0]) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        seen: list[int] = []

        async def watch() -> None:
            async for answer in stub.Watch(health_pb2.HealthCheckRequest(service="test.Echo")):
                seen.append(answer.status)  # noqa: PERF401 - each is seen when it comes

        async def check(service: str = "") -> int:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            return int(answer.status)

        status = health_pb2.HealthCheckResponse
        watching = asyncio.create_task(watch())
        await until(lambda: seen == [status.NOT_SERVING])
        assert await check() == status.NOT_SERVING
        ready = True
        assert await check() == status.SERVING
        await until(lambda: seen[-1] == status.SERVING)
        server.set_serving(False)
        assert await check("test.Echo") == status.NOT_SERVING
        await until(lambda: seen == [status.NOT_SERVING, status.SERVING, status.NOT_SERVING])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await check("unknown")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        unknown = stub.Watch(health_pb2.HealthCheckRequest(service="unknown"), timeout=10)
        assert (await unknown.read()).status == status.SERVICE_UNKNOWN
        unknown.cancel()
        await server.stop(1.0)
        await watching


async def test_reflection_shows_the_services_and_the_protocol_under_its_public_name() -> None:
    async with (
        serving([Echo().handler()], addresses=[LOCAL]) as server,
        grpc.aio.insecure_channel(server.addresses[0]) as channel,
    ):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        ask = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="grpc.health.v1.Health"),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.GRPCInferenceService"),
        ]
        answers = [answer async for answer in stub.ServerReflectionInfo(iter(ask), timeout=10)]
    names = {service.name for service in answers[0].list_services_response.service}
    assert {"test.Echo", "grpc.health.v1.Health"} <= names
    for answer, package in zip(answers[1:], ["grpc.health.v1", "inference"], strict=True):
        files = [FileDescriptorProto.FromString(data) for data in answer.file_descriptor_response.file_descriptor_proto]
        assert package in {file.package for file in files}


async def test_leaving_finishes_what_is_in_flight_and_takes_nothing_new() -> None:
    echo = Echo()
    async with serving([echo.handler()], addresses=[LOCAL]) as server:
        waiting = asyncio.create_task(once(server, b"wait"))
        await until(lambda: in_flight("test.Echo/Once") == 1)
        stopping = asyncio.create_task(server.stop(5.0))
        await until(lambda: stopped_listening(server.ports[0]))
        assert not waiting.done()
        echo.release.set()
        assert await waiting == b"wait"
        await stopping
        await server.stop()


async def test_grace_ends() -> None:
    echo = Echo()
    async with serving([echo.handler()], addresses=[LOCAL]) as server:
        waiting = asyncio.create_task(once(server, b"wait"))
        await until(lambda: in_flight("test.Echo/Once") == 1)
        await server.stop(0.1)
        with pytest.raises(grpc.aio.AioRpcError):
            await waiting
    assert echo.cancelled == 1


async def test_a_caller_that_goes_away_cancels_its_call() -> None:
    echo = Echo()
    async with serving([echo.handler()], addresses=[LOCAL]) as server:
        waiting = asyncio.create_task(once(server, b"wait"))
        await until(lambda: in_flight("test.Echo/Once") == 1)
        waiting.cancel()
        await until(lambda: echo.cancelled == 1, within=1.0)
        assert in_flight("test.Echo/Once") == 0


async def test_calls_and_bytes_are_counted_by_method_and_status(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    before = calls("OK"), calls("RESOURCE_EXHAUSTED"), received()
    async with serving([Echo().handler()], addresses=[LOCAL]) as server:
        await once(server, bytes(100))
        with pytest.raises(grpc.aio.AioRpcError):
            await once(server, b"overload")
    assert (calls("OK"), calls("RESOURCE_EXHAUSTED"), received()) == (before[0] + 1, before[1] + 1, before[2] + 108)


def calls(status: str) -> float:
    return (
        REGISTRY.get_sample_value("encephalon_rpc_seconds_count", {"method": "test.Echo/Once", "status": status}) or 0
    )


def received() -> float:
    labels = {"method": "test.Echo/Once", "direction": "received"}
    return REGISTRY.get_sample_value("encephalon_rpc_bytes_total", labels) or 0


def in_flight(method: str) -> float:
    return REGISTRY.get_sample_value("encephalon_rpc_in_flight", {"method": method}) or 0


def stopped_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
