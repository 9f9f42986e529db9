"""The actor of a region that learns: it is prepared for a run, and then computes one share after another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from encephalon.api.learning.v1 import learning_pb2 as pb
from encephalon.api.parameter_server.v1 import parameter_server_pb2 as parameter_pb
from encephalon.api.training.v1 import training_pb2 as training_pb
from encephalon.core.errors import Cancelled, FailedPrecondition, InvalidInput
from encephalon.core.tasks import spawn
from encephalon.learning.activations import decode, encode
from encephalon.region.learning.mailbox import Mailbox, Work
from encephalon.region.learning.stage import Run, Stage
from encephalon.region.worker import Worker

__all__ = ["LearningActor", "Load"]

BEAT_S: Final = 1.0
"""A driver gives up after ten of these without a word."""
MOST_MICRO_BATCHES: Final = 1 << 20
MOST_IN_FLIGHT: Final = 1 << 10
"""Regions on the longest way through a brain; a manifest has at most 256."""

Load = Callable[[pb.PrepareRequest], Coroutine[Any, Any, Callable[[], Stage]]]
"""Brings what a request needs; what it gives is called in the thread that computes."""
Answer = pb.LearnResponse


@dataclass(frozen=True)
class Prepared:
    request: pb.PrepareRequest
    stage: Stage


class LearningActor:
    """One thread computes whatever comes, in the order in which it comes; a newer share ends an older one."""

    def __init__(
        self, load: Load, *, beat_s: float = BEAT_S, prepare_thread: Callable[[], None] = lambda: None
    ) -> None:
        """prepare_thread: called once in the thread that computes."""
        self._load, self._beat_s = load, beat_s
        self._worker = Worker("compute")
        self._prepare_thread = prepare_thread
        self._lock = asyncio.Lock()
        self._prepared: Prepared | None = None
        self._current: Run | None = None

    async def start(self) -> None:
        await self._worker.run(lambda _: self._prepare_thread(), None)

    async def prepare(self, request: pb.PrepareRequest) -> list[parameter_pb.Tensor]:
        """The region's tensors that travel. Raises what loading a network raises."""
        async with self._lock:
            if self._prepared is None or self._prepared.request != request:
                make = await self._load(request)
                self._drop(self._current)
                stage = await self._worker.run(lambda _: self._exchanged(make), None)
                self._prepared = Prepared(request, stage)
            return self._prepared.stage.region.tensors()

    async def learn(self, messages: AsyncIterator[pb.LearnRequest]) -> AsyncGenerator[Answer, None]:
        """Answers to the passes of one share, and beats. Raises FailedPrecondition before `prepare`, InvalidInput for
        what is out of order, Cancelled when another share came, and what parameters and networks raise."""
        begin = await _first(messages)
        if self._prepared is None:
            raise FailedPrecondition("a share came before the region was prepared; call Prepare first")
        stage, run = self._prepared.stage, Run(begin)
        mailbox = Mailbox(begin.micro_batches, begin.in_flight, backward=stage.has_backward(run))
        # The next pass is computed while an answer is on its way; more than these cannot be under way.
        answers: asyncio.Queue[Answer | Exception] = asyncio.Queue(begin.in_flight + 1)
        self._drop(self._current)
        self._current = run
        reading = asyncio.create_task(_read(messages, mailbox), name="read passes")
        computing = asyncio.create_task(self._compute(stage, run, mailbox, answers), name="compute passes")
        try:
            while True:
                answer = await self._next(answers)
                yield answer
                if answer.HasField("done"):
                    return
        finally:
            self._drop(run)
            for task in (reading, computing):
                task.cancel()
            await asyncio.wait([reading, computing])

    async def close(self) -> None:
        """Ends the share that is being computed. Twice is harmless."""
        self._drop(self._current)
        if self._prepared is not None:
            prepared, self._prepared = self._prepared, None
            await self._worker.run(lambda _: prepared.stage.close(), None)
        self._worker.stop()

    async def _next(self, answers: asyncio.Queue[Answer | Exception]) -> Answer:
        try:
            async with asyncio.timeout(self._beat_s):
                answer = await answers.get()
        except TimeoutError:
            return Answer(beat=pb.Beat())
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _compute(
        self, stage: Stage, run: Run, mailbox: Mailbox, answers: asyncio.Queue[Answer | Exception]
    ) -> None:
        try:
            await self._worker.run(stage.begin, run)
            while not mailbox.finished:
                work = await mailbox.take()
                await answers.put(await self._worker.run(partial(_passed, stage, run), work))
            done = await self._worker.run(stage.finish, run)
            done.held_micro_batches = mailbox.most_held
            await answers.put(Answer(done=done))
        except Exception as error:  # noqa: BLE001 - it is raised where the answers are sent
            await answers.put(error)

    def _exchanged(self, make: Callable[[], Stage]) -> Stage:
        """The old one stays when the new one cannot be made."""
        stage = make()
        if self._prepared is not None:
            self._prepared.stage.close()
        return stage

    def _drop(self, run: Run | None) -> None:
        """Without waiting for it: what waits for shards is told from another thread."""
        if run is not None:
            if self._current is run:
                self._current = None
            spawn("drop a share", asyncio.to_thread(run.drop))


def _passed(stage: Stage, run: Run, work: Work) -> Answer:
    """In the thread that computes."""
    assert isinstance(work.payload, pb.Pass)  # noqa: S101 - `_read` puts nothing else
    tensors = decode(work.payload.tensors)
    if work.direction == "forward":
        outputs = stage.forward(run, work.micro_batch, tensors)
        return Answer(forward=pb.Pass(micro_batch=work.micro_batch, tensors=encode(outputs)))
    gradients = stage.backward(run, work.micro_batch, tensors)
    return Answer(backward=pb.Pass(micro_batch=work.micro_batch, tensors=encode(gradients)))


async def _first(messages: AsyncIterator[pb.LearnRequest]) -> pb.Begin:
    message = await anext(messages, None)
    if message is None or not message.HasField("begin"):
        raise InvalidInput("a share starts with Begin; send it first")
    begin = message.begin
    for name, most in (("micro_batches", MOST_MICRO_BATCHES), ("in_flight", MOST_IN_FLIGHT)):
        if not 1 <= (found := getattr(begin, name)) <= most:
            raise InvalidInput(f"{name} is {found}, expected 1 to {most}")
    share = begin.share
    if share.kind == training_pb.Share.KIND_TRAIN and (share.divisor < 1 or share.stop <= share.start):
        raise InvalidInput(
            f"the share has samples {share.start} to {share.stop} and divisor {share.divisor}; expected a sample and a "
            "divisor of 1 at least"
        )
    return begin


async def _read(messages: AsyncIterator[pb.LearnRequest], mailbox: Mailbox) -> None:
    try:
        async for message in messages:
            which = message.WhichOneof("what")
            if which not in ("forward", "backward"):
                raise InvalidInput("a message came that is no pass; send Begin once, then passes")
            found: pb.Pass = getattr(message, which)
            mailbox.put(Work(which, found.micro_batch, found))
        mailbox.fail(Cancelled("the driver has ended the share before it was done"))
    except Exception as error:  # noqa: BLE001 - it is raised where passes are taken
        mailbox.fail(error)
