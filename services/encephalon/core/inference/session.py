"""The server's side of one ModelStreamInfer: many requests at once, answered as they are ready."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import grpc

from encephalon.core.errors import Cancelled, InvalidInput, Unavailable
from encephalon.core.inference.names import CANCEL, OUTPUT_REGION, STREAM_REGION_PREFIX
from encephalon.core.status import stream_error
from encephalon.core.wire import (
    InferRequest,
    InferResponse,
    encode_stream_error,
    peek_id,
)

__all__ = ["Session", "Stream", "refusal"]

# Asked for by clients of decoupled models, which count answers by it; ours are always one answer.
FINAL_WANTED, FINAL = "triton_enable_empty_final_response", "triton_final_response"


class Stream(Protocol):
    """What carries messages: a `grpc.aio.ServicerContext`, or a local link."""

    async def read(self) -> Any: ...

    async def write(self, message: bytes) -> None: ...


class Session:
    """Every request gets exactly one answer, a cancelled one too: only then may its caller reuse what it lent.

    At most `limit` requests are in flight, counted until their answers are written; then reading stops, so that the
    transport's flow control holds the caller back.
    """

    def __init__(
        self,
        stream: Stream,
        decode: Callable[[bytes], InferRequest],
        answer: Callable[[InferRequest], Awaitable[InferResponse]],
        encode: Callable[[InferResponse], bytes],
        limit: int,
    ) -> None:
        self._stream = stream
        self._decode = decode
        self._answer = answer
        self._encode = encode
        self._limit = limit
        self._slots = asyncio.Semaphore(limit)
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._outbox: deque[bytes] = deque()
        self._writing = False
        self._closed = False
        self._run: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._draining = False
        self._failure: BaseException | None = None
        self.regions: set[str] = set()

    async def run(self) -> None:
        """Until the caller has said its last word and has every answer. Leaving early stops all that still works."""
        self._run = asyncio.current_task()
        self._reader = asyncio.create_task(self._read(), name="inference stream reader")
        try:
            await asyncio.wait([self._reader])
            if not self._reader.cancelled():
                self._reader.result()
            await self._everything_answered()
        except asyncio.CancelledError:
            if self._failure is None:
                raise
            raise Unavailable("the stream broke while an answer was written") from self._failure
        finally:
            self._closed = True
            waiting = [self._reader, *self._tasks]
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    def drain(self) -> None:
        """Reads no more; `run` returns when what was read is answered."""
        self._draining = True
        if self._reader is not None:
            self._reader.cancel()

    async def _everything_answered(self) -> None:
        for _ in range(self._limit):
            await self._slots.acquire()

    async def _read(self) -> None:
        while not self._draining and (message := await self._stream.read()) is not grpc.aio.EOF:
            await self._accept(message)

    async def _accept(self, message: bytes) -> None:
        try:
            request = self._decode(message)
        except InvalidInput as error:
            await self._slots.acquire()
            self._start(self._write(refusal(error, peek_id(message))))
            return
        if request.parameters.get(CANCEL) is True:
            self._cancel(request.id)
            return
        await self._slots.acquire()
        self._note_regions(request)
        task = self._start(self._handle(request))
        if request.id:
            self._running[request.id] = task

    def _start(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception() is None or self._closed:
            return
        # Only writing can fail, and then the stream is gone.
        self._failure = task.exception()
        if self._run is not None:
            self._run.cancel()

    def _cancel(self, id: str) -> None:
        task = self._running.get(id)
        if task is not None:
            # Not at once: a task that is cancelled before its first step never runs, and so would not answer.
            asyncio.get_running_loop().call_soon(self._cancel_unanswered, id, task)

    def _cancel_unanswered(self, id: str, task: asyncio.Task[None]) -> None:
        # Once answered it may be writing, and a write that is cancelled would spoil the stream.
        if self._running.get(id) is task:
            del self._running[id]
            task.cancel()

    async def _handle(self, request: InferRequest) -> None:
        payload = await self._answered(request)
        # From here on a cancel message finds nothing, so that it cannot stop the writing of others' answers.
        if request.id and self._running.get(request.id) is asyncio.current_task():
            del self._running[request.id]
        await self._write(payload)

    async def _answered(self, request: InferRequest) -> bytes:
        try:
            response = await self._answer(request)
            if request.parameters.get(FINAL_WANTED) is True:
                response.parameters[FINAL] = True
            return self._encode(response)
        except asyncio.CancelledError:
            if self._closed:
                raise
            stopped = Cancelled(f"request '{request.id}' was stopped by its caller")
            return refusal(stopped, request.id)
        except Exception as error:  # noqa: BLE001 - becomes the answer, and stream_error logs what is not ours
            return refusal(error, request.id)

    async def _write(self, payload: bytes) -> None:
        """Only one write may be under way; whoever finds none writes for all that come meanwhile."""
        self._outbox.append(payload)
        if self._writing:
            return
        self._writing = True
        try:
            while self._outbox:
                await self._stream.write(self._outbox.popleft())
                self._slots.release()
        finally:
            self._writing = False

    def _note_regions(self, request: InferRequest) -> None:
        names = [shared.region for shared in request.shared_inputs]
        if OUTPUT_REGION in request.parameters:
            names.append(str(request.parameters[OUTPUT_REGION]))
        self.regions.update(name for name in names if name.startswith(STREAM_REGION_PREFIX))


def refusal(error: BaseException, id: str) -> bytes:
    """The answer to a request that failed."""
    return encode_stream_error(stream_error(error, id))
