"""NVIDIA's client against our service: calls, streams, shared memory. Both protocols' classes live in one process."""

from __future__ import annotations

import asyncio
import queue
import secrets
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, triton_to_np_dtype

from encephalon.core.inference import InferenceService
from encephalon.core.shared_memory import ANY_NAME, SharedMemory
from tests.unit.core.echo import Echo, served

with warnings.catch_warnings():
    # It asks a deprecated package where its own library lies.
    warnings.simplefilter("ignore")
    from tritonclient.utils import shared_memory as shm

ARRAYS = [
    np.array([[True, False]]),
    *(np.array([[1, 2, 3]], dtype) for dtype in (np.int8, np.int16, np.int32, np.int64)),
    *(np.array([[1, 2, 3]], dtype) for dtype in (np.uint8, np.uint16, np.uint32, np.uint64)),
    *(np.array([[1.5, -2.0]], dtype) for dtype in (np.float16, np.float32, np.float64)),
    np.array([[b"ab", b""]], dtype=object),
]


@pytest.fixture
async def address() -> AsyncIterator[str]:
    async with served(InferenceService(Echo(), shared_memory=SharedMemory(ANY_NAME), version="1")) as address:
        yield address


def blocking(address: str, work: Callable[[Any], None]) -> Any:
    """Runs `work(client)` in a thread, because the server lives in this one."""

    def run() -> None:
        with triton.InferenceServerClient(address) as client:
            work(client)

    return asyncio.to_thread(run)


def inputs_of(array: np.ndarray[Any, Any]) -> tuple[list[Any], str]:
    datatype = np_to_triton_dtype(array.dtype)
    tensor = triton.InferInput(f"x_{datatype.lower()}", list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return [tensor], f"y_{datatype.lower()}"


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: str(array.dtype))
async def test_every_datatype(address: str, array: np.ndarray[Any, Any]) -> None:
    def work(client: Any) -> None:
        inputs, output = inputs_of(array)
        found = client.infer("echo", inputs, request_id="7")
        assert found.as_numpy(output).tolist() == array.tolist()
        response = found.get_response()
        assert (response.id, response.model_version) == ("7", "1")
        wanted = [triton.InferRequestedOutput(output)]
        assert client.infer("echo", inputs, outputs=wanted).as_numpy(output).tolist() == array.tolist()

    await blocking(address, work)


async def test_bfloat16(address: str) -> None:
    def work(client: Any) -> None:
        tensor = triton.InferInput("x_bf16", [1, 2], "BF16")
        # Older clients take float32 and cut it, newer ones take bfloat16.
        tensor.set_data_from_numpy(np.array([[1.5, -2.0]], triton_to_np_dtype("BF16")))
        found = client.infer("echo", [tensor])
        raw = found.get_response().raw_output_contents[0]
        assert np.frombuffer(raw, ml_dtypes.bfloat16).astype(np.float32).tolist() == [1.5, -2.0]

    await blocking(address, work)


async def test_what_a_server_says_of_itself(address: str) -> None:
    def work(client: Any) -> None:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("echo", "1")
        assert client.get_server_metadata().name == "echo-server"
        assert client.get_model_metadata("echo").inputs[0].name == "x_bool"
        config = client.get_model_config("echo").config
        assert (config.max_batch_size, config.input[0].optional) == (8, True)
        assert config.ensemble_scheduling.step[0].model_name == "visual"
        assert client.get_inference_statistics("echo").model_stats[0].inference_count == 8
        assert {model.name for model in client.get_model_repository_index().models} == {"echo", "broken"}
        client.load_model("new", config='{"network": "vision/002"}')
        client.unload_model("new")

    await blocking(address, work)


async def test_errors_are_sentences_with_a_status(address: str) -> None:
    def work(client: Any) -> None:
        inputs, _ = inputs_of(np.ones((1, 2), np.float32))
        with pytest.raises(InferenceServerException, match="there is no model 'other'") as caught:
            client.infer("other", inputs)
        assert caught.value.status() == "StatusCode.NOT_FOUND"
        inputs[0].set_shape([3, 3])
        with pytest.raises(InferenceServerException, match="'x_fp32' came with 8 bytes, expected 36") as misfit:
            client.infer("echo", inputs)
        assert misfit.value.status() == "StatusCode.INVALID_ARGUMENT"
        with pytest.raises(InferenceServerException) as unknown:
            client.unload_model("other")
        assert unknown.value.status() == "StatusCode.NOT_FOUND"

    await blocking(address, work)


async def test_a_client_timeout(address: str) -> None:
    def work(client: Any) -> None:
        inputs, _ = inputs_of(np.ones((1, 2), np.float32))
        with pytest.raises(InferenceServerException) as late:
            client.infer("echo", inputs, parameters={"hold": True}, timeout=50_000)
        assert late.value.status() == "StatusCode.DEADLINE_EXCEEDED"

    await blocking(address, work)


