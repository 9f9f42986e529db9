"""Faults as sentences: a network that is cut, mended or stalled between a client and a server.

async with faulty(etcd.address) as line:
    line.address                # what the client is given instead
    await line.cut()            # every connection breaks, new ones are refused
    await line.mend()
    line.stall()                # connections stay, no byte passes; flow() goes on
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

__all__ = ["Line", "faulty"]

_BLOCK_BYTES = 65_536


class Line:
    """A TCP proxy of 127.0.0.1 to one target."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._server: asyncio.Server | None = None
        self._port = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self.connections = 0
        """How many were accepted so far."""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for writer in list(self._open):
            writer.transport.abort()
        for pump in list(self._pumps):
            pump.cancel()
        if self._pumps:
            await asyncio.wait(list(self._pumps))

    def stall(self) -> None:
        self._flows.clear()

    def flow(self) -> None:
        self._flows.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        for source, target in ((reader, far_writer), (far_reader, writer)):
            self._open.add(target)
            pump = asyncio.create_task(self._pump(source, target))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError):
                while block := await source.read(_BLOCK_BYTES):
                    await self._flows.wait()
                    target.write(block)
                    await target.drain()
        finally:
            self._open.discard(target)
            target.close()


@contextlib.asynccontextmanager
async def faulty(target: str) -> AsyncIterator[Line]:
    line = Line(target)
    await line.mend()
    try:
        yield line
    finally:
        await line.cut()
