"""10,000 malformed or random messages: each is refused with a sentence, the region lives, its memory stays flat."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import Iterator

import grpc
import numpy as np
from encephalon.api.inference.v1 import inference_pb2 as pb
from encephalon.core.inference.names import SERVICE
from encephalon.core.status import from_rpc_error
from encephalon.core.wire import InferRequest, Tensor, encode_request

from tests.regions import RegionProcess, infer, manifest, region_process

MESSAGES = 10_000
AT_ONCE = 50
MORE_MEMORY = 16 * 2**20
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


def messages(source: random.Random) -> Iterator[bytes]:
    for number in range(MESSAGES):
        match number % 3:
            case 0:
                yield source.randbytes(source.choice([1, 5, 50, 500, 5000]))
            case 1:
                yield scrambled(source)
            case _:
                yield mutated(source)


async def test_ten_thousand_bad_messages() -> None:
    source = random.Random(20221104)
    async with region_process(manifest()) as region, grpc.aio.insecure_channel(region.address) as channel:
        seen: Counter[str] = Counter()
        silent: list[bytes] = []

        async def send(message: bytes, method: str) -> None:
            try:
                await channel.unary_unary(f"/{SERVICE}/{method}")(message, timeout=20)
                seen["answered"] += 1
            except grpc.aio.AioRpcError as error:
                seen[error.code().name] += 1
                if error.code() not in ALLOWED or len(error.details() or "") < 10:
                    silent.append(message)
                if not from_rpc_error(error).message:
                    silent.append(message)

        async def all_of(bad: list[bytes]) -> None:
            for start in range(0, len(bad), AT_ONCE):
                part = bad[start : start + AT_ONCE]
                names = [METHODS[0] if index % 4 else source.choice(METHODS) for index in range(len(part))]
                await asyncio.gather(*(send(*pair) for pair in zip(part, names, strict=True)))

        bad = list(messages(source))
        await all_of(bad[:2000])
        before = region.rss
        await all_of(bad[2000:])
        after = region.rss
        assert silent == [], (seen, [message[:100] for message in silent[:3]])
        # Random bytes are a good message now and then: field numbers that nobody knows are allowed by protobuf.
        assert seen["answered"] < 0.1 * MESSAGES, seen
        assert after - before < MORE_MEMORY, f"{(after - before) / 2**20:+.1f} MiB"
        await lives(region)


async def test_bad_messages_on_a_stream_disturb_no_other() -> None:
    """Answers of good requests on the same stream, between a thousand bad ones."""
    source = random.Random(7)
    async with region_process(manifest()) as region, grpc.aio.insecure_channel(region.address) as channel:
        call = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")()
        answers: dict[str, float] = {}
        errors = 0

        async def read(count: int) -> None:
            nonlocal errors
            for _ in range(count):
                answer = pb.ModelStreamInferResponse.FromString(await call.read())
                if answer.error_message:
                    errors += 1
                else:
                    (raw,) = answer.infer_response.raw_output_contents
                    answers[answer.infer_response.id] = float(np.frombuffer(raw, np.float32)[0])

        reading = asyncio.create_task(read(1100))
        for number in range(1100):
            if number % 11 == 0:
                x = Tensor.of("x", np.full((1, 1), number, np.float32))
                await call.write(encode_request(InferRequest("echo", id=f"good-{number}", inputs=[x])))
            else:
                await call.write(mutated(source))
        async with asyncio.timeout(20):
            await reading
        assert answers == {f"good-{number}": float(number) for number in range(0, 1100, 11)}
        assert errors == 1000
        call.cancel()
        await lives(region)


async def test_bytes_that_are_no_http2_and_connections_that_break() -> None:
    async with region_process(manifest()) as region:
        host, _, port = region.address.rpartition(":")
        source = random.Random(3)
        before = region.rss
        for number in range(300):
            reader, writer = await asyncio.open_connection(host, int(port))
            preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" if number % 2 else b""
            writer.write(preface + source.randbytes(source.choice([1, 100, 10_000])))
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            if number % 3:
                writer.transport.abort()
            else:
                writer.close()
            del reader
        assert region.rss - before < MORE_MEMORY
        await lives(region)


async def lives(region: RegionProcess) -> None:
    assert region.process.poll() is None
    async with region.client() as client:
        assert (await infer(client, 4.0)).outputs[0].array[0, 0] == 4.0
        assert await client.ready()
