from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encephalon.core.actor import Batch, Mailbox
from encephalon.core.cost import CostModel
from encephalon.core.errors import DeadlineExceeded, Internal, Overloaded, Unavailable
from tests.virtual_time import run


class Machine:
    """Computes a batch of n rows in `per_row * n + fixed` seconds of virtual time and remembers the batches."""

    def __init__(self, per_row: float = 0.0, fixed: float = 0.0) -> None:
        self.per_row, self.fixed = per_row, fixed
        self.batches: list[list[Any]] = []
        self.abandoned = 0

    async def __call__(self, batch: Batch[Any, Any]) -> Sequence[Any]:
        self.batches.append(batch.messages)
        await asyncio.sleep(self.per_row * batch.rows + self.fixed)
        self.abandoned += batch.abandoned.is_set()
        return batch.messages


def mailbox(machine: Any, **overrides: Any) -> Mailbox[Any, Any]:
    return Mailbox(machine, **{"capacity": 256, "max_batch": 8, "max_delay": 0.0, **overrides})


def now() -> float:
    return asyncio.get_running_loop().time()


def known_cost(per_row: float, fixed: float) -> CostModel:
    cost = CostModel()
    cost.seed({1: per_row + fixed, 8: 8 * per_row + fixed})
    return cost


def test_messages_of_one_turn_share_a_batch() -> None:
    async def scene() -> None:
        machine = Machine(fixed=1.0)
        box = mailbox(machine)
        assert await asyncio.gather(*(box.ask(n) for n in range(20))) == list(range(20))
        assert [len(batch) for batch in machine.batches] == [8, 8, 4]
        assert now() == pytest.approx(3.0)

    run(scene())


def test_priority_goes_before_deadline_and_deadline_before_arrival() -> None:
    async def scene() -> None:
        machine = Machine(fixed=1.0)
        box = mailbox(machine, max_batch=1)
        first = asyncio.create_task(box.ask("first"))
        await asyncio.sleep(0.1)
        later = [
            asyncio.create_task(box.ask("none", priority=5)),
            asyncio.create_task(box.ask("late", priority=5, deadline=90.0)),
            asyncio.create_task(box.ask("soon", priority=5, deadline=50.0)),
            asyncio.create_task(box.ask("urgent", priority=1)),
        ]
        await asyncio.gather(first, *later)
        assert [batch[0] for batch in machine.batches] == ["first", "urgent", "soon", "late", "none"]

    run(scene())


def test_unlike_keys_go_in_separate_batches_and_unified_ones_together() -> None:
    async def scene(unify: Any) -> list[set[str]]:
        machine = Machine(fixed=1.0)
        box = mailbox(machine, unify=unify)
        await asyncio.gather(*(box.ask(name, key=name[0]) for name in ["a1", "b1", "a2", "b2", "c1"]))
        return [set(batch) for batch in machine.batches]

    assert run(scene(None)) == [{"a1", "a2"}, {"b1", "b2"}, {"c1"}]
    together = {"a", "b"}
    assert run(scene(lambda one, other: one if {one, other} <= together else None)) == [
        {"a1", "a2", "b1", "b2"},
        {"c1"},
    ]


def test_rows_count_and_a_message_larger_than_the_batch_goes_alone() -> None:
    async def scene() -> None:
        machine = Machine(fixed=1.0)
        box = mailbox(machine)
        await asyncio.gather(box.ask("a", rows=5), box.ask("b", rows=4), box.ask("c", rows=4), box.ask("d", rows=20))
        assert machine.batches == [["a"], ["b", "c"], ["d"]]

    run(scene())


def test_a_full_mailbox_refuses_at_once() -> None:
    async def scene() -> None:
        box = mailbox(Machine(fixed=1.0), capacity=3, max_batch=1)
        admitted = [asyncio.create_task(box.ask(n)) for n in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="full"):
            await box.ask("one too many")
        assert now() == 0.0
        assert await asyncio.gather(*admitted) == [0, 1, 2]

    run(scene())


def test_a_deadline_that_cannot_be_met_is_refused_at_once_and_an_urgent_message_is_not() -> None:
    async def scene() -> None:
        box = mailbox(Machine(per_row=0.1, fixed=0.2), cost=known_cost(0.1, 0.2))
        busy = [asyncio.create_task(box.ask(n, priority=5)) for n in range(16)]  # two batches of 1.0 s
        await asyncio.sleep(0.1)
        with pytest.raises(Overloaded, match="would take about 2200 ms and the deadline is in 1900 ms"):
            await box.ask("late", priority=5, deadline=2.0)
        urgent = asyncio.create_task(box.ask("urgent", priority=1, deadline=2.2))
        enough = asyncio.create_task(box.ask("enough", priority=5, deadline=4.0))
        await asyncio.gather(urgent, enough, *busy)

    run(scene())


