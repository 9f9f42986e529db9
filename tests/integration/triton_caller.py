"""A user's program with tritonclient and nothing of ours; prints what it saw as one JSON object.

    python -m tests.integration.triton_caller ADDRESS MODEL INPUTS OUTPUT

INPUTS is a comma-separated list of FP32 inputs of shape [-1, -1]; OUTPUT is one output whose value is their sum.
"""

from __future__ import annotations

import asyncio
import json
import queue
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.grpc.aio as aioclient
import tritonclient.utils.shared_memory as shm

TIMEOUT_S = 20
ROWS, COLUMNS = 2, 8
VALUE = np.arange(ROWS * COLUMNS, dtype=np.float32).reshape(ROWS, COLUMNS)


def inputs(module: Any, names: list[str]) -> list[Any]:
    made = []
    for name in names:
        tensor = module.InferInput(name, list(VALUE.shape), "FP32")
        tensor.set_data_from_numpy(VALUE)
        made.append(tensor)
    return made


def right(result: Any, output: str, names: list[str], factor: float = 1.0) -> bool:
    return bool(np.array_equal(result.as_numpy(output), VALUE * len(names) * factor))


def unary(address: str, model: str, names: list[str], output: str) -> dict[str, Any]:
    with grpcclient.InferenceServerClient(address) as client:
        seen: dict[str, Any] = {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model_ready": client.is_model_ready(model),
            "server": client.get_server_metadata().extensions[:],
            "metadata": [tensor.name for tensor in client.get_model_metadata(model).inputs],
            "config": client.get_model_config(model, as_json=True)["config"],
            "index": [(entry.name, entry.state) for entry in client.get_model_repository_index().models],
        }
        result = client.infer(model, inputs(grpcclient, names), request_id="first", client_timeout=TIMEOUT_S)
        seen["unary"] = right(result, output, names) and result.get_response().id == "first"
        statistics = client.get_inference_statistics(model).model_stats[0]
        seen["counted"] = statistics.inference_stats.success.count >= 1
        try:
            client.infer("nobody", inputs(grpcclient, names), client_timeout=TIMEOUT_S)
        except grpcclient.InferenceServerException as error:
            seen["unknown"] = [str(error.status()), error.message()]
    return seen


async def many(address: str, model: str, names: list[str], output: str) -> bool:
    async with aioclient.InferenceServerClient(address) as client:
        calls = [client.infer(model, inputs(aioclient, names), client_timeout=TIMEOUT_S) for _ in range(16)]
        return all(right(result, output, names) for result in await asyncio.gather(*calls))


def stream(address: str, model: str, names: list[str], output: str) -> bool:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with grpcclient.InferenceServerClient(address) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for number in range(8):
            client.async_stream_infer(model, inputs(grpcclient, names), request_id=str(number))
        got = [answers.get(timeout=TIMEOUT_S) for _ in range(8)]
        client.stop_stream()
    ids = sorted(result.get_response().id for result, error in got if error is None)
    return ids == [str(number) for number in range(8)] and all(right(result, output, names) for result, _ in got)


def shared_memory(address: str, model: str, names: list[str], output: str) -> bool:
    size, key = VALUE.nbytes, f"/triton-caller-{model}-{address[-5:]}"
    region = shm.create_shared_memory_region("data", key, size * (len(names) + 1))
    try:
        shm.set_shared_memory_region(region, [VALUE * 3 for _ in names])
        with grpcclient.InferenceServerClient(address) as client:
            client.register_system_shared_memory("data", key, size * (len(names) + 1))
            listed = "data" in client.get_system_shared_memory_status().regions
            sent = []
            for number, name in enumerate(names):
                tensor = grpcclient.InferInput(name, list(VALUE.shape), "FP32")
                tensor.set_shared_memory("data", size, offset=size * number)
                sent.append(tensor)
            wanted = grpcclient.InferRequestedOutput(output)
            wanted.set_shared_memory("data", size, offset=size * len(names))
            client.infer(model, sent, outputs=[wanted], client_timeout=TIMEOUT_S)
            got = shm.get_contents_as_numpy(region, np.float32, list(VALUE.shape), offset=size * len(names))
            same = bool(np.array_equal(got, VALUE * 3 * len(names)))
            client.unregister_system_shared_memory("data")
            return listed and same
    finally:
        shm.destroy_shared_memory_region(region)


def main() -> None:
    address, model, joined, output = sys.argv[1:5]
    names = joined.split(",")
    seen = unary(address, model, names, output)
    seen["aio"] = asyncio.run(many(address, model, names, output))
    seen["stream"] = stream(address, model, names, output)
    seen["shared_memory"] = shared_memory(address, model, names, output)
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
