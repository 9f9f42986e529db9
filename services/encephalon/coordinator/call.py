"""One activation on its way to one region: the attempts it takes until one of them is answered."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from time import monotonic
from typing import Protocol

from encephalon.coordinator.activations import nbytes_of
from encephalon.coordinator.link import Link
from encephalon.coordinator.replicas import Replica
from encephalon.core.errors import Cancelled, EncephalonError, FailedPrecondition, Internal, Overloaded, Unavailable
from encephalon.core.wire import InferRequest, InferResponse

__all__ = ["Call", "Waiting"]

LOG = logging.getLogger(__name__)

# When only the replica that just failed is left, it gets this long, times the attempts, to recover.
BACKOFF_S = 0.05
# Who gives up sooner than this says nothing about the replica.
TELLING_S = 1.0


class Waiting(Protocol):
    """Who made the call; `index` is its own number for it."""

    def answered(self, index: int, response: InferResponse, seconds: float) -> None:
        """`seconds` since the call was made."""
        ...

    def failed(self, index: int, error: EncephalonError) -> None: ...


class Call:
    """Ends with exactly one of `answered` and `failed`, or with none after `cancel`."""

    __slots__ = (
        "_asked", "_deadline", "_index", "_link", "_over", "_parked", "_request", "_retries", "_sequence", "_started",
        "_timer", "_tried", "_waiter",
    )  # fmt: skip

    def __init__(
        self, link: Link, request: InferRequest, deadline: float, retries: int, index: int, waiter: Waiting
    ) -> None:
        self._link, self._request, self._deadline = link, request, deadline
        self._retries, self._index, self._waiter = retries, index, waiter
        self._asked: list[tuple[asyncio.Future[InferResponse], Replica]] = []
        self._tried: tuple[Replica, ...] = ()
        self._timer: asyncio.TimerHandle | None = None
        self._over = self._parked = False
        self._started = monotonic()
        sequence = request.parameters.get("sequence_id") if request.parameters else None
        self._sequence = sequence if isinstance(sequence, int | str) and sequence else None

    def start(self, hedge_s: float | None = None) -> None:
        """Tells its outcome to the waiter, perhaps before it returns."""
        link = self._link
        if not link.breaker.allows():
            self._end()
            link.metrics.failed("BreakerOpen")
            self._waiter.failed(self._index, link.refused())
            return
        self.go()
        if hedge_s is not None and self._sequence is None and not self._over:
            self._timer = link.loop.call_later(hedge_s, self._ask_another)

    def go(self) -> None:
        """Asks a replica; waits for one when there is none."""
        if self._over:
            return
        try:
            replica = self._link.pick(self._tried) if self._sequence is None else self._pick_sticky(self._sequence)
        except FailedPrecondition as error:
            self.fail(error)
            return
        if replica is None:
            self._park()
        else:
            self._ask(replica)

    def cancel(self) -> None:
        """Stops every attempt; nobody is told."""
        if self._over:
            return
        self._end()
        for future, _ in self._asked:
            future.cancel()

    def abandon(self) -> None:
        """Cancels because the answer is too late, which speaks against the replicas asked when they had time enough."""
        if self._over:
            return
        late = monotonic() - self._started >= TELLING_S
        for _, replica in self._asked if late else ():
            self._link.failed(replica)
        if late:
            self._link.breaker.failed()
        self._link.metrics.failed("DeadlineExceeded")
        self.cancel()

    def fail(self, error: EncephalonError) -> None:
        if self._over:
            return
        self._end()
        self._link.metrics.failed(error.reason)
        if isinstance(error, Unavailable):
            self._link.breaker.failed()
        self._waiter.failed(self._index, error)

    def _pick_sticky(self, sequence: int | str) -> Replica | None:
        parameters = self._request.parameters
        starts, ends = bool(parameters.get("sequence_start")), bool(parameters.get("sequence_end"))
        return self._link.pick_sticky(sequence, starts=starts, ends=ends)

    def _park(self) -> None:
        self._parked = True
        self._link.park(self, self._deadline)

    def _ask(self, replica: Replica) -> None:
        started = monotonic()
        self._link.metrics.sent.value += nbytes_of(self._request.inputs)
        try:
            response = replica.answer_now(self._request, self._deadline)
        except Exception as error:  # noqa: BLE001 - as one in a future, it is told to the waiter
            self._attempt_failed(replica, None, self._explained(error))
            return
        if response is not None:
            self._succeeded(replica, started, response)
            return
        future = replica.send(self._request, self._deadline)
        replica.outstanding += 1
        self._asked.append((future, replica))
        future.add_done_callback(partial(self._told, replica, started))

    def _ask_another(self) -> None:
        """The hedge: the first replica takes long."""
        self._timer = None
        if not self._asked:
            return
        asked = [replica for _, replica in self._asked]
        replica = self._link.pick(asked)
        if replica is not None and replica not in asked and self._link.budget.take():
            self._link.metrics.hedges.value += 1
            self._ask(replica)

    def _told(self, replica: Replica, started: float, future: asyncio.Future[InferResponse]) -> None:
        replica.outstanding -= 1
        if replica.leaving:
            self._link.released(replica)
        error = Unavailable("the replica is gone") if future.cancelled() else future.exception()
        if self._over:
            return
        if error is not None:
            self._attempt_failed(replica, future, self._explained(error))
        else:
            self._succeeded(replica, started, future.result())

    def _succeeded(self, replica: Replica, started: float, response: InferResponse) -> None:
        now = monotonic()
        seconds = now - self._started
        replica.answered(now - started)
        link = self._link
        link.breaker.succeeded()
        link.budget.earn()
        link.metrics.answered(seconds)
        link.metrics.received.value += nbytes_of(response.outputs)
        self._end()
        for other, _ in self._asked:
            other.cancel()
        self._waiter.answered(self._index, response, seconds)

    def _attempt_failed(
        self, replica: Replica, future: asyncio.Future[InferResponse] | None, error: EncephalonError
    ) -> None:
        if isinstance(error, Unavailable):
            self._link.failed(replica)
        self._asked = [pair for pair in self._asked if pair[0] is not future]
        if self._asked:
            return
        if self._sequence is not None and isinstance(error, Unavailable):
            # Its effect on the sequence's state is unknown, so it is not sent again.
            self._link.sequences.forget(self._sequence)
            error = self._link.lost(self._sequence, replica.id)
        if not isinstance(error, Unavailable | Overloaded) or not self._again(replica, error):
            self.fail(error)

    def _again(self, replica: Replica, error: EncephalonError) -> bool:
        """Whether another attempt is on its way: on another replica, or (unless it is overloaded) later on the same."""
        link = self._link
        if self._retries <= 0 or monotonic() >= self._deadline or self._sequence is not None:
            return False
        self._tried += (replica,)
        following = link.pick(self._tried)
        same = following in self._tried
        if (same and isinstance(error, Overloaded)) or not link.budget.take():
            return False
        self._retries -= 1
        link.metrics.retries.value += 1
        if following is None:
            self._park()
        elif same:
            link.loop.call_later(BACKOFF_S * len(self._tried), self.go)
        else:
            self._ask(following)
        return True

    def _explained(self, error: BaseException) -> EncephalonError:
        if isinstance(error, EncephalonError):
            return Unavailable("the replica gave the request up") if isinstance(error, Cancelled) else error
        LOG.error("a replica failed in an unforeseen way", extra={"region": self._link.region}, exc_info=error)
        return Internal(f"{type(error).__name__}: {error}")

    def _end(self) -> None:
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._parked:
            self._link.unpark(self)
