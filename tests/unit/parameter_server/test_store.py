from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Sequence

import pytest
import torch

from encephalon.core.errors import FailedPrecondition, Internal, InvalidInput, Overloaded
from encephalon.parameter_server.decisions import Decision
from encephalon.parameter_server.store import Store
from tests.unit.parameter_server.shards import BUFFER, TENSORS, gradients, optimizer, push, store, tensor
from tests.waiting import until

APPLY, SKIP, DROP = Decision.APPLY, Decision.SKIP, Decision.DROP


@pytest.fixture
async def shard() -> AsyncIterator[Store]:
    made = store()
    yield made
    made.close()


def held(shard: Store, name: str) -> torch.Tensor:
    """A tensor of a single shard, flat."""
    numbers = [number for number in shard.slices if shard.places.tensor(number).name == name]
    return torch.cat([shard.parameters(number)[1] for number in numbers]).clone()


def summed(parts: Sequence[dict[str, torch.Tensor | None]], name: str) -> torch.Tensor:
    values = [value for part in parts if (value := part[name]) is not None]
    total = values[0].clone()
    for value in values[1:]:
        total.add_(value)
    return total.view(-1)


async def test_adds_in_the_order_of_ranks_whatever_the_order_of_arrival(shard: Store) -> None:
    parts = [gradients(rank) for rank in range(4)]
    for rank in (2, 0, 3, 1):
        push(shard, parts[rank], rank=rank)
    prepared = await shard.prepare(1, [(rank, 0) for rank in range(4)])
    assert await shard.decide(1, APPLY, version=1) == (1, 1.0)
    learned = [each.name for each in TENSORS if each.kind != BUFFER]
    for name in learned:
        assert torch.equal(held(shard, name), -summed(parts, name)), name
    norm = sum(float(summed(parts, name).double().square().sum()) for name in learned)
    assert prepared.squared_norm == pytest.approx(norm, rel=1e-12)
    assert prepared.not_finite == ()
    assert torch.equal(held(shard, "a/mean"), summed(parts, "a/mean")), "the sum takes the place of a buffer"
    assert shard.buffered_bytes == 0


async def test_prepare_waits_for_what_comes_later(shard: Store) -> None:
    first, second = gradients(1), gradients(2)
    push(shard, first, rank=0)
    waiting = asyncio.create_task(shard.prepare(1, [(0, 0), (1, 0)]))
    push(shard, second, rank=1, slices=shard.slices[1:])
    await asyncio.to_thread(lambda: None)
    assert not waiting.done()
    assert shard.missing(1) == [1]
    push(shard, second, rank=1, slices=shard.slices[:1])
    await waiting
    await shard.decide(1, APPLY, version=1, scale=0.5)
    assert torch.equal(held(shard, "a/weight"), -summed([first, second], "a/weight") * 0.5)
    assert torch.equal(held(shard, "a/mean"), summed([first, second], "a/mean")), "buffers are not clipped"


async def test_ranks_may_have_gaps_and_others_are_left_out(shard: Store) -> None:
    parts = {rank: gradients(rank) for rank in (0, 2, 5)}
    for rank, part in parts.items():
        push(shard, part, rank=rank)
    await shard.prepare(1, [(2, 0), (5, 0)])
    await shard.decide(1, APPLY, version=1)
    assert torch.equal(held(shard, "b/weight"), -summed([parts[2], parts[5]], "b/weight"))


async def test_a_single_contribution_is_applied_and_scaled(shard: Store) -> None:
    part = gradients(3)
    push(shard, part, update=9)
    await shard.prepare(9, [(0, 0)])
    await shard.decide(9, APPLY, version=1, scale=0.25)
    assert torch.equal(held(shard, "a/bias"), -summed([part], "a/bias") * 0.25)


