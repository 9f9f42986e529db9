"""Messages that no server of the protocol should take: random bytes, good messages with bytes changed, wrong tensors.

They are written for a model `echo` with one input `x`, FP32 of shape [-1, -1].
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import grpc
import numpy as np

from encephalon.api.inference.v1 import inference_pb2 as pb
from encephalon.core.inference.names import SERVICE
from encephalon.core.status import from_rpc_error
from encephalon.core.wire import InferRequest, Tensor, encode_request

__all__ = ["Reception", "flood", "messages", "mutated"]

AT_ONCE = 50
ALLOWED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.PERMISSION_DENIED,
}
METHODS = ["ModelInfer", "ModelMetadata", "ModelConfig", "ModelStatistics", "ModelReady", "RepositoryModelLoad"]


def good() -> pb.ModelInferRequest:
    tensor = Tensor.of("x", np.ones((2, 3), np.float32))
    return pb.ModelInferRequest.FromString(encode_request(InferRequest("echo", id="1", inputs=[tensor])))


def mutated(source: random.Random) -> bytes:
    """A good message with something wrong in it."""
    message = good()
    tensor = message.inputs[0]
    match source.randrange(13):
        case 0:
            tensor.name = source.choice(["", "z", "x" * 100_000, "x\x00"])
        case 1:
            tensor.datatype = source.choice(["", "FP31", "BYTES", "BF16", "INT64", "fp32", "F" * 10_000])
        case 2:
            tensor.shape[:] = source.choice([[-1, 3], [2**62, 2**62], [2], [1] * 9, [], [0, 3], [3, 2, 1], [2**63 - 1]])
        case 3:
            message.raw_input_contents[0] = os.urandom(source.choice([0, 1, 23, 25, 4096]))
        case 4:
            del message.raw_input_contents[:]
        case 5:
            message.raw_input_contents.append(b"more")
        case 6:
            message.inputs.append(tensor)
        case 7:
            tensor.contents.fp32_contents.extend([1.0] * 6)
        case 8:
            message.model_name = source.choice(["", "other", "ö" * 1000])
        case 9:
            message.model_version = source.choice(["2", "-1", "x" * 5000])
        case 10:
            message.outputs.add().name = source.choice(["", "z", "y" * 10_000])
        case 11:
            tensor.parameters["shared_memory_region"].string_param = "nowhere"
        case 12:
            message.parameters["priority"].string_param = "first"
    return message.SerializeToString()


def scrambled(source: random.Random) -> bytes:
    """A good message with some bytes changed, cut off or doubled; what is still good by chance is changed again."""
    data = bytearray(good().SerializeToString())
    for _ in range(source.randint(1, 8)):
        data[source.randrange(len(data) - 24)] = source.randrange(256)  # the elements may be anything
    match source.randrange(4):
        case 0:
            return bytes(data[: source.randrange(1, len(data))])
        case 1:
            return bytes(data + data)
        case _:
            return bytes(data)


def messages(source: random.Random, count: int) -> Iterator[bytes]:
    for number in range(count):
        match number % 3:
            case 0:
                yield source.randbytes(source.choice([1, 5, 50, 500, 5000]))
            case 1:
                yield scrambled(source)
            case _:
                yield mutated(source)


@dataclass(slots=True)
class Reception:
    """How messages were received: statuses, and those that were refused otherwise than with a sentence."""

    seen: Counter[str] = field(default_factory=Counter)
    silent: list[bytes] = field(default_factory=list)

    def check(self, count: int) -> None:
        assert self.silent == [], (self.seen, [message[:100] for message in self.silent[:3]])
        assert sum(self.seen.values()) == count
        # Random bytes are a good message now and then: field numbers that nobody knows are allowed by protobuf.
        assert self.seen["answered"] < 0.1 * count, self.seen


async def flood(address: str, bad: Sequence[bytes], source: random.Random, reception: Reception) -> None:
    """Sends every message once, most of them as ModelInfer, `AT_ONCE` at a time."""

    async def send(message: bytes, method: str) -> None:
        try:
            await channel.unary_unary(f"/{SERVICE}/{method}")(message, timeout=20)
            reception.seen["answered"] += 1
        except grpc.aio.AioRpcError as error:
            reception.seen[error.code().name] += 1
            told = from_rpc_error(error).message and len(error.details() or "") >= 10
            if error.code() not in ALLOWED or not told:
                reception.silent.append(message)

    async with grpc.aio.insecure_channel(address) as channel:
        for start in range(0, len(bad), AT_ONCE):
            part = bad[start : start + AT_ONCE]
            names = [METHODS[0] if index % 4 else source.choice(METHODS) for index in range(len(part))]
            await asyncio.gather(*(send(*pair) for pair in zip(part, names, strict=True)))
