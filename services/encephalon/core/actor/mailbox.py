"""The mailbox of an actor: bounded, ordered, batching, and honest about what it cannot do in time."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from encephalon.core.actor.admission import Admission
from encephalon.core.actor.batch import Batch, Envelope
from encephalon.core.actor.pace import Pace
from encephalon.core.actor.queue import Queue, Unify
from encephalon.core.cost import CostModel
from encephalon.core.errors import DeadlineExceeded, EncephalonError, Internal, Overloaded, Unavailable

__all__ = ["Mailbox"]

M = TypeVar("M")
A = TypeVar("A")
T = TypeVar("T")
Handle = Callable[[Batch[M, A]], Awaitable[Sequence[A | BaseException]]]

SWEEP_S = 0.05
"""How late a passed deadline is noticed at most while its message waits or is computed."""


class Mailbox(Generic[M, A]):
    """Hands batches of messages to `handle`, one batch at a time, and gives each sender its answer.

    `handle` gets a `Batch` and returns an answer, or an exception, for each of its messages, in order; what it raises
    goes to all of them.

    A message is refused at once with `Overloaded` when `capacity` messages wait, or when the cost model says that its
    deadline cannot be met. Messages whose deadline has passed or whose sender has gone are dropped before they are
    batched. A batch holds up to `max_batch` rows of messages with one `key` (or keys that `unify` brings together). An
    idle mailbox waits for more at most `max_delay` seconds, and only while the cost model says that waiting pays.
    """

    def __init__(
        self,
        handle: Handle[M, A],
        *,
        capacity: int,
        max_batch: int,
        max_delay: float,
        cost: CostModel | None = None,
        unify: Unify | None = None,
    ) -> None:
        if capacity < 1 or max_batch < 1 or max_delay < 0:
            raise ValueError(
                f"capacity {capacity} and max_batch {max_batch} must be at least 1, max_delay {max_delay} at least 0"
            )
        self.capacity = capacity
        self.max_batch = max_batch
        self._admission = Admission(cost or CostModel(), max_batch)
        self._handle = handle
        self._queue: Queue[M, A] = Queue(unify)
        self._pace = Pace(max_delay)
        self._sequence = itertools.count()
        self._closed: EncephalonError | None = None
        self._batch: Batch[M, A] | None = None
        self._work: asyncio.Task[None] | None = None
        self._wake: asyncio.Handle | None = None
        self._wake_at = 0.0
        self._sweeper: asyncio.Handle | None = None
        self._idle: list[asyncio.Future[None]] = []
        self._idle_since = 0.0

    def __len__(self) -> int:
        """Messages that wait."""
        return self._queue.count

    @property
    def cost(self) -> CostModel:
        """What batches cost; may be replaced when other work begins."""
        return self._admission.cost

    @cost.setter
    def cost(self, cost: CostModel) -> None:
        self._admission.cost = cost

    @property
    def busy(self) -> bool:
        return self._batch is not None

    @property
    def load(self) -> float:
        """Share of the capacity in use, 0 to 1."""
        return self._queue.count / self.capacity

    async def ask(
        self, message: M, *, rows: int = 1, key: Hashable = None, priority: int = 0, deadline: float | None = None
    ) -> A:
        """The answer to `message`. Lower `priority` goes first; `deadline` is a time of the event loop's clock.

        Raises `Overloaded`, `DeadlineExceeded`, `Unavailable` (when closed), or what `handle` answered. Cancelling the
        caller gives the message up.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        limit = math.inf if deadline is None else deadline
        expected = self._admit(rows, priority, limit, now)
        envelope: Envelope[M, A] = Envelope(
            message,
            loop.create_future(),
            rows=rows,
            key=key,
            priority=priority,
            deadline=limit,
            arrived=now,
            sequence=next(self._sequence),
        )
        envelope.expected = expected
        self._queue.push(envelope)
        self._pace.arrived(now)
        self._stir(loop, now)
        if deadline is not None and self._sweeper is None:
            self._sweeper = loop.call_later(SWEEP_S, self._sweep, loop)
        try:
            return await envelope.future
        except asyncio.CancelledError:
            if not envelope.given_up and (now := loop.time()) > envelope.expected:
                self._admission.ended(envelope.expected, now)  # perhaps the caller's own clock said it was too late
            self._give_up(envelope)
            raise

    def close(self, reason: EncephalonError | None = None) -> None:
        """Refuses new messages with `reason` (by default `Unavailable`); those in the mailbox are still answered."""
        self._closed = self._closed or reason or Unavailable("the mailbox is closed; ask another replica")

    async def drain(self) -> None:
        """Refuses new messages and returns when the last admitted one is answered. Draining twice is harmless."""
        self.close()
        await self.settled()

    async def settled(self) -> None:
        """Returns when nothing waits and nothing is computed."""
        while self._batch is not None or self._queue.count:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            await waiter

    async def abort(self) -> None:
        """Closes, fails whatever is unanswered with `Unavailable`, and stops computing."""
        self.close()
        for envelope in [*self._queue, *(self._batch.envelopes if self._batch else ())]:
            self._fail(
                envelope, Unavailable("the mailbox was stopped before the message was answered; ask another replica")
            )
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait([self._work])
        for timer in (self._wake, self._sweeper):
            if timer is not None:
                timer.cancel()

    # Admission

    def _admit(self, rows: int, priority: int, deadline: float, now: float) -> float:
        """When the answer is expected, or the error that refuses."""
        if self._closed is not None:
            raise type(self._closed)(self._closed.message, **self._closed.details)
        if self._queue.count >= self.capacity:
            raise Overloaded(
                f"the mailbox is full ({self.capacity} messages wait); come back later", capacity=self.capacity
            )
        if deadline <= now:
            raise DeadlineExceeded("the deadline had passed when the message came")
        left = deadline - now
        needed = self._needed(rows, priority, now)
        idle_since = None if self._batch is not None or self._queue.count else self._idle_since
        if not self._admission.possible(needed, left, idle_since, now):
            raise Overloaded(
                f"the answer would take about {needed * 1e3:.0f} ms and the deadline is in {left * 1e3:.0f} ms; "
                "come back later",
                needed_ms=round(needed * 1e3, 3),
                left_ms=round(left * 1e3, 3),
            )
        return now + needed

    def _needed(self, rows: int, priority: int, now: float) -> float:
        """Seconds until a message that comes now is answered."""
        before = self._queue.rows_before(priority)
        computing = 0.0
        if self._batch is not None:
            computing = max(0.0, self._batch.started + self.cost.estimate(self._batch.rows) - now)
        return computing + self._admission.seconds(rows, before, self._queue.rows - before)

    def _give_up(self, envelope: Envelope[M, A]) -> None:
        """Nobody waits for the answer any more. Harmless when it was given up, or answered, before."""
        if envelope.given_up:
            return
        envelope.given_up = True
        if envelope.batch is None:
            self._queue.drop(envelope)
            self._tell_idle()
        else:
            envelope.batch.abandon_one()

    def _fail(self, envelope: Envelope[M, A], error: EncephalonError) -> None:
        if not envelope.gone:
            envelope.future.set_exception(error)
            self._give_up(envelope)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Fails the messages whose deadline has passed, waiting or computed, and comes again while there are any."""
        now = loop.time()
        self._sweeper = None
        waiting = [*self._queue, *(self._batch.envelopes if self._batch else ())]
        for envelope in waiting:
            if envelope.deadline <= now:
                where = "in the mailbox" if envelope.batch is None else "while it was computed"
                self._admission.ended(envelope.expected, now)
                self._fail(envelope, _late(where, now - envelope.arrived))
        if waiting:
            self._sweeper = loop.call_later(SWEEP_S, self._sweep, loop)

    # Batching

    def _stir(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        """Sees to it that the next batch starts when it should. Messages of one turn of the loop come together."""
        if self._batch is None and (self._wake is None or self._wake_at > now):
            self._wake_in(loop, now, 0.0)

    def _wake_in(self, loop: asyncio.AbstractEventLoop, now: float, seconds: float) -> None:
        if self._wake is not None:
            self._wake.cancel()
        self._wake_at = now + seconds
        self._wake = loop.call_later(seconds, self._next, loop) if seconds else loop.call_soon(self._next, loop)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        self._wake = None
        if self._batch is not None or not self._queue.count:
            return
        now = loop.time()
        patience = self._pace.patience(now, self._queue.rows, self.max_batch, self.cost)
        if patience > 0.0 and self._closed is None:
            self._wake_in(loop, now, patience)
            return
        envelopes = self._take(now)
        self._pace.started()
        if envelopes:
            self._batch = Batch(envelopes, now)
            self._work = loop.create_task(self._compute(self._batch, loop))
        else:
            self._tell_idle()

    def _take(self, now: float) -> list[Envelope[M, A]]:
        """The next batch. Messages that come too late even alone are failed, unless nothing else is left to do."""
        while envelopes := self._queue.take(self.max_batch):
            batch = [envelope for envelope in envelopes if now + self.cost.estimate(envelope.rows) <= envelope.deadline]
            if not batch and not self._queue.count:
                batch = [envelope for envelope in envelopes if now < envelope.deadline]
            for envelope in envelopes:
                if envelope not in batch:
                    self._admission.ended(envelope.expected, now + self.cost.estimate(envelope.rows))
                    envelope.given_up = True
                    envelope.future.set_exception(_late("in the mailbox", now - envelope.arrived))
            if batch:
                return self._trim(batch, min(envelope.deadline for envelope in batch) - now)
        return []

    def _trim(self, batch: list[Envelope[M, A]], left: float) -> list[Envelope[M, A]]:
        """Puts the last ones back, as long as with them the batch takes longer than its most urgent message has."""
        rows = sum(envelope.rows for envelope in batch)
        while len(batch) > 1 and self.cost.estimate(rows) > left:
            rows -= batch[-1].rows
            self._queue.push(batch.pop())
        return batch

    async def _compute(self, batch: Batch[M, A], loop: asyncio.AbstractEventLoop) -> None:
        answers: Sequence[A | BaseException] = [Unavailable("the mailbox was stopped; ask another replica")] * len(
            batch.envelopes
        )
        try:
            answers = _counted(await self._handle(batch), len(batch.envelopes))
        except Exception as error:  # noqa: BLE001 - it goes to whoever asked
            answers = [error] * len(batch.envelopes)
        finally:
            now = loop.time()
            self._answer(batch, answers, now)
            self._batch = self._work = None
            self._idle_since = now
            if self._queue.count:
                # A turn later: senders that wait for these very answers may ask again in it and join the next batch.
                self._wake_in(loop, now, 0.0)
            else:
                self._tell_idle()

    def _answer(self, batch: Batch[M, A], answers: Sequence[A | BaseException], now: float) -> None:
        good = not batch.abandoned.is_set()
        for envelope, answer in zip(batch.envelopes, answers, strict=True):
            good = good and not isinstance(answer, BaseException)
            if not envelope.given_up:
                self._admission.ended(envelope.expected, now)
            envelope.given_up = True
            if envelope.gone:
                continue
            if isinstance(answer, BaseException):
                envelope.future.set_exception(answer)
            else:
                envelope.future.set_result(answer)
        if good:
            self._admission.observe(batch.rows, now - batch.started, now)

    def _tell_idle(self) -> None:
        if self._batch is None and not self._queue.count:
            waiters, self._idle = self._idle, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)


def _late(where: str, waited: float) -> DeadlineExceeded:
    return DeadlineExceeded(f"the deadline passed {where}, {waited * 1e3:.0f} ms after the message came")


def _counted(answers: Sequence[T], wanted: int) -> Sequence[T]:
    if len(answers) != wanted:
        raise Internal(f"{len(answers)} answers came for {wanted} messages")
    return answers