async def test_an_attempt_takes_the_place_of_one_that_was_added_already(shard: Store) -> None:
    parts, other = [gradients(0), gradients(1)], gradients(7)
    for rank, part in enumerate(parts):
        push(shard, part, rank=rank)
    await shard.prepare(1, [(0, 0), (1, 0)])
    push(shard, other, rank=1, attempt=1)
    await shard.prepare(1, [(0, 0), (1, 1)])
    await shard.decide(1, APPLY, version=1)
    assert torch.equal(held(shard, "a/weight"), -summed([parts[0], other], "a/weight"))


async def test_a_higher_attempt_ends_who_waits_for_the_lower_one(shard: Store) -> None:
    waiting = asyncio.create_task(shard.prepare(1, [(0, 0)]))
    await asyncio.sleep(0)
    lower = shard.contribution(1, 1, 0, 0)
    lower.buffer(0)
    shard.contribution(1, 1, 0, 1)
    with pytest.raises(FailedPrecondition, match="attempt 1 has taken its place"):
        await waiting
    with pytest.raises(FailedPrecondition, match="attempt 1 has taken the place"):
        lower.filled(0)
    with pytest.raises(FailedPrecondition, match="attempt 1 has taken its place"):
        shard.contribution(1, 1, 0, 0)
    with pytest.raises(FailedPrecondition, match="attempt 0 of rank 0"):
        await shard.prepare(1, [(0, 0)])


async def test_an_attempt_below_the_prepared_one_is_refused(shard: Store) -> None:
    waiting = asyncio.create_task(shard.prepare(1, [(0, 2)]))
    await asyncio.sleep(0)
    with pytest.raises(FailedPrecondition, match="attempt 2"):
        shard.contribution(1, 1, 0, 1)
    waiting.cancel()


async def test_other_contributions_may_be_prepared_meanwhile(shard: Store) -> None:
    first = asyncio.create_task(shard.prepare(1, [(0, 0), (1, 0)]))
    await asyncio.sleep(0)
    push(shard, gradients(0))
    assert (await shard.prepare(1, [(0, 0)])).squared_norm > 0
    with pytest.raises(FailedPrecondition, match="other contributions"):
        await first


async def test_decisions_are_taken_once_and_in_order(shard: Store) -> None:
    part = gradients(0)
    push(shard, part)
    await shard.prepare(1, [(0, 0)])
    with pytest.raises(FailedPrecondition, match="should become version 2, but shard 0 is at 0"):
        await shard.decide(1, APPLY, version=2)
    for _ in range(2):
        assert await shard.decide(1, APPLY, version=1, note=b"n") == (1, 1.0)
    assert torch.equal(held(shard, "a/bias"), -summed([part], "a/bias")), "applied once"
    for decision, version in ((SKIP, 1), (DROP, 0), (APPLY, 2)):
        with pytest.raises(FailedPrecondition, match="was decided"):
            await shard.decide(1, decision, version=version)
    with pytest.raises(FailedPrecondition, match="was decided already"):
        await shard.prepare(1, [(0, 0)])
    with pytest.raises(FailedPrecondition, match="comes too late"):
        shard.contribution(1, 1, 0, 0)


async def test_skip_and_drop_change_no_parameter(shard: Store) -> None:
    contribution = push(shard, gradients(0), slices=shard.slices[1:])
    assert await shard.decide(1, SKIP, version=1) == (1, 1.0)
    with pytest.raises(FailedPrecondition, match="update 1 was decided"):
        contribution.buffer(shard.slices[0])
    waiting = asyncio.create_task(shard.prepare(2, [(0, 0)]))
    await asyncio.sleep(0)
    for _ in range(2):
        assert await shard.decide(2, DROP) == (1, 1.0)
    with pytest.raises(FailedPrecondition, match="decided while it was prepared"):
        await waiting
    assert not shard.flat.any()
    assert [(each.update, each.version, each.decision) for each in shard.decided] == [(1, 1, SKIP)]


async def test_what_is_not_prepared_is_not_applied(shard: Store) -> None:
    push(shard, gradients(0))
    with pytest.raises(FailedPrecondition, match="not prepared"):
        await shard.decide(1, APPLY, version=1)
    assert shard.prepared == []
    await shard.prepare(1, [(0, 0)])
    assert shard.prepared == [1]


