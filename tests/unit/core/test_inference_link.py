"""The local link itself: frames, bounds, strangers and rubbish. What streams do over it is in test_inference_stream."""

from __future__ import annotations

import asyncio
import os
import random
import stat
import struct
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest

from encephalon.core.errors import FailedPrecondition, Unavailable
from encephalon.core.inference import InferenceClient, InferenceService, InferStream, link_path, linked
from encephalon.core.inference.link import Link, open_link
from encephalon.core.wire import InferRequest, Tensor, decode_stream_response, encode_request
from tests.unit.core.echo import Echo, instantly, served
from tests.waiting import until

FRAME = 1 << 20
X = Tensor.of("x_fp32", np.ones((1, 2), np.float32))
GOOD = encode_request(InferRequest("echo", id="good", inputs=[X]))


async def answered(link: Link) -> bool:
    await link.write(GOOD)
    message = await asyncio.wait_for(link.read(), 5)
    assert isinstance(message, bytes)
    return decode_stream_response(message).id == "good"


def test_the_path_is_beside_the_servers_socket() -> None:
    assert link_path("unix:/run/region.sock") == "/run/region.sock.link"
    assert link_path("127.0.0.1:9000") == ""


async def test_only_its_user_may_open_it_and_it_goes_with_the_server(tmp_path: Path) -> None:
    path = tmp_path / "link"
    async with linked(InferenceService(Echo()), str(path), FRAME):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()
    with pytest.raises(Unavailable, match="no local link"):
        await open_link(str(path), FRAME, 1)


async def test_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with linked(InferenceService(Echo()), str(tmp_path / "link"), FRAME):
        monkeypatch.setattr("encephalon.core.inference.link.os.geteuid", lambda: os.getuid() + 1)
        link = await open_link(str(tmp_path / "link"), FRAME, 1)
        assert await asyncio.wait_for(link.read(), 5) is grpc.aio.EOF


async def test_a_path_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"cannot listen on .*nowhere"):
        async with linked(InferenceService(Echo()), str(tmp_path / "nowhere" / "link"), FRAME):
            pass


async def test_messages_come_whole_however_they_are_cut(tmp_path: Path) -> None:
    source = random.Random(5)
    sent = [source.randbytes(source.choice([0, 1, 3, 4, 5, 100, 70_000])) for _ in range(200)]
    stream = b"".join(struct.pack("<I", len(message)) + message for message in sent)
    link = Link(FRAME)
    got = []
    start = 0
    while start < len(stream):
        step = source.choice([1, 2, 3, 7, 1000, 100_000])
        link.data_received(stream[start : start + step])
        start += step
        while link._frames:
            got.append(await link.read())
    assert got == sent


@pytest.mark.parametrize("frame", [b"\xff\xff\xff\xff", struct.pack("<I", FRAME + 1) + b"x" * 100])
async def test_a_frame_that_is_too_long_ends_its_link_and_no_other(tmp_path: Path, frame: bytes) -> None:
    async with linked(InferenceService(Echo()), str(tmp_path / "link"), FRAME):
        other = await open_link(str(tmp_path / "link"), FRAME, 1)
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "link"))
        writer.write(frame)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await asyncio.wait_for(reader.readexactly(1), 5)
        writer.close()
        assert await answered(other)
        other.cancel()


async def test_rubbish_in_frames_is_answered_with_errors(tmp_path: Path) -> None:
    source = random.Random(11)
    async with linked(InferenceService(Echo()), str(tmp_path / "link"), FRAME):
        link = await open_link(str(tmp_path / "link"), FRAME, 1)
        for _ in range(1000):
            await link.write(b"\xff" + source.randbytes(source.choice([1, 10, 1000])))
            message = await asyncio.wait_for(link.read(), 5)
            assert isinstance(message, bytes)
            assert type(decode_stream_response(message)).__name__ == "StreamError"
        assert await answered(link)
        link.cancel()


