"""A network between two processes of a run that is slow, loses connections, or stands still.

async with between("127.0.0.1:4000", listen=4001) as line:
    line.delay_s = 0.05         # of every block, each way
    line.rate = 125e6           # bytes per second, each way, for all connections together
    line.drop()                 # every connection breaks now; new ones are taken
    line.stall()                # connections stay, no byte passes; flow() goes on
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

__all__ = ["SlowLine", "between"]

BLOCK: Final = 1 << 16


class SlowLine:
    """A TCP proxy to a target that need not be there yet."""

    def __init__(self, target: str, at: str, listen: int) -> None:
        host, _, port = target.rpartition(":")
        self._host = at
        self.delay_s = 0.0
        self.rate = 0.0
        """0: as fast as it goes."""
        self.dropped = 0
        """Connections that were broken."""
        self.passed_bytes = 0
        self._target = (host, int(port))
        self._listen = listen
        self._open: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, ...]] = {}
        self._free = [0.0, 0.0]
        self._flows = asyncio.Event()
        self._flows.set()

    @property
    def address(self) -> str:
        return f"{self._host}:{self._listen}"

    def drop(self) -> None:
        for task, writers in list(self._open.items()):
            for writer in writers:
                writer.transport.abort()
            task.cancel()
            self.dropped += 1

    def stall(self) -> None:
        self._flows.clear()

    def flow(self) -> None:
        self._flows.set()

    async def open(self) -> asyncio.Server:
        server = await asyncio.start_server(self._accept, self._host, self._listen)
        self._listen = server.sockets[0].getsockname()[1]
        return server

    async def close(self, server: asyncio.Server) -> None:
        server.close()
        tasks = list(self._open)
        self.drop()
        if tasks:
            await asyncio.wait(tasks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._both(reader, writer, far_reader, far_writer))
        self._open[task] = (writer, far_writer)
        task.add_done_callback(lambda done: self._open.pop(done, None))

    async def _both(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        pairs = ((reader, far_writer), (far_reader, writer))
        ways = [asyncio.create_task(self._pump(*pair, way)) for way, pair in enumerate(pairs)]
        try:
            await asyncio.wait(ways)
        finally:
            for way in ways:
                way.cancel()
            writer.close()
            far_writer.close()

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, way: int) -> None:
        with contextlib.suppress(OSError):
            while block := await source.read(BLOCK):
                if self.delay_s or self.rate:
                    await asyncio.sleep(self.delay_s + self._turn(len(block), way))
                await self._flows.wait()
                target.write(block)
                self.passed_bytes += len(block)
                await target.drain()
        target.close()

    def _turn(self, size: int, way: int) -> float:
        """Seconds until the line is free for a block."""
        if not self.rate:
            return 0.0
        now = asyncio.get_running_loop().time()
        begin = max(now, self._free[way])
        self._free[way] = begin + size / self.rate
        return begin - now


@contextlib.asynccontextmanager
async def between(target: str, *, host: str = "127.0.0.1", listen: int = 0) -> AsyncIterator[SlowLine]:
    """listen: the port of `host`; 0 takes a free one."""
    line = SlowLine(target, host, listen)
    server = await line.open()
    try:
        yield line
    finally:
        await line.close(server)
