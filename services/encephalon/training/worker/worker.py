"""The life of a worker: it joins, takes one share after another, and leaves."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

from google.protobuf.message import Message

from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.core.errors import DeadlineExceeded, EncephalonError, FailedPrecondition, InvalidInput, Retryable
from encephalon.core.tasks import background
from encephalon.training.worker.control import PASSING

__all__ = ["Asks", "Shares", "Worker"]

LOG = logging.getLogger(__name__)

CALL_S: Final = 2.5
"""Below the three seconds after which a silent worker is lost; a control node without work answers after two."""
LEAVE_S: Final = 2.0
AGAIN_S: Final = 0.2

Answer = TypeVar("Answer", bound=Message)


class Asks(Protocol):
    """What of `control.Control` is used here."""

    async def ask(self, method: str, request: Message, answer: type[Answer], *, timeout_s: float) -> Answer: ...


class Shares(Protocol):
    """Does what a share says; implemented by `shares.Work`."""

    async def begin(self, response: pb.JoinResponse) -> None:
        """The worker has joined, perhaps again."""
        ...

    async def do(self, share: pb.Share) -> pb.ReportRequest | None:
        """The report, without run and member; None when the share is to be forgotten. Raises what may pass."""
        ...

    def drop(self) -> None:
        """Ends the share that is being done."""
        ...


Over = Callable[[bool], Awaitable[str]]
"""Why the run is over, asked when no control node answers; "" while it is not. The argument: whether the worker has
been in the run, so that a run that was stopped is not one that is about to be resumed."""


async def never(joined: bool) -> str:
    return ""


class RunOver(Exception):
    """Nobody is there any more who could say so."""


class Worker:
    """`joining` says who it is. Nothing that happens to the control node ends it but a refusal, and the end of the
    run."""

    def __init__(
        self,
        control: Asks,
        joining: pb.JoinRequest,
        shares: Shares,
        *,
        heartbeat_s: float = 0.5,
        over: Over = never,
    ) -> None:
        self._control, self._joining, self._shares = control, joining, shares
        self._heartbeat_s, self._over = heartbeat_s, over
        self._leaving = asyncio.Event()
        self._out = False
        self.joined = False
        self._known = False

    async def run(self) -> str:
        """Until the run is over (the sentence that says why), or `leave` was called (""). InvalidInput when the control
        node refuses this worker."""
        try:
            return await self._work()
        except RunOver as over:
            return str(over)

    async def _work(self) -> str:
        await self._join()
        async with background("heartbeats", self._beat()):
            while not self._leaving.is_set():
                if self._out:
                    await self._join()
                    continue
                response = await self._patiently(self._next)
                if response is not None and response.HasField("finished"):
                    return response.finished
                if response is not None and response.rejoin:
                    self._out = True
                elif response is not None and response.HasField("share"):
                    await self._do(response.share)
        if self.joined:
            await self._give_back()
        return ""

    def leave(self) -> None:
        """Finishes the share that is being done, gives everything back, and lets `run` return."""
        self._leaving.set()

    async def _join(self) -> None:
        """InvalidInput, with the control node's sentence, when it refuses."""

        async def join() -> pb.JoinResponse:
            return await self._control.ask("Join", self._joining, pb.JoinResponse, timeout_s=CALL_S)

        self.joined = False
        try:
            response = await self._patiently(join)
        except EncephalonError as error:
            raise InvalidInput(error.message, **error.details) from error
        if response is not None:
            await self._shares.begin(response)
            self._out, self.joined, self._known = False, True, True
            LOG.info("joined the run", extra={"tensors": len(response.layout.tensors)})

    async def _beat(self) -> None:
        while True:
            try:
                request = pb.HeartbeatRequest(run=self._joining.run, member=self._joining.member)
                response = await self._control.ask("Heartbeat", request, pb.HeartbeatResponse, timeout_s=CALL_S)
            except EncephalonError as error:
                LOG.debug("no heartbeat", extra={"cause": error.message})
            else:
                if response.rejoin or response.drop:
                    self._out = self._out or response.rejoin
                    self._shares.drop()
            await asyncio.sleep(self._heartbeat_s)

    async def _next(self) -> pb.NextResponse:
        request = pb.NextRequest(run=self._joining.run, member=self._joining.member)
        return await self._control.ask("Next", request, pb.NextResponse, timeout_s=CALL_S)

    async def _do(self, share: pb.Share) -> None:
        began = time.perf_counter()
        try:
            report = await self._shares.do(share)
        except (Retryable, DeadlineExceeded, FailedPrecondition) as error:
            # The control node knows better: it gives this share again, or another one.
            LOG.info("a share is asked for again", extra={"update": share.update, "cause": error.message})
            await asyncio.sleep(AGAIN_S)
            return
        if report is None:
            return
        report.run = self._joining.run
        report.member.CopyFrom(self._joining.member)
        report.share.CopyFrom(share)
        report.share.ClearField("shards")
        report.seconds = time.perf_counter() - began
        await self._report(report)

    async def _report(self, report: pb.ReportRequest) -> None:
        async def tell() -> pb.ReportResponse:
            return await self._control.ask("Report", report, pb.ReportResponse, timeout_s=CALL_S)

        try:
            response = await self._patiently(tell, last_s=LEAVE_S)
        except EncephalonError as error:
            LOG.warning("a report was refused", extra={"cause": error.message})
            return
        self._out = self._out or (response is not None and response.rejoin)

    async def _give_back(self) -> None:
        request = pb.LeaveRequest(run=self._joining.run, member=self._joining.member)
        try:
            await self._control.ask("Leave", request, pb.LeaveResponse, timeout_s=LEAVE_S)
        except EncephalonError as error:
            LOG.warning("the control node was not told that this worker leaves", extra={"cause": error.message})

    async def _patiently(self, call: Callable[[], Awaitable[Answer]], *, last_s: float = 0.0) -> Answer | None:
        """Asks until there is an answer, whatever happens to the control node; None when the worker leaves, at the
        latest `last_s` after that."""
        asking = asyncio.ensure_future(self._until_answered(call))
        leaving = asyncio.ensure_future(self._leaving.wait())
        try:
            await asyncio.wait([asking, leaving], return_when=asyncio.FIRST_COMPLETED)
            if not asking.done() and last_s:
                await asyncio.wait([asking], timeout=last_s)
            return asking.result() if asking.done() else None
        finally:
            for task in (asking, leaving):
                task.cancel()
            await asyncio.wait([asking, leaving])

    async def _until_answered(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        told = False
        while True:
            try:
                return await call()
            except PASSING as error:
                if not told:
                    LOG.warning("the control node does not answer; it is asked again", extra={"cause": error.message})
                told = True
            if sentence := await self._over(self._known):
                raise RunOver(sentence)
            await asyncio.sleep(AGAIN_S)