async def test_the_stream(address: str) -> None:
    def work(client: Any) -> None:
        answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        client.start_stream(lambda result, error: answers.put((result, error)))
        try:
            for number in range(20):
                inputs, _ = inputs_of(np.full((1, 2), number, np.float32))
                client.async_stream_infer("echo", inputs, request_id=str(number))
            found = [answers.get(timeout=10)[0] for _ in range(20)]
            values = {int(each.get_response().id): each.as_numpy("y_fp32")[0, 0] for each in found}
            assert values == {number: number for number in range(20)}
            inputs, _ = inputs_of(np.ones((1, 2), np.float32))
            client.async_stream_infer("other", inputs)
            assert "there is no model 'other'" in str(answers.get(timeout=10)[1])
            client.async_stream_infer("echo", inputs)
            assert answers.get(timeout=10)[1] is None
        finally:
            client.stop_stream()

    await blocking(address, work)


async def test_asyncio_calls_and_stream(address: str) -> None:
    array = np.ones((1, 2), np.float32)

    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number in range(5):
            yield {"model_name": "echo", "inputs": inputs_of(array * number)[0], "request_id": str(number)}

    async with triton_aio.InferenceServerClient(address) as client:
        assert await client.is_server_ready()
        answer = await client.infer("echo", inputs_of(array)[0])
        assert answer.as_numpy("y_fp32").tolist() == array.tolist()
        found = {}
        async for result, error in client.stream_infer(requests()):
            assert error is None
            found[result.get_response().id] = result.as_numpy("y_fp32")[0, 0]
        assert found == {str(number): number for number in range(5)}


@pytest.fixture
def regions() -> Iterator[Callable[[int], tuple[Any, str]]]:
    """Makes shared memory of so many bytes: its handle and its key."""
    made = []

    def make(size: int) -> tuple[Any, str]:
        key = f"/encephalon-test-{secrets.token_hex(8)}"
        made.append(shm.create_shared_memory_region(key, key, size))
        return made[-1], key

    yield make
    for handle in made:
        shm.destroy_shared_memory_region(handle)


async def test_system_shared_memory(address: str, regions: Callable[[int], tuple[Any, str]]) -> None:
    array = np.arange(30_000, dtype=np.float32).reshape(1, -1)
    (source, source_key), (target, target_key) = regions(array.nbytes), regions(array.nbytes)

    def work(client: Any) -> None:
        client.register_system_shared_memory("source", source_key, array.nbytes)
        client.register_system_shared_memory("target", target_key, array.nbytes)
        assert set(client.get_system_shared_memory_status().regions) == {"source", "target"}
        shm.set_shared_memory_region(source, [array])
        tensor = triton.InferInput("x_fp32", list(array.shape), "FP32")
        tensor.set_shared_memory("source", array.nbytes)
        small, _ = inputs_of(np.array([[7]], np.int8))
        wanted = triton.InferRequestedOutput("y_fp32")
        wanted.set_shared_memory("target", array.nbytes)
        found = client.infer("echo", [tensor, *small], outputs=[wanted, triton.InferRequestedOutput("y_int8")])
        output = found.get_output("y_fp32")
        assert output.parameters["shared_memory_region"].string_param == "target"
        back = shm.get_contents_as_numpy(target, np.float32, list(output.shape))
        assert back.tolist() == array.tolist()
        assert found.as_numpy("y_int8").tolist() == [[7]]

        wanted.set_shared_memory("target", 8)
        with pytest.raises(InferenceServerException, match="output 'y_fp32' has 120000 bytes"):
            client.infer("echo", [tensor], outputs=[wanted])
        tensor.set_shared_memory("source", array.nbytes, 4)
        with pytest.raises(InferenceServerException, match="outside shared memory 'source'"):
            client.infer("echo", [tensor])
        client.unregister_system_shared_memory("source")
        with pytest.raises(InferenceServerException, match="'source' is not registered"):
            client.infer("echo", [tensor])
        client.unregister_system_shared_memory()
        assert not client.get_system_shared_memory_status().regions
        with pytest.raises(InferenceServerException, match="does not exist"):
            client.register_system_shared_memory("gone", f"{source_key}-gone", 1)

    await blocking(address, work)


def test_both_in_one_process() -> None:
    """Two copies of package `inference` would not import beside each other; ours has a name of its own."""
    from tritonclient.grpc import service_pb2

    from encephalon.api.inference.v1 import inference_pb2

    theirs = service_pb2.ModelInferRequest(model_name="m", id="7")
    theirs.inputs.add(name="x", datatype="FP32", shape=[1])
    ours = inference_pb2.ModelInferRequest.FromString(theirs.SerializeToString())
    assert (ours.model_name, ours.id, ours.inputs[0].name) == ("m", "7", "x")
    assert Path(service_pb2.__file__) != Path(inference_pb2.__file__)