async def test_a_caller_that_is_gone_stops_its_work(tmp_path: Path) -> None:
    models = Echo()
    async with linked(InferenceService(models), str(tmp_path / "link"), FRAME):
        link = await open_link(str(tmp_path / "link"), FRAME, 1)
        await link.write(encode_request(InferRequest("echo", id="1", parameters={"hold": True}, inputs=[X])))
        await until(lambda: models.running == 1)
        link.cancel()
        await until(lambda: models.cancelled == 1, within=1)


async def test_a_server_that_is_gone_breaks_the_stream_at_once(tmp_path: Path) -> None:
    models = Echo()
    service = InferenceService(models)
    async with served(service, tmp_path) as address, InferenceClient(address) as client:
        async with linked(service, str(tmp_path / "link"), FRAME, grace_s=0.05):
            stream = await client.open_stream(link=str(tmp_path / "link"))
            held = InferRequest("echo", parameters={"hold": True}, inputs=[X])
            waiting = asyncio.create_task(stream.infer(held, 30))
            await until(lambda: models.running == 1)
        with pytest.raises(Unavailable):
            await asyncio.wait_for(waiting, 1)
        assert stream.broken is not None
        await stream.close()


async def test_a_reader_that_is_slow_holds_the_sender_back(tmp_path: Path) -> None:
    async with linked(InferenceService(Echo(), max_in_flight=4), str(tmp_path / "link"), FRAME):
        link = await open_link(str(tmp_path / "link"), FRAME, 1)
        large = Tensor.of("x_fp32", np.ones((1, 16_384), np.float32))
        message = encode_request(InferRequest("echo", id="1", inputs=[large]))
        sent = 0

        async def send() -> None:
            nonlocal sent
            for _ in range(1000):
                await link.write(message)
                sent += 1

        link._transport.pause_reading()  # type: ignore[union-attr] -- nobody takes the answers
        sending = asyncio.create_task(send())
        before = -1
        while sent != before:  # until a while passes in which nothing more leaves
            before = sent
            await asyncio.wait([sending], timeout=0.3)
        assert sent < 500
        sending.cancel()
        link.cancel()


SERVER = """
import asyncio, sys
from encephalon.core.inference import InferenceService, linked
from tests.unit.core.echo import Echo

async def serve():
    async with linked(InferenceService(Echo()), sys.argv[1], 1 << 20):
        await asyncio.Event().wait()

asyncio.run(serve())
"""


async def test_a_server_that_is_killed_breaks_the_stream_at_once(tmp_path: Path) -> None:
    path = tmp_path / "link"
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVER, str(path))
    try:
        await until(path.exists, within=30)
        link = await open_link(str(path), FRAME, 5)
        stream = InferStream(link, address=str(path), max_in_flight=8, max_message_bytes=FRAME, cancels=True)
        held = InferRequest("echo", parameters={"hold": True}, inputs=[X])
        assert (await stream.infer(InferRequest("echo", inputs=[X]), 10)).outputs
        waiting = [asyncio.create_task(stream.infer(held, 30)), stream.submit(held, 30)]
        await until(lambda: stream.in_flight == 2)
        server.kill()
        done, _ = await asyncio.wait(waiting, timeout=1)
        assert all(isinstance(each.exception(), Unavailable) for each in done)
        assert len(done) == 2
        assert stream.broken is not None
        await stream.close()
    finally:
        if server.returncode is None:
            server.kill()
        await server.wait()


@pytest.mark.parametrize("seed", range(5))
async def test_rubbish_on_the_socket_disturbs_nobody_else(tmp_path: Path, seed: int) -> None:
    source = random.Random(seed)
    service, path = InferenceService(Echo()), str(tmp_path / "link")
    async with linked(service, path, FRAME, instant=instantly(Echo())):
        other = await open_link(path, FRAME, 1)
        for _ in range(40):
            _, writer = await asyncio.open_unix_connection(path)
            damaged = bytearray(struct.pack("<I", len(GOOD)) + GOOD)
            for _ in range(source.choice([1, 5, 50])):
                damaged[source.randrange(len(damaged))] = source.randrange(256)
            writer.write(source.choice([source.randbytes(source.choice([1, 4, 1000])), bytes(damaged)]))
            writer.close()
            assert await answered(other)
        other.cancel()