def test_expired_messages_are_told_soon_and_are_never_computed() -> None:
    async def scene() -> None:
        machine = Machine(fixed=10.0)
        box = mailbox(machine, max_batch=1)
        busy = asyncio.create_task(box.ask("busy"))
        await asyncio.sleep(0.1)
        with pytest.raises(DeadlineExceeded, match="in the mailbox"):
            await box.ask("expired", deadline=1.0)
        assert now() == pytest.approx(1.0, abs=0.06)
        await busy
        assert machine.batches == [["busy"]]
        assert len(box) == 0

    run(scene())


def test_a_deadline_that_passes_while_computing_is_told_and_the_work_is_abandoned() -> None:
    async def scene() -> None:
        machine = Machine(fixed=10.0)
        box = mailbox(machine)
        with pytest.raises(DeadlineExceeded, match="while it was computed"):
            await box.ask("slow", deadline=1.0)
        assert now() == pytest.approx(1.0, abs=0.06)
        await box.drain()
        assert machine.abandoned == 1
        assert not box.cost.known, "a batch that nobody waited for teaches nothing"

    run(scene())


def test_cancelling_drops_what_waits_and_discards_what_is_computed() -> None:
    async def scene() -> None:
        machine = Machine(fixed=1.0)
        box = mailbox(machine, max_batch=2)
        computed = [asyncio.create_task(box.ask(n)) for n in range(2)]
        await asyncio.sleep(0.1)
        waiting = asyncio.create_task(box.ask("waiting"))
        await asyncio.sleep(0.1)
        computed[0].cancel()
        waiting.cancel()
        assert await computed[1] == 1
        await box.drain()
        assert machine.batches == [[0, 1]]
        assert machine.abandoned == 0, "somebody waited for the batch"

    run(scene())


def test_giving_up_without_end_keeps_nothing() -> None:
    async def scene() -> None:
        box = mailbox(Machine(fixed=1000.0), capacity=10, max_batch=1)
        busy = asyncio.create_task(box.ask("busy"))
        await asyncio.sleep(0.1)
        for n in range(1000):
            task = asyncio.create_task(box.ask(n))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        assert len(box) == 0
        assert sum(len(heap) for heap in box._queue._heaps.values()) < 100
        busy.cancel()

    run(scene())


def test_a_lone_caller_never_pays_the_delay_and_a_burst_waits_for_its_batch() -> None:
    async def lone() -> float:
        box = mailbox(Machine(fixed=0.01), max_delay=1.0, cost=known_cost(0.0, 0.01))
        for n in range(100):
            await box.ask(n)
        return now()

    assert run(lone()) == pytest.approx(1.0)

    async def burst() -> tuple[int, float]:
        machine = Machine(fixed=0.1)
        box = mailbox(machine, max_delay=0.5, cost=known_cost(0.0, 0.1))
        tasks = []
        for n in range(8):
            tasks.append(asyncio.create_task(box.ask(n)))
            await asyncio.sleep(0.002)
        await asyncio.gather(*tasks)
        return len(machine.batches), now()

    batches, seconds = run(burst())
    assert batches <= 2
    assert seconds < 0.25


def test_an_error_goes_to_its_own_message_or_to_all() -> None:
    async def scene() -> None:
        async def one_by_one(batch: Batch[Any, Any]) -> Sequence[Any]:
            return [Internal("poisoned") if message == "bad" else message for message in batch.messages]

        box = mailbox(one_by_one)
        answers = await asyncio.gather(box.ask("good"), box.ask("bad"), return_exceptions=True)
        assert answers[0] == "good"
        assert isinstance(answers[1], Internal)

        async def all_fail(batch: Batch[Any, Any]) -> Sequence[Any]:
            raise Internal("broken")

        answers = await asyncio.gather(*(mailbox(all_fail).ask(n) for n in range(3)), return_exceptions=True)
        assert all(isinstance(answer, Internal) for answer in answers)

        async def miscounts(batch: Batch[Any, Any]) -> Sequence[Any]:
            return []

        with pytest.raises(Internal, match="0 answers came for 1 messages"):
            await mailbox(miscounts).ask("x")

    run(scene())


def test_draining_refuses_new_messages_and_answers_the_old() -> None:
    async def scene() -> None:
        box = mailbox(Machine(fixed=1.0), max_batch=1)
        admitted = [asyncio.create_task(box.ask(n)) for n in range(3)]
        await asyncio.sleep(0.1)
        draining = asyncio.create_task(box.drain())
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await box.ask("new")
        await draining
        assert [task.result() for task in admitted] == [0, 1, 2]
        await box.drain()

    run(scene())


