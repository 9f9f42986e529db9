"""The local link: the messages of ModelStreamInfer over a plain Unix socket, for two processes of one user on one host.

Each message is framed by its length, a little-endian u32. What is asked and answered, cancelled and lent is the same as
on a gRPC stream, and the same `Session` and `InferStream` sit on both ends; only HTTP/2 is left out, which costs most
of a small message's time. Both ends may take messages as they come, without a task that reads: answers go straight to
those who wait for them, and a cheap network answers on the spot (`Instant`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import cast

import grpc

from encephalon.core.errors import EncephalonError, FailedPrecondition, Unavailable
from encephalon.core.inference.instant import Instant
from encephalon.core.inference.service import InferenceService

__all__ = ["Link", "link_path", "linked", "open_link"]

LOG = logging.getLogger(__name__)

LENGTH = struct.Struct("<I")
# Frames that were received and not yet read; beyond them the kernel holds the sender back.
UNREAD = 64
CREDENTIALS = struct.Struct("iII")
SUFFIX = ".link"


def link_path(address: str) -> str:
    """The link beside a server's Unix socket ("unix:/path"); empty for other addresses."""
    return address.removeprefix("unix:") + SUFFIX if address.startswith("unix:") else ""


class Link(asyncio.Protocol):
    """One end: `read` and `write` whole messages, as on a gRPC stream.

    A `receiver` is offered every message first, and says whether it took it; those that it leaves are for `read`.
    """

    def __init__(self, max_frame: int, opened: Callable[[Link], None] | None = None) -> None:
        self._max_frame = max_frame
        self._opened = opened
        self.receiver: Callable[[bytes], bool] | None = None
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._rest = bytearray()
        self._frames: deque[bytes] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._paused = False
        self._collecting = False
        self._collected: list[bytes] = []
        self.closed: asyncio.Future[None] = self._loop.create_future()

    async def read(self) -> object:
        """The next message, or `grpc.aio.EOF` when the other end is gone."""
        while not self._frames:
            if self.closed.done():
                return grpc.aio.EOF
            self._reader = self._loop.create_future()
            await self._reader
        frame = self._frames.popleft()
        if self._paused and len(self._frames) < UNREAD // 2 and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return frame

    async def write(self, message: bytes) -> None:
        """Returns when there is room for more; Unavailable when the other end is gone."""
        if self._transport is None or self._transport.is_closing():
            raise Unavailable("the local link is closed")
        self._flush()
        self._transport.writelines((LENGTH.pack(len(message)), message))
        if self._room is not None:
            await asyncio.shield(self._room)

    @property
    def has_room(self) -> bool:
        """Whether a message may be written without waiting."""
        return self._room is None and self._transport is not None and not self._transport.is_closing()

    def write_now(self, message: bytes) -> bool:
        """As `write`, but without waiting: False, and nothing is written, when it would have to wait or would fail."""
        if not self.has_room or self._transport is None:
            return False
        if self._collecting:
            self._collected += (LENGTH.pack(len(message)), message)
            return True
        # Each write is a system call that wakes the other end: the first of a turn leaves at once, so that it is worked
        # on meanwhile, and those that follow leave together.
        self._collecting = True
        self._loop.call_soon(self._flush)
        self._transport.write(LENGTH.pack(len(message)) + message)
        return True

    def _flush(self) -> None:
        self._collecting = False
        collected, self._collected = self._collected, []
        if collected and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(collected))

    def cancel(self) -> None:
        """Ends the link; harmless when it has ended."""
        if self._transport is not None:
            self._transport.abort()

    def finish(self) -> None:
        """Ends the link when what was written has left."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    # What the event loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        if peer_user(self._transport) != os.geteuid():
            LOG.warning("another user tried the local link and was refused")
            self._transport.abort()
        elif self._opened is not None:
            self._opened(self)

    def data_received(self, data: bytes) -> None:
        if self._opened is None:
            self._receive(data)
            return
        # A server's answers to what came together leave together.
        self._collecting = True
        self._receive(data)
        self._flush()

    def _receive(self, data: bytes) -> None:
        if self._rest:
            self._rest += data
            taken = self._take(bytes(self._rest) if self._whole(self._rest) else b"")
            del self._rest[:taken]
        else:
            self._rest += data[self._take(data) :]
        if self._frames:
            self._wake()
        if len(self._frames) >= UNREAD and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        if self._room is None:
            self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self.resume_writing()
        if not self.closed.done():
            self.closed.set_result(None)
        self._wake()

    def _whole(self, data: bytearray) -> bool:
        """Whether the first frame has come; an unfinished one is not looked at byte by byte."""
        return len(data) >= LENGTH.size and len(data) >= LENGTH.size + self._length(data, 0)

    def _take(self, data: bytes) -> int:
        """Moves the whole frames of `data` to those that are read, and returns how many bytes they were."""
        start, end = 0, len(data)
        while end - start >= LENGTH.size:
            stop = start + LENGTH.size + self._length(data, start)
            if stop > end:
                break
            frame = data[start + LENGTH.size : stop]
            if self.receiver is None or not self.receiver(frame):
                self._frames.append(frame)
            start = stop
        return start

    def _length(self, data: bytes | bytearray, start: int) -> int:
        length: int = LENGTH.unpack_from(data, start)[0]
        if length > self._max_frame and self._transport is not None:
            LOG.warning("a frame on the local link is too long", extra={"got": length, "expected": self._max_frame})
            self._transport.abort()
        return length

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


def peer_user(transport: asyncio.Transport) -> int:
    """The user id of the process at the other end, as the kernel knows it."""
    peer = transport.get_extra_info("socket")
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    user: int = CREDENTIALS.unpack(credentials)[1]
    return user


async def open_link(path: str, max_frame: int, timeout_s: float) -> Link:
    """Connects to a server's link. Unavailable when nobody listens there."""
    try:
        async with asyncio.timeout(timeout_s):
            _, link = await asyncio.get_running_loop().create_unix_connection(lambda: Link(max_frame), path)
    except (OSError, TimeoutError) as error:
        raise Unavailable(f"no local link at {path}: {error}", path=path) from error
    return link