async def test_notes_are_told_until_a_checkpoint_is_published(shard: Store) -> None:
    for version in range(1, 6):
        await shard.decide(version * 10, SKIP, version=version, note=b"%d" % version)
    assert [each.note for each in shard.decided] == [b"1", b"2", b"3", b"4", b"5"]
    shard.published(3)
    assert [each.version for each in shard.decided] == [4, 5]
    assert await shard.decide(10, SKIP, version=1) == (5, 1.0), "it can still be repeated"


async def test_what_is_absent_everywhere_is_left_as_it_is_and_else_left_out(shard: Store) -> None:
    parts = [gradients(0), gradients(1)]
    parts[0]["a/weight"] = parts[1]["a/weight"] = parts[0]["a/bias"] = parts[1]["b/bias"] = None
    for rank, part in enumerate(parts):
        push(shard, part, rank=rank)
    await shard.prepare(1, [(0, 0), (1, 0)])
    await shard.decide(1, APPLY, version=1)
    assert not held(shard, "a/weight").any()
    for name in ("a/bias", "b/bias", "b/weight"):
        assert torch.equal(held(shard, name), -summed(parts, name))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
async def test_who_is_not_finite_is_named(shard: Store, value: float) -> None:
    parts = [gradients(rank) for rank in range(3)]
    for rank, name in ((1, "b/bias"), (2, "a/weight"), (2, "a/mean")):
        found = parts[rank][name]
        assert found is not None
        found.view(-1)[-1] = value
    for rank, part in enumerate(parts):
        push(shard, part, rank=rank)
    prepared = await shard.prepare(1, [(rank, 0) for rank in range(3)])
    assert {(each.rank, each.tensor) for each in prepared.not_finite} == {(1, "b/bias"), (2, "a/weight"), (2, "a/mean")}
    await shard.decide(1, SKIP, version=1)
    assert not shard.flat.any()


async def test_a_sum_that_overflows_names_who_brought_most(shard: Store) -> None:
    parts = [gradients(rank) for rank in range(2)]
    for rank, size in ((0, 2e38), (1, 3e38)):
        parts[rank]["b/bias"] = torch.tensor([size])
        push(shard, parts[rank], rank=rank)
    prepared = await shard.prepare(1, [(0, 0), (1, 0)])
    assert [(each.rank, each.tensor) for each in prepared.not_finite] == [(1, "b/bias")]


async def test_contributions_that_wait_are_bounded() -> None:
    shard = store(buffers=2)
    push(shard, gradients(0), update=1)
    push(shard, gradients(0), update=2)
    with pytest.raises(Overloaded, match="2 contributions wait"):
        push(shard, gradients(0), update=3)
    push(shard, gradients(0), update=2, attempt=1)
    assert shard.buffered_bytes == 2 * shard.flat.nbytes
    await shard.decide(1, DROP)
    push(shard, gradients(0), update=3)
    shard.close()


async def test_what_comes_again_is_thrown_away(shard: Store) -> None:
    part, other = gradients(0), gradients(1)
    push(shard, part, slices=shard.slices[:2])
    assert push(shard, other, slices=shard.slices[:1]).has(shard.slices[1])
    assert push(shard, part, slices=shard.slices[2:]).whole
    await shard.prepare(1, [(0, 0)])
    push(shard, other)
    await shard.decide(1, APPLY, version=1)
    assert torch.equal(held(shard, "a/weight"), -summed([part], "a/weight"))


