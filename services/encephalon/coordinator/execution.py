"""One request on its way through a brain. Steps start as soon as their inputs are there, side by side.

Written as callbacks, because this is the path of every request: one timer per request, no task per step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from time import monotonic
from typing import Final

from encephalon.coordinator.call import Call
from encephalon.coordinator.link import Link
from encephalon.coordinator.plan import BRAIN, Plan, Step
from encephalon.core.errors import DeadlineExceeded, EncephalonError, Internal, InvalidInput
from encephalon.core.wire import InferRequest, InferResponse, Tensor

__all__ = ["Execution"]

Parameter = bool | int | float | str


class Pending:
    """The mark of an input that is not there yet."""


PENDING: Final = Pending()
# Of the caller's parameters, what is the coordinator's own: the time is passed on as the deadline of every step.
OURS = ("timeout",)


class Execution:
    """`run` gives a future of the answer; `cancel` stops everything that is still on its way for the request."""

    __slots__ = (
        "_answers", "_calls", "_causes", "_deadline", "_future", "_inputs", "_links", "_loop", "_missing", "_open",
        "_parameters", "_passed", "_plan", "_request", "_settled", "_started", "_timers", "_version", "_waits",
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
        self._future: asyncio.Future[InferResponse] = loop.create_future()
        self._answers: list[InferResponse | None] = [None] * count
        self._calls: list[Call | None] = [None] * count
        self._causes: list[EncephalonError | None] = [None] * count
        self._settled = [False] * count
        self._waits = [step.waits for step in plan.steps]
        self._inputs: list[list[Tensor | Pending | None]] = []
        self._started = [0.0] * count
        self._missing: list[str] = []
        self._open = count
        self._parameters: dict[str, Parameter] = {}
        self._passed = passed_on(request.parameters)
        self._timers: list[asyncio.TimerHandle] = []

    def run(self) -> asyncio.Future[InferResponse]:
        self._timers.append(self._loop.call_at(self._deadline, self._expired))
        given = {tensor.name: tensor for tensor in self._request.inputs}
        for step in self._plan.steps:
            self._inputs.append(
                [self._given(source.step, source.input, given.get(source.tensor)) for source in step.sources]
            )
        for step in self._plan.steps:
            if not step.waits and not self._future.done():
                self._begin(step)
        return self._future

    def cancel(self) -> None:
        """The caller is gone: nobody waits for the answer any more. Harmless when repeated."""
        self._future.cancel()
        self._stop()

    # What calls tell

    def answered(self, index: int, response: InferResponse) -> None:
        step = self._plan.steps[index]
        error = unfit(step, response)
        if error is not None:
            self.failed(index, error)
            return
        self._answers[index] = response
        self._note(step, response)
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

    @staticmethod
    def _given(source: int, name: str, tensor: Tensor | None) -> Tensor | Pending | None:
        if source != BRAIN:
            return PENDING
        return tensor if tensor is None or tensor.name == name else tensor.renamed(name)

    def _begin(self, step: Step) -> None:
        """All inputs of the step are decided: asks its region, or finds that the step is absent."""
        tensors: list[Tensor] = []
        for source, tensor in zip(step.sources, self._inputs[step.index], strict=True):
            if tensor is not None:
                tensors.append(tensor)  # type: ignore[arg-type]  # none is pending any more
            elif source.needed:
                tensors.clear()
                break
        if not tensors:
            self._absent(step)
            return
        self._started[step.index] = monotonic()
        request = InferRequest(step.model, "", self._request.id, self._passed, tensors)
        call = Call(self._links[step.index], request, self._deadline, step.retries, step.index, self)
        self._calls[step.index] = call
        for timeout in step.timeouts:
            self._timers.append(self._loop.call_later(timeout, partial(self._late, step, timeout)))
        call.start(step.hedge_s)

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
                    self._fail(self._lacking(step, self._plan.steps[feed.step]))
                if self._future.done():
                    return
                name = self._plan.steps[feed.step].sources[feed.place].input
                self._fill(feed.step, feed.place, tensor_of(response, feed.tensor, name))
        if not self._open and not self._future.done():
            self._finish()

    def _fill(self, index: int, place: int, tensor: Tensor | None) -> None:
        self._inputs[index][place] = tensor
        self._waits[index] -= 1
        if not self._waits[index] and not self._future.done():
            self._begin(self._plan.steps[index])

    def _late(self, step: Step, timeout: float) -> None:
        """Receivers that wait no longer than `timeout` carry on without the step, or fail."""
        if self._settled[step.index] or self._future.done():
            return
        error = DeadlineExceeded(
            f"region '{step.region}' did not answer within {timeout * 1000:g} ms", region=step.region, timeout_s=timeout
        )
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
                if feed.timeout_s == timeout and not self._future.done():
                    self._fill(feed.step, feed.place, None)

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
            self._fail(next((cause for cause in self._causes if cause), None) or self._nothing())
            return
        parameters = self._parameters
        parameters["missing_regions"] = ",".join(self._missing)
        name = self._plan.brain.name
        self._future.set_result(InferResponse(name, self._version, self._request.id, parameters, outputs))
        self._stop()

    def _fail(self, error: EncephalonError) -> None:
        if not self._future.done():
            self._future.set_exception(error)
            self._stop()

    def _expired(self) -> None:
        running = [step for step in self._plan.steps if self._calls[step.index] and not self._settled[step.index]]
        if not self._future.done():
            for step in running:
                self._abandon(step)
            names = ", ".join(f"'{step.region}'" for step in running)
            self._fail(
                DeadlineExceeded(
                    f"the time of the request is used up; still running: region {names}",
                    region=",".join(step.region for step in running),
                )
            )

    def _stop(self) -> None:
        """Cancels what is still on its way, and lets go of the calls, which hold this in turn."""
        for timer in self._timers:
            timer.cancel()
        calls, self._calls = self._calls, [None] * len(self._calls)
        if self._open:
            for call in calls:
                if call is not None:
                    call.cancel()

    # Words

    def _miss(self, step: Step) -> None:
        if step.region not in self._missing:
            self._missing.append(step.region)

    def _note(self, step: Step, response: InferResponse) -> None:
        parameters = self._parameters
        parameters[step.region_ms] = round((monotonic() - self._started[step.index]) * 1000, 3)
        parameters[step.version] = response.model_version
        queued = response.parameters.get("queue_ms")
        if isinstance(queued, float | int):
            parameters[step.queue_ms] = queued
            self._links[step.index].metrics.queue.observe(queued / 1000)

    def _lacking(self, step: Step, receiver: Step) -> EncephalonError:
        cause = self._causes[step.index]
        if cause is not None:
            return cause
        return InvalidInput(
            f"region '{receiver.region}' needs region '{step.region}', for which no input was sent", region=step.region
        )

    def _nothing(self) -> EncephalonError:
        names = ", ".join(spec.name for spec in self._plan.brain.inputs)
        return InvalidInput(
            f"no output can be computed from what was sent; the brain '{self._plan.brain.name}' takes {names}"
        )


def passed_on(parameters: dict[str, Parameter]) -> dict[str, Parameter]:
    if not parameters or not any(name in parameters for name in OURS):
        return parameters
    return {name: value for name, value in parameters.items() if name not in OURS}


def tensor_of(response: InferResponse | None, tensor: str, name: str) -> Tensor | None:
    if response is not None:
        for output in response.outputs:
            if output.name == tensor:
                return output if tensor == name else output.renamed(name)
    return None


def unfit(step: Step, response: InferResponse) -> EncephalonError | None:
    """What a region answered must be what its contract says, or it would fail the next region in its stead."""
    found = {output.name: output for output in response.outputs}
    for spec in step.wanted:
        tensor = found.get(spec.name)
        if tensor is None:
            return Internal(f"the answer lacks the output '{spec.name}'", region=step.region)
        if tensor.datatype != spec.datatype or len(tensor.shape) != len(spec.shape):
            got, expected = f"{tensor.datatype} {list(tensor.shape)}", f"{spec.datatype} {list(spec.shape)}"
            return Internal(f"output '{spec.name}' came as {got}, expected {expected}", region=step.region)
    return None


def naming(region: str, error: EncephalonError) -> EncephalonError:
    """The same error, saying which region it is about."""
    if f"'{region}'" in error.message:
        return error
    named = type(error)(f"region '{region}': {error.message}")
    named.details.update(error.details, region=region)
    return named