@contextlib.asynccontextmanager
async def linked(
    service: InferenceService, path: str, max_frame: int, grace_s: float = 1.0, instant: Instant | None = None
) -> AsyncIterator[None]:
    """Serves `service` on a link at `path` while the block lasts; `instant` answers what it can before a session does.

    At its end sessions finish what they have read, as `service.drain()` lets them, for at most `grace_s`. Raises
    FailedPrecondition when the path cannot be used.
    """
    sessions: dict[asyncio.Task[None], Link] = {}

    def opened(link: Link) -> None:
        if instant is not None:
            link.receiver = partial(answered_now, instant, link)
        task = asyncio.get_running_loop().create_task(session(service, link), name=f"local link {path}")
        link.closed.add_done_callback(lambda _: task.cancel())
        sessions[task] = link
        task.add_done_callback(lambda done: sessions.pop(done, None))

    try:
        server = await asyncio.get_running_loop().create_unix_server(lambda: Link(max_frame, opened), path)
        os.chmod(path, 0o600)
    except OSError as error:
        raise FailedPrecondition(f"cannot listen on {path}: {error.strerror or error}", address=path) from error
    try:
        yield
    finally:
        server.close()
        service.drain()
        for link in sessions.values():
            link.receiver = None
        if sessions:
            await asyncio.wait(list(sessions), timeout=grace_s)
        for link in list(sessions.values()):
            link.cancel()
        await asyncio.gather(*sessions, return_exceptions=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


async def session(service: InferenceService, link: Link) -> None:
    """Serves one connection; what is still computed for a caller that is gone is cancelled."""
    try:
        await service.converse(link)
    except asyncio.CancelledError:
        if not link.closed.done():
            raise
    except EncephalonError as error:
        LOG.info("a local link ended", extra={"reason": error.message})
    finally:
        link.finish()


def answered_now(instant: Instant, link: Link, message: bytes) -> bool:
    """Nothing is computed for a caller that does not take its answers: what waits counts against a session's limit."""
    if not link.has_room:
        return False
    answer = instant.answer(message)
    return answer is not None and link.write_now(answer)