async def test_a_stream_that_is_brought_again_does_not_disturb_the_slice(shard: Store) -> None:
    number, part = shard.slices[0], gradients(0)
    old, new = shard.contribution(1, 1, 0, 0), shard.contribution(1, 1, 0, 0)
    behind = old.buffer(number)
    new.buffer(number).fill_(2.0)
    new.filled(number)
    behind.fill_(9.0)
    old.filled(number)
    push(shard, part, slices=shard.slices[1:])
    await shard.prepare(1, [(0, 0)])
    await shard.decide(1, APPLY, version=1)
    push(shard, part, update=2)
    behind.fill_(9.0)  # whoever is this late writes into memory that is not used again
    await shard.prepare(2, [(0, 0)])
    assert bool((shard.parameters(number)[1] == -2.0).all())


async def test_a_later_stream_takes_a_slice_that_is_being_filled(shard: Store) -> None:
    old, new = shard.contribution(1, 1, 0, 0), shard.contribution(1, 1, 0, 0)
    old.buffer(0)
    new.buffer(0)
    with pytest.raises(FailedPrecondition, match="another stream"):
        old.filled(0)


async def test_lent_memory_is_read_in_place_and_given_back(shard: Store) -> None:
    part, released = gradients(0), []
    lent = {number: torch.full((shard.places.size(number),), 3.0) for number in shard.slices}
    contribution = shard.contribution(1, 1, 0, 0)
    contribution.when_released(lambda: released.append(True))
    for number, value in lent.items():
        contribution.lend(number, value)
        contribution.filled(number)
    assert shard.buffered_bytes == 0
    push(shard, part, rank=1)
    await shard.prepare(1, [(0, 0), (1, 0)])
    await shard.decide(1, APPLY, version=1, scale=0.5)
    assert torch.equal(held(shard, "b/weight"), -(torch.full((99,), 3.0) + summed([part], "b/weight")) * 0.5)
    assert all(bool((value == 3.0).all()) for value in lent.values()), "only read"
    assert released == [True]
    gone = weakref.ref(lent.popitem()[1])
    del value
    gc.collect()
    assert gone() is None, "nothing looks at it any more"


async def test_lent_memory_of_a_lower_attempt_is_given_back(shard: Store) -> None:
    released = threading.Event()
    lower = shard.contribution(1, 1, 0, 0)
    lower.when_released(released.set)
    lower.lend(0, torch.zeros(shard.places.size(0)))
    shard.contribution(1, 1, 0, 1)
    await until(released.is_set)


async def test_slices_of_others_and_wrong_memory_are_refused() -> None:
    shard = store(shards=2)
    other = next(number for number, cut in enumerate(shard.layout.slices) if cut.shard == 1)
    contribution = shard.contribution(1, 1, 0, 0)
    for call in (contribution.buffer, contribution.absent, shard.parameters):
        with pytest.raises(InvalidInput, match=r"slice \d+ is not of shard 0"):
            call(other)
    mine = shard.slices[0]
    size = shard.places.size(mine)
    for wrong in (torch.zeros(size + 1), torch.zeros(size).double(), torch.zeros(2 * size)[::2], torch.zeros(1, size)):
        with pytest.raises(InvalidInput, match="not as contiguous float32"):
            contribution.lend(mine, wrong)
    with pytest.raises(InvalidInput, match="before it was begun"):
        contribution.filled(mine)
    for ranks in ([], [(1, 0), (0, 0)], [(0, 0), (0, 1)]):
        with pytest.raises(InvalidInput, match="each once, in order"):
            await shard.prepare(1, ranks)
    shard.close()


async def test_who_waits_for_a_version_is_woken_or_told_of_a_new_generation(shard: Store) -> None:
    await shard.reached(1, 0)
    with pytest.raises(FailedPrecondition, match="generation 2 is over"):
        await shard.reached(2, 0)
    first, second = (asyncio.create_task(shard.reached(1, version)) for version in (1, 2))
    await asyncio.sleep(0)
    await shard.decide(1, SKIP, version=1)
    await first
    contribution = shard.contribution(1, 2, 0, 0)
    preparing = asyncio.create_task(shard.prepare(2, [(0, 0)]))
    await asyncio.sleep(0)
    shard.close()
    for waiting in (second, preparing, shard.decide(2, DROP)):
        with pytest.raises(FailedPrecondition, match=r"loaded anew|ending"):
            await waiting
    with pytest.raises(FailedPrecondition):
        contribution.buffer(0)
    shard.close()


