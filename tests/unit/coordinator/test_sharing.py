from __future__ import annotations

import asyncio

import numpy as np
import pytest

from encephalon.coordinator.sharing import Gathering
from encephalon.core.errors import EncephalonError, Internal, InvalidInput, Overloaded
from encephalon.core.wire import InferRequest, InferResponse, Tensor


class Replica:
    """Doubles what comes; refuses 13."""

    def __init__(self) -> None:
        self.sent: list[InferRequest] = []
        self.error: EncephalonError | None = None
        self.cancelled = 0
        self.hanging: asyncio.Future[None] | None = None

    def send(self, request: InferRequest, deadline: float) -> asyncio.Future[InferResponse]:
        self.sent.append(request)
        return asyncio.ensure_future(self.answer(request))

    async def answer(self, request: InferRequest) -> InferResponse:
        try:
            if self.hanging:
                await self.hanging
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error:
            raise self.error
        array = request.inputs[0].array
        if (array == 13).any():
            raise InvalidInput("13 is not wanted")
        return InferResponse("net", "1", request.id, {"queue_ms": 1.0}, [Tensor.of("y", array * 2)])


def ask(value: float, rows: int = 1, width: int = 3, **parameters) -> InferRequest:
    inputs = [Tensor.of("x", np.full((rows, width), value, np.float32))]
    return InferRequest("net", id=str(value), parameters=parameters, inputs=inputs)


def gathering(replica: Replica, max_rows: int = 32, pressure: int = 1000) -> Gathering:
    return Gathering(replica.send, max_rows, lambda: pressure)


def soon() -> float:
    return asyncio.get_running_loop().time() + 5


async def test_requests_share_a_message_and_get_their_own_rows():
    replica = Replica()
    shared = gathering(replica)
    requests = [ask(value, rows=1 + value % 3) for value in range(6)]
    answers = await asyncio.gather(*(shared.send(request, soon()) for request in requests))
    assert len(replica.sent) == 1
    for request, answer in zip(requests, answers, strict=True):
        assert answer.id == request.id
        np.testing.assert_array_equal(answer.outputs[0].array, request.inputs[0].array * 2)


async def test_a_few_requests_never_wait():
    replica = Replica()
    shared = gathering(replica, pressure=1)
    future = shared.send(ask(1), soon())
    assert len(replica.sent) == 1
    await future


async def test_messages_have_at_most_a_batch_of_rows():
    replica = Replica()
    shared = gathering(replica, max_rows=4)
    await asyncio.gather(*(shared.send(ask(value, rows=2), soon()) for value in range(6)))
    assert all(request.inputs[0].shape[0] <= 4 for request in replica.sent)


async def test_unlike_requests_do_not_share():
    replica = Replica()
    shared = gathering(replica)
    now = soon()
    unlike = [
        shared.send(ask(1), now),
        shared.send(ask(2, width=4), now),
        shared.send(ask(3, priority=1), now),
        shared.send(ask(4, sequence_id=7), now),
        shared.send(ask(5), now + 1000),
    ]
    await asyncio.gather(*unlike)
    assert len(replica.sent) == 5


async def test_one_bad_request_spoils_no_other():
    replica = Replica()
    shared = gathering(replica)
    answers = await asyncio.gather(*(shared.send(ask(value), soon()) for value in (12, 13, 14)), return_exceptions=True)
    assert isinstance(answers[1], InvalidInput)
    assert [float(answers[place].outputs[0].array[0, 0]) for place in (0, 2)] == [24, 28]


async def test_a_full_replica_is_not_asked_one_by_one():
    replica = Replica()
    replica.error = Overloaded("full", capacity=3)
    shared = gathering(replica)
    answers = await asyncio.gather(*(shared.send(ask(value), soon()) for value in range(5)), return_exceptions=True)
    assert all(isinstance(answer, Overloaded) and answer.details == {"capacity": "3"} for answer in answers)
    assert len({id(answer) for answer in answers}) == 5
    assert len(replica.sent) == 1


async def test_one_that_leaves_does_not_stop_the_others_and_all_do():
    replica = Replica()
    replica.hanging = asyncio.get_running_loop().create_future()
    shared = gathering(replica)
    futures = [shared.send(ask(value), soon()) for value in range(3)]
    await asyncio.wait(futures, timeout=0.02)
    futures[0].cancel()
    await asyncio.wait(futures, timeout=0.02)
    assert not replica.cancelled
    futures[1].cancel()
    futures[2].cancel()
    await asyncio.wait(futures, timeout=0.02)
    assert replica.cancelled == 1


async def test_one_that_leaves_before_the_message_is_not_in_it():
    replica = Replica()
    shared = gathering(replica)
    futures = [shared.send(ask(value), soon()) for value in range(3)]
    futures[1].cancel()
    await asyncio.wait(futures)
    assert [request.inputs[0].shape[0] for request in replica.sent] == [2]


async def test_an_answer_with_other_rows_fails_only_who_cannot_be_answered():
    replica = Replica()

    async def sums(request):
        return InferResponse("net", outputs=[Tensor.of("y", request.inputs[0].array.sum(axis=0, keepdims=True))])

    replica.answer = sums
    shared = gathering(replica)
    answers = await asyncio.gather(*(shared.send(ask(value), soon()) for value in (1, 2)))
    assert [float(answer.outputs[0].array[0, 0]) for answer in answers] == [1, 2]
    assert len(replica.sent) == 3


@pytest.mark.parametrize("shape", [(), (0, 3)])
async def test_what_has_no_rows_goes_alone(shape):
    replica = Replica()
    request = InferRequest("net", inputs=[Tensor.of("x", np.zeros(shape, np.float32))])
    await gathering(replica).send(request, soon())
    assert len(replica.sent) == 1


async def test_errors_of_ours_are_raised_alone():
    replica = Replica()
    replica.error = Internal("boom")
    answers = await asyncio.gather(*(gathering(replica).send(ask(1), soon()) for _ in range(1)), return_exceptions=True)
    assert isinstance(answers[0], Internal)
