"""Every method of the protocol but the stream, through our own client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf.message_factory import GetMessageClass

from encephalon.core.errors import (
    DeadlineExceeded,
    Denied,
    InvalidInput,
    NotFound,
    Overloaded,
    Unavailable,
    Unsupported,
)
from encephalon.core.inference import InferenceClient, InferenceService, ModelIndexEntry, Step, descriptors
from encephalon.core.inference.names import method
from encephalon.core.shared_memory import SharedMemory
from encephalon.core.status import from_rpc_error
from encephalon.core.wire import DATATYPES, InferRequest, RequestedOutput, Tensor
from tests.unit.core.echo import CONTRACT, Echo, served
from tests.waiting import until

X = Tensor.of("x_fp32", np.ones((1, 2), np.float32))


@pytest.fixture
def models() -> Echo:
    return Echo()


@pytest.fixture
async def client(models: Echo, tmp_path: Path) -> AsyncIterator[InferenceClient]:
    service = InferenceService(models, default_timeout_s=5, max_message_bytes=100_000, version="1.2.3")
    async with served(service, tmp_path) as address, InferenceClient(address) as client:
        yield client


async def test_infer(client: InferenceClient, models: Echo) -> None:
    answer = await client.infer(InferRequest("echo", id="7", inputs=[X]), 3)
    assert (answer.model_name, answer.model_version, answer.id) == ("echo", "1", "7")
    assert answer.outputs == [X.renamed("y_fp32")]
    assert answer.parameters == {"rows": 1}
    assert 2 < models.deadlines[0] < 3.1  # gRPC rounds a deadline up


async def test_every_datatype(client: InferenceClient) -> None:
    for datatype in DATATYPES:
        data = b"\x01\x00\x00\x00a" if datatype == "BYTES" else b"\x01" * {"BOOL": 1}.get(datatype, 8)
        count = 1 if datatype in ("BYTES", "BOOL") else -1
        sizes = {"8": 8, "6": 4, "2": 2, "4": 1}
        shape = [1, count if count > 0 else sizes[datatype[-1]]]
        tensor = Tensor.raw(f"x_{datatype.lower()}", datatype, shape, data)
        answer = await client.infer(InferRequest("echo", inputs=[tensor]), 3)
        assert answer.outputs == [tensor.renamed(f"y_{datatype.lower()}")]


async def test_only_the_outputs_that_were_asked_for(client: InferenceClient) -> None:
    other = Tensor.of("x_int8", np.ones((1, 1), np.int8))
    wanted = [RequestedOutput("y_int8"), RequestedOutput("y_bool")]
    answer = await client.infer(InferRequest("echo", inputs=[X, other], outputs=wanted), 3)
    assert answer.outputs == [other.renamed("y_int8")]
    with pytest.raises(InvalidInput, match="unknown output 'z'; expected y_bool, "):
        await client.infer(InferRequest("echo", inputs=[X], outputs=[RequestedOutput("z")]), 3)


@pytest.mark.parametrize("kind", [Overloaded, InvalidInput, NotFound])
async def test_errors_keep_class_sentence_and_details(client: InferenceClient, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="it failed as told") as caught:
        await client.infer(InferRequest("echo", parameters={"fail": kind.__name__}, inputs=[X]), 3)
    assert caught.value.details == {"tensor": "x", "region": "visual"}  # type: ignore[attr-defined]


async def test_the_least_time_limit_counts(client: InferenceClient, models: Echo) -> None:
    await client.infer(InferRequest("echo", inputs=[X]), 60)
    await client.infer(InferRequest("echo", parameters={"timeout": 1_000_000}, inputs=[X]), 60)
    await client.infer(InferRequest("echo", parameters={"timeout": 0}, inputs=[X]), 2)
    # gRPC rounds a deadline up.
    for found, limit in zip(models.deadlines, (5, 1, 2), strict=True):
        assert limit - 0.5 < found < limit + 0.1
    for wrong in (-1, "soon", 1.5, True):
        with pytest.raises(InvalidInput, match="parameter 'timeout' came as"):
            await client.infer(InferRequest("echo", parameters={"timeout": wrong}, inputs=[X]), 2)


async def test_a_domain_that_overruns_is_stopped(client: InferenceClient, models: Echo) -> None:
    with pytest.raises(DeadlineExceeded, match="model 'echo' did not answer within"):
        await client.infer(InferRequest("echo", parameters={"timeout": 50_000, "hold": True}, inputs=[X]), 3)
    assert models.cancelled == 1


async def test_cancelling_the_call_cancels_the_work(client: InferenceClient, models: Echo) -> None:
    call = asyncio.create_task(client.infer(InferRequest("echo", parameters={"hold": True}, inputs=[X]), 5))
    await until(lambda: models.running == 1)
    call.cancel()
    await until(lambda: models.cancelled == 1, within=1)
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_metadata_config_and_description(client: InferenceClient) -> None:
    server = await client.server()
    assert (server.name, server.version) == ("echo-server", "1.2.3")
    assert "encephalon.cancel" in server.extensions
    assert "system_shared_memory" not in server.extensions
    found = await client.metadata("echo")
    assert (found.name, list(found.versions), found.platform) == ("echo", ["1"], "encephalon")
    config = await client.config("echo", "1")
    assert (config.max_batch_size, list(config.input[0].dims), config.input[0].optional) == (8, [-1], True)
    described = await client.describe("echo")
    assert described.contract == CONTRACT
    assert (described.max_batch, described.replicas, described.parameters) == (8, 2, {"network": "echo/001"})
    assert described.steps == (Step("visual", {"image": "image"}, {"features": "visual.features"}),)
    for call in (client.metadata, client.config, client.model_ready, client.statistics):
        with pytest.raises(NotFound, match="there is no model 'other'"):
            await call("other")


async def test_readiness_statistics_and_index(client: InferenceClient) -> None:
    assert await client.live()
    assert await client.ready()
    assert await client.model_ready("echo", "1")
    assert await client.statistics() == list(Echo().statistics())
    assert await client.index() == list(Echo().index())
    assert await client.index(ready=True) == [ModelIndexEntry("echo", "1", "READY")]


async def test_load_and_unload(client: InferenceClient, models: Echo) -> None:
    parameters = {"config": "{}", "file:1/model.safetensors": b"\x00\xff", "priority": 2, "warm": True}
    await client.load("new", parameters)
    assert models.loaded == {"new": parameters}
    await client.unload("new")
    with pytest.raises(NotFound):
        await client.unload("new")


async def test_shared_memory_is_off_unless_given(client: InferenceClient) -> None:
    with pytest.raises(Unsupported, match="no shared memory"):
        await client.register_memory("r", "/r", 1)


async def test_shared_memory_may_be_denied(models: Echo, tmp_path: Path) -> None:
    service = InferenceService(models, shared_memory=SharedMemory(()))
    async with served(service, tmp_path) as address, InferenceClient(address) as client:
        assert "system_shared_memory" in (await client.server()).extensions
        with pytest.raises(Denied):
            await client.register_memory("r", "/r", 1)
        await client.unregister_memory("r")


async def test_draining_is_not_ready(models: Echo, tmp_path: Path) -> None:
    service = InferenceService(models)
    async with served(service, tmp_path) as address, InferenceClient(address) as client:
        service.drain()
        assert not await client.ready()


async def test_malformed_messages_of_every_method(client: InferenceClient) -> None:
    for name in ("ModelInfer", "ModelReady", "ModelMetadata", "RepositoryModelLoad", "SystemSharedMemoryStatus"):
        async with grpc.aio.insecure_channel(client.address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(method(name))(b"\xff\xff", timeout=3)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert isinstance(from_rpc_error(caught.value), InvalidInput)


async def test_too_large_and_misplaced_cancel(client: InferenceClient) -> None:
    large = Tensor.of("x_fp32", np.zeros((1, 30_000), np.float32))
    with pytest.raises(InvalidInput, match="expected at most 100000"):
        await client.infer(InferRequest("echo", inputs=[large]), 3)
    with pytest.raises(InvalidInput, match="on a stream only"):
        await client.infer(InferRequest("echo", parameters={"cancel": True}, inputs=[X]), 3)


async def test_nobody_there(tmp_path: Path) -> None:
    async with InferenceClient(f"unix:{tmp_path}/nobody") as client:
        with pytest.raises(Unavailable):
            await client.infer(InferRequest("echo", inputs=[X]), 3)
        with pytest.raises(Unavailable):
            await client.live()
    with pytest.raises(RuntimeError, match="outside"):
        await client.live()


def test_reflection_shows_the_protocols_own_names() -> None:
    pool, services = descriptors()
    service = pool.FindServiceByName(services[0])
    assert service.full_name == "inference.GRPCInferenceService"
    assert {each.name for each in service.methods} >= {"ModelInfer", "ModelStreamInfer", "ModelConfig"}
    request = GetMessageClass(service.methods_by_name["ModelInfer"].input_type)(model_name="m")
    assert request.DESCRIPTOR.full_name == "inference.ModelInferRequest"
    assert pool.FindMessageTypeByName("inference.ModelConfig").file.package == "inference"
