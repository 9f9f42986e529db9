"""The client program, the same for every system: closed loops of callers, answers checked one by one.

Reads one JSON object from its first argument (see `Order`), writes one JSON object per cell to its standard output.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field

import grpc
import numpy as np
from google.protobuf.wrappers_pb2 import BytesValue
from tritonclient.grpc import aio as tritonclient

from tests.bench.serving.workload import INPUTS, OUTPUT, Cell, payload

__all__ = ["Order"]

# A caller's requests are prepared once; what is timed is the way from the prepared request to the array in hand.
Ask = Callable[[], Awaitable[np.ndarray]]
MESSAGE_BYTES = 64 << 20
LATENCIES_KEPT = 200_000


@dataclass(slots=True)
class Order:
    """What to load: `protocol` is `oip` (Open Inference Protocol) or `bytes` (Ray Serve's user-defined gRPC method)."""

    protocol: str
    address: str
    model: str
    cells: list[tuple[int, int]]
    seconds: float
    warmup_seconds: float
    timeout_seconds: float = 30.0
    metadata: list[tuple[str, str]] = field(default_factory=list)


@asynccontextmanager
async def open_inference(order: Order) -> AsyncIterator[Callable[..., Ask]]:
    async with tritonclient.InferenceServerClient(order.address) as client:
        outputs = [tritonclient.InferRequestedOutput(OUTPUT)]

        def caller(*arrays: np.ndarray) -> Ask:
            inputs = []
            for name, array in zip(INPUTS, arrays, strict=True):
                inputs.append(tritonclient.InferInput(name, list(array.shape), "FP32"))
                inputs[-1].set_data_from_numpy(array)

            async def ask() -> np.ndarray:
                answer = await client.infer(order.model, inputs, outputs=outputs, client_timeout=order.timeout_seconds)
                return answer.as_numpy(OUTPUT)

            return ask

        yield caller


@asynccontextmanager
async def user_defined(order: Order) -> AsyncIterator[Callable[..., Ask]]:
    limits = [("grpc.max_receive_message_length", MESSAGE_BYTES), ("grpc.max_send_message_length", MESSAGE_BYTES)]
    async with grpc.aio.insecure_channel(order.address, options=limits) as channel:
        infer = channel.unary_unary(order.model, BytesValue.SerializeToString, BytesValue.FromString)

        def caller(*arrays: np.ndarray) -> Ask:
            request = BytesValue(value=b"".join(array.tobytes() for array in arrays))

            async def ask() -> np.ndarray:
                answer = await infer(request, timeout=order.timeout_seconds, metadata=order.metadata)
                return np.frombuffer(answer.value, np.float32).reshape(1, -1)

            return ask

        yield caller


PROTOCOLS = {"oip": open_inference, "bytes": user_defined}


class Tally:
    """Counts what the callers of one cell saw."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.requests = self.failed = self.wrong = 0

    async def call(self, ask: Ask, expected: np.ndarray, until: float) -> None:
        while (started := time.perf_counter()) < until:
            try:
                answer = await ask()
            except (grpc.RpcError, tritonclient.InferenceServerException) as error:
                self.failed += 1
                if self.failed == 1:
                    print(error, file=sys.stderr)
                if self.failed > 100:  # a system that answers nothing but errors is not worth the rest of its time
                    return
                continue
            finished = time.perf_counter()
            self.requests += 1
            if len(self.latencies) < LATENCIES_KEPT:
                self.latencies.append(finished - started)
            self.wrong += not np.array_equal(answer, expected)


async def loaded(caller: Callable[..., Ask], cell: Cell, seconds: float) -> dict[str, float]:
    payloads = [payload(cell.nbytes, number) for number in range(cell.callers)]
    asks = [(caller(left, right), total) for left, right, total in payloads]
    tally, started = Tally(), time.perf_counter()
    await asyncio.gather(*(tally.call(ask, total, started + seconds) for ask, total in asks))
    elapsed = time.perf_counter() - started
    p50, p90, p99 = np.percentile(tally.latencies, (50, 90, 99)) * 1e3 if tally.latencies else (np.nan,) * 3
    return {
        **asdict(cell),
        "requests": tally.requests,
        "failed": tally.failed,
        "wrong": tally.wrong,
        "per_second": tally.requests / elapsed,
        "p50_ms": float(p50),
        "p90_ms": float(p90),
        "p99_ms": float(p99),
    }


async def run(order: Order) -> None:
    async with PROTOCOLS[order.protocol](order) as caller:
        for nbytes, callers in order.cells:
            cell = Cell(nbytes, callers)
            await loaded(caller, cell, order.warmup_seconds)
            gc.collect()
            gc.freeze()  # what is alive now stays alive: collections in the timed part need not walk it
            print(json.dumps(await loaded(caller, cell, order.seconds)), flush=True)


if __name__ == "__main__":
    asyncio.run(run(Order(**json.loads(sys.argv[1]))))