async def test_readers_and_updates_exclude_each_other(shard: Store) -> None:
    push(shard, gradients(0))
    await shard.prepare(1, [(0, 0)])
    with shard.reading():
        deciding = asyncio.create_task(shard.decide(1, APPLY, version=1))
        await until(lambda: shard._weights.gate._writing)
        version, values = shard.parameters(shard.slices[0])
        assert (version, bool(values.any())) == (0, False)
        assert not deciding.done()
    await deciding
    with shard.reading():
        version, values = shard.parameters(shard.slices[0])
        assert (version, bool(values.any())) == (1, True)


async def test_contributions_of_many_threads() -> None:
    shard = store(tensors=(*TENSORS, tensor("big", 1100, 1000)), shards=1)
    tensors = shard.layout.tensors
    for update in range(1, 4):
        parts = [gradients(10 * update + rank, tensors) for rank in range(4)]
        pushing = [asyncio.to_thread(push, shard, part, update, rank) for rank, part in enumerate(parts)]
        before = held(shard, "big")
        await asyncio.gather(shard.prepare(update, [(rank, 0) for rank in range(4)]), *pushing)
        await shard.decide(update, APPLY, version=update)
        assert torch.equal(held(shard, "big"), before - summed(parts, "big"))
    shard.close()


async def test_a_shard_without_a_slice_counts_along() -> None:
    shard = store(optimizer("AdamW", "StepLR", {"step_size": 1}, lr=1.0), [tensor("a", 3)], shards=2)
    empty = Store(shard.layout, 1, optimizer("AdamW", "StepLR", {"step_size": 1}, lr=1.0))
    assert empty.slices == []
    assert (await empty.prepare(1, [(0, 0), (1, 0)])).squared_norm == 0.0
    assert await empty.decide(1, APPLY, version=1) == (1, pytest.approx(0.1))
    shard.close()
    empty.close()


async def test_an_optimiser_that_fails_ends_the_shard(shard: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    push(shard, gradients(0))
    await shard.prepare(1, [(0, 0)])

    def fail(*_: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(torch.optim.SGD, "step", fail)
    monkeypatch.setattr(type(shard._weights.optimizer), "step", fail)
    with pytest.raises(Internal, match="no memory"):
        await shard.decide(1, APPLY, version=1)
    with pytest.raises(Internal, match="shard 0 failed"):
        await shard.decide(1, APPLY, version=1)


@pytest.mark.parametrize("ranks", [1, 2])
async def test_what_is_prepared_can_be_applied_though_a_higher_attempt_comes(shard: Store, ranks: int) -> None:
    parts, other = [gradients(rank) for rank in range(ranks)], gradients(9)
    named = [(rank, 0) for rank in range(ranks)]
    for rank, part in enumerate(parts):
        push(shard, part, rank=rank)
    await shard.prepare(1, named)
    push(shard, other, attempt=1)
    await shard.prepare(1, named)
    await shard.decide(1, APPLY, version=1)
    assert torch.equal(held(shard, "a/weight"), -summed(parts, "a/weight"))
    assert shard.buffered_bytes == 0


async def test_what_was_prepared_is_not_when_something_else_is_wanted(shard: Store) -> None:
    push(shard, gradients(0))
    await shard.prepare(1, [(0, 0)])
    waiting = asyncio.create_task(shard.prepare(1, [(0, 0), (1, 0)]))
    await asyncio.sleep(0)
    with pytest.raises(FailedPrecondition, match="not prepared"):
        await shard.decide(1, APPLY, version=1)
    waiting.cancel()
    await shard.prepare(1, [(0, 0)])
    await shard.decide(1, APPLY, version=1)
    assert torch.equal(held(shard, "b/weight"), -summed([gradients(0)], "b/weight"))
