"""10,000 malformed or random messages: each is refused with a sentence, the region lives, its memory stays flat."""

from __future__ import annotations

import asyncio
import contextlib
import random

import grpc
import numpy as np

from encephalon.api.inference.v1 import inference_pb2 as pb
from encephalon.core.inference.names import SERVICE
from encephalon.core.wire import InferRequest, Tensor, encode_request
from tests.bad_messages import Reception, flood, messages, mutated
from tests.regions import RegionProcess, infer, manifest, region_process

MESSAGES = 10_000
MORE_MEMORY = 16 * 2**20


async def test_ten_thousand_bad_messages() -> None:
    source = random.Random(20221104)
    async with region_process(manifest()) as region:
        reception, bad = Reception(), list(messages(source, MESSAGES))
        await flood(region.address, bad[:2000], source, reception)
        before = region.rss
        await flood(region.address, bad[2000:], source, reception)
        after = region.rss
        reception.check(MESSAGES)
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