def test_aborting_fails_whatever_is_unanswered() -> None:
    async def scene() -> None:
        box = mailbox(Machine(fixed=1000.0), max_batch=1)
        admitted = [asyncio.create_task(box.ask(n)) for n in range(3)]
        await asyncio.sleep(0.1)
        await box.abort()
        answers = await asyncio.gather(*admitted, return_exceptions=True)
        assert all(isinstance(answer, Unavailable) for answer in answers)
        assert now() < 1.0
        await box.drain()

    run(scene())


@pytest.mark.parametrize("noise", [0.0, 0.2, 0.5])
def test_at_four_times_the_capacity_what_is_admitted_keeps_its_deadline(noise: float) -> None:
    """4 ms of the way to and from the mailbox, batches that take up to half longer than the model knows."""

    async def scene() -> tuple[int, int, int]:
        random = Random(1)

        async def handle(batch: Batch[Any, Any]) -> Sequence[Any]:
            await asyncio.sleep(0.01 * batch.rows * random.uniform(1, 1 + noise))
            return batch.messages

        box = mailbox(handle, max_batch=4, max_delay=0.002, cost=known_cost(0.01, 0.0))
        answered = refused = late = 0

        async def ask() -> None:
            nonlocal answered, refused, late
            deadline = now() + 0.3
            await asyncio.sleep(random.uniform(0, 0.002))
            try:
                async with asyncio.timeout_at(deadline):
                    await box.ask(None, deadline=deadline)
                    await asyncio.sleep(random.uniform(0, 0.002))
                answered += 1
            except Overloaded:
                refused += 1
            except (DeadlineExceeded, TimeoutError):
                late += 1

        async with asyncio.TaskGroup() as group:
            while now() < 10.0:
                group.create_task(ask())
                await asyncio.sleep(1 / 400)
        return answered, refused, late

    answered, refused, late = run(scene())
    assert late <= 0.01 * answered
    assert answered > 0.95 * 1000 / (1 + noise / 2)
    assert refused > 2800


def test_a_model_that_was_wrong_does_not_close_the_door_for_ever() -> None:
    async def scene() -> None:
        cost = CostModel()
        cost.observe(1, 100.0)  # a machine that was asleep
        box = mailbox(Machine(fixed=0.01), cost=cost)
        with pytest.raises(Overloaded):
            await box.ask("now", deadline=now() + 0.5)
        await asyncio.sleep(1.5)
        for _ in range(5):
            with contextlib.suppress(Overloaded):
                await box.ask("again", deadline=now() + 0.5)
            await asyncio.sleep(1.1)
        assert await box.ask("at last", deadline=now() + 0.5) == "at last"

    run(scene())


MESSAGES = st.lists(
    st.tuples(
        st.floats(0, 2),  # when it is sent
        st.integers(1, 6),  # rows
        st.integers(0, 2),  # key
        st.integers(0, 2),  # priority
        st.one_of(st.none(), st.floats(0.01, 3)),  # seconds to its deadline
        st.one_of(st.none(), st.floats(0.01, 3)),  # seconds until its sender goes away
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=200)
@given(MESSAGES, st.floats(0, 0.2), st.floats(0.001, 0.3), st.integers(1, 8))
def test_every_message_gets_exactly_one_end(plan: list[Any], max_delay: float, fixed: float, capacity: int) -> None:
    """Answered with its own message, refused, expired or given up: and then nothing is left, and no batch was mixed or
    too large.
    """

    async def scene() -> None:
        machine = Machine(per_row=0.01, fixed=fixed)
        box = mailbox(machine, capacity=capacity, max_batch=6, max_delay=max_delay)

        async def send(index: int, item: Any) -> None:
            at, rows, key, priority, left, patience = item
            await asyncio.sleep(at)
            message = (index, rows, key)
            deadline = None if left is None else now() + left
            try:
                answer = await asyncio.wait_for(
                    box.ask(message, rows=rows, key=key, priority=priority, deadline=deadline), patience
                )
                assert answer == message
                assert deadline is None or now() <= deadline + 0.06
            except (Overloaded, DeadlineExceeded, TimeoutError):
                pass

        await asyncio.gather(*(send(index, item) for index, item in enumerate(plan)))
        await box.drain()
        assert len(box) == box._queue.rows == 0
        for batch in machine.batches:
            assert len({key for _, _, key in batch}) == 1
            assert len(batch) == 1 or sum(rows for _, rows, _ in batch) <= 6
        computed = [index for batch in machine.batches for index, _, _ in batch]
        assert len(computed) == len(set(computed))

    run(scene())
