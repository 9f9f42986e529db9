"""One request on its way through a brain. Steps start as soon as their inputs are there, side by side.

Written as callbacks, because this is the path of every request: no task per step, and nothing of the event loop (no
future, no timer) for a request whose regions all answer at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

from encephalon.coordinator.activations import tensor_of, unfit
from encephalon.coordinator.call import Call
from encephalon.coordinator.failures import expired, lacking, late, naming, nothing
from encephalon.coordinator.link import Link
from encephalon.coordinator.plan import BRAIN, Plan, Step
from encephalon.core.errors import EncephalonError, InvalidInput
from encephalon.core.wire import InferRequest, InferResponse, Tensor

__all__ = ["Execution"]

Parameter = bool | int | float | str


class Pending:
    """The mark of an input that is not there yet."""


PENDING: Final = Pending()
# Of the caller's parameters, what is the coordinator's own: the time is passed on as the deadline of every step.
OURS = ("timeout",)
NUMBER = (float, int)


class Execution:
    """`run` gives the answer; cancelling it stops everything that is still on its way for the request."""

    __slots__ = (
        "_advancing", "_answers", "_calls", "_causes", "_deadline", "_error", "_future", "_inputs", "_links", "_loop",
        "_missing", "_open", "_over", "_parameters", "_passed", "_plan", "_ready", "_request", "_response", "_settled",
        "_timers", "_version", "_waits", "_whole",
    )  # fmt: skip

    def __init__(
        self,
        plan: Plan,
        links: Sequence[Link],
        request: InferRequest,
        deadline: float,
        version: str,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        count = len(plan.steps)
        self._plan, self._links, self._request, self._deadline, self._version = plan, links, request, deadline, version
        self._loop = loop
        self._answers: list[InferResponse | None] = [None] * count
        self._calls: list[Call | None] = [None] * count
        self._causes: list[EncephalonError | None] = [None] * count
        self._settled = [False] * count
        self._waits = [step.waits for step in plan.steps]
        self._inputs: list[list[Tensor | Pending | None]] = []
        # Whether no input of any step has turned out to be absent.
        self._whole = len(request.inputs) == len(plan.brain.inputs)
        self._missing: list[str] = []
        self._open = count
        self._parameters: dict[str, Parameter] = {}
        self._passed = passed_on(request.parameters)
        self._timers: list[asyncio.TimerHandle] = []
        # Steps whose inputs are decided, in the order in which that happened.
        self._ready = [step for step in plan.steps if not step.waits]
        self._advancing = False
        self._over = False
        self._response: InferResponse | None = None
        self._error: EncephalonError | None = None
        self._future: asyncio.Future[None] | None = None

    async def run(self) -> InferResponse:
        given = {tensor.name: tensor for tensor in self._request.inputs}
        self._inputs = [
            [
                renamed(given.get(source.tensor), source.input) if source.step == BRAIN else PENDING
                for source in step.sources
            ]
            for step in self._plan.steps
        ]
        self._advance()
        if not self._over:
            await self._rest()
        if self._response is None:
            raise self._error or nothing(self._plan.brain)
        return self._response

    async def _rest(self) -> None:
        """Waits for what was not answered at once."""
        self._future = self._loop.create_future()
        self._timers.append(self._loop.call_at(self._deadline, self._expired))
        try:
            await self._future
        finally:
            # The caller may be gone, so that nobody waits for the answer any more.
            if not self._over:
                self._end()

    # What calls tell

    def answered(self, index: int, response: InferResponse, seconds: float) -> None:
        step = self._plan.steps[index]
        error = unfit(step, response)
        if error is not None:
            self.failed(index, error)
            return
        self._answers[index] = response
        self._note(step, response, seconds)
        self._settle(step)

    def failed(self, index: int, error: EncephalonError) -> None:
        step = self._plan.steps[index]
        error = naming(step.region, error)
        # Behind an optional pathway a failure is an absence; but what the caller sent wrong, the caller must hear.
        if step.essential or isinstance(error, InvalidInput):
            self._fail(error)
            return
        self._causes[index] = error
        self._miss(step)
        self._settle(step)

    # Steps

    def _advance(self) -> None:
        """Begins what is ready; what becomes ready meanwhile too, as a long chain must not become a deep stack."""
        if self._advancing:
            return
        self._advancing = True
        for step in self._ready:
            if self._over:
                break
            self._begin(step)
        self._ready.clear()
        self._advancing = False

    def _begin(self, step: Step) -> None:
        """All inputs of the step are decided: asks its region, or finds that the step is absent."""
        tensors = self._inputs[step.index] if self._whole else self._present(step)
        if not tensors:
            self._absent(step)
            return
        link = self._links[step.index]
        request = InferRequest(step.model, link.version, self._request.id, self._passed, tensors)  # type: ignore[arg-type]
        call = Call(link, request, self._deadline, step.retries, step.index, self)
        call.start(step.hedge_s)
        if self._settled[step.index] or self._over:
            return
        self._calls[step.index] = call
        for timeout in step.timeouts:
            self._timers.append(self._loop.call_later(timeout, partial(self._late, step, timeout)))

    def _present(self, step: Step) -> list[Tensor | Pending | None]:
        """Those inputs that are there; none when one is lacking that the step needs."""
        tensors: list[Tensor | Pending | None] = []
        for source, tensor in zip(step.sources, self._inputs[step.index], strict=True):
            if tensor is not None:
                tensors.append(tensor)
            elif source.needed:
                return []
        return tensors

    def _absent(self, step: Step) -> None:
        """Not asked, because an input that it needs is not there; the cause is that of the input, if that failed."""
        sources = [source.step for source in step.sources if source.step != BRAIN]
        self._causes[step.index] = next((cause for index in sources if (cause := self._causes[index])), None)
        self._miss(step)
        self._settle(step)

    def _settle(self, step: Step) -> None:
        self._settled[step.index] = True
        self._open -= 1
        response = self._answers[step.index]
        for feed in step.feeds:
            if self._inputs[feed.step][feed.place] is PENDING:
                if response is None and feed.required:
                    self._fail(self._causes[step.index] or lacking(step, self._plan.steps[feed.step]))
                    return
                self._fill(feed.step, feed.place, tensor_of(response, feed.tensor, feed.input))
        if self._ready:
            self._advance()
        if not self._open and not self._over:
            self._finish()

    def _fill(self, index: int, place: int, tensor: Tensor | None) -> None:
        self._inputs[index][place] = tensor
        if tensor is None:
            self._whole = False
        self._waits[index] -= 1
        if not self._waits[index]:
            self._ready.append(self._plan.steps[index])

    def _late(self, step: Step, timeout: float) -> None:
        """Receivers that wait no longer than `timeout` carry on without the step, or fail."""
        if self._settled[step.index] or self._over:
            return
        error = late(step, timeout)
        if any(feed.required and feed.timeout_s == timeout for feed in step.feeds):
            self._abandon(step)
            self._fail(error)
        elif step.patience_s == timeout:
            self._abandon(step)
            self._causes[step.index] = error
            self._miss(step)
            self._settle(step)
        else:
            self._causes[step.index] = error
            self._miss(step)
            for feed in step.feeds:
                if feed.timeout_s == timeout:
                    self._fill(feed.step, feed.place, None)
            self._advance()

    def _abandon(self, step: Step) -> None:
        if call := self._calls[step.index]:
            call.abandon()

    # The end

    def _finish(self) -> None:
        outputs = []
        for output in self._plan.outputs:
            tensor = tensor_of(self._answers[output.step], output.tensor, output.name)
            if tensor is not None:
                outputs.append(tensor)
        if not outputs:
            self._fail(next((cause for cause in self._causes if cause), None) or nothing(self._plan.brain))
            return
        self._parameters["missing_regions"] = ",".join(self._missing)
        name = self._plan.brain.name
        self._response = InferResponse(name, self._version, self._request.id, self._parameters, outputs)
        self._end()

    def _fail(self, error: EncephalonError) -> None:
        if not self._over:
            self._error = error
            self._end()

    def _expired(self) -> None:
        running = [step for step in self._plan.steps if self._calls[step.index] and not self._settled[step.index]]
        for step in running:
            self._abandon(step)
        self._fail(expired(running))

    def _end(self) -> None:
        """Cancels what is still on its way, and lets go of the calls, which hold this in turn."""
        self._over = True
        for timer in self._timers:
            timer.cancel()
        if self._open:
            for call in self._calls:
                if call is not None:
                    call.cancel()
        self._calls.clear()
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    # What is said of it

    def _miss(self, step: Step) -> None:
        if step.region not in self._missing:
            self._missing.append(step.region)

    def _note(self, step: Step, response: InferResponse, seconds: float) -> None:
        parameters = self._parameters
        parameters[step.region_ms] = int(seconds * 1e6) / 1000
        parameters[step.version] = response.model_version
        queued = response.parameters.get("queue_ms")
        if isinstance(queued, NUMBER):
            parameters[step.queue_ms] = queued
            self._links[step.index].metrics.queue.observe(queued / 1000)


def passed_on(parameters: dict[str, Parameter]) -> dict[str, Parameter]:
    if not parameters or not any(name in parameters for name in OURS):
        return parameters
    return {name: value for name, value in parameters.items() if name not in OURS}


def renamed(tensor: Tensor | None, name: str) -> Tensor | None:
    return tensor if tensor is None or tensor.name == name else tensor.renamed(name)
