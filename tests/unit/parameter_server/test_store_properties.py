"""Contributions come late, twice, in any order, in several attempts, in part: what is applied is what was named."""

from __future__ import annotations

import asyncio

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from encephalon.core.errors import FailedPrecondition
from encephalon.parameter_server.decisions import Decision
from encephalon.parameter_server.store import Store
from tests.unit.parameter_server.shards import gradients, push, store, tensor

MODEL = (tensor("w", 300, 5), tensor("b", 3), tensor("c", 1))
DECISIONS = st.sampled_from([Decision.APPLY, Decision.APPLY, Decision.SKIP, Decision.DROP])
Parts = tuple[int, int, list[int]]


@st.composite
def updates(draw: st.DrawFn) -> tuple[int, int, Decision, list[Parts]]:
    """Ranks, attempts of each, decision, and pushes (rank, attempt, slices) in the order in which they come."""
    ranks, attempts = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    slices = list(range(len(MODEL) + 1))
    pushes = [(rank, attempt) for rank in range(ranks) for attempt in range(attempts)]
    pushes = draw(st.permutations(pushes + draw(st.lists(st.sampled_from(pushes), max_size=3))))
    return (
        ranks,
        attempts,
        draw(DECISIONS),
        [(rank, attempt, draw(st.lists(st.sampled_from(slices), unique=True))) for rank, attempt in pushes],
    )


def some(shard: Store, seed: int, update: int, rank: int, attempt: int, slices: list[int] | None) -> None:
    """A push that may be refused, for a higher attempt has come or the update is decided."""
    known = None if slices is None else [number for number in slices if number in shard.slices]
    try:
        push(shard, gradients(seed + 100 * rank + attempt, MODEL), update, rank, attempt, known)
    except FailedPrecondition:
        return


async def play(seed: int, rounds: list[tuple[int, int, Decision, list[Parts]]]) -> None:
    shard = store(tensors=MODEL, buffers=100)
    expected, version = shard.flat.clone(), 0
    for update, (ranks, attempts, decision, pushes) in enumerate(rounds, 1):
        for rank, attempt, slices in pushes[: len(pushes) // 2]:
            some(shard, seed, update, rank, attempt, slices)
        named = [(rank, attempts - 1) for rank in range(ranks)]
        preparing = asyncio.create_task(shard.prepare(update, named))
        await asyncio.sleep(0)
        for rank, attempt, slices in pushes[len(pushes) // 2 :]:
            some(shard, seed, update, rank, attempt, slices)
        for rank, attempt in named:
            some(shard, seed, update, rank, attempt, None)
        await preparing
        version += decision is not Decision.DROP
        for _ in range(2):
            assert (await shard.decide(update, decision, version=version))[0] == version == shard.version
        if decision is Decision.APPLY:
            expected -= total(shard, [seed + 100 * rank + attempt for rank, attempt in named])
        some(shard, seed, update, 0, attempts, None)
        assert torch.equal(shard.flat, expected)
        assert shard.buffered_bytes == 0
    shard.close()


def total(shard: Store, seeds: list[int]) -> torch.Tensor:
    parts = [gradients(seed, MODEL) for seed in seeds]
    flat = torch.zeros(shard.places.elements)
    for number in shard.slices:
        cut, name = shard.layout.slices[number], shard.places.tensor(number).name
        first, *rest = [value.reshape(-1)[cut.start : cut.stop] for part in parts if (value := part[name]) is not None]
        summed = first.clone()
        for value in rest:
            summed.add_(value)
        shard.places.view(flat, number).copy_(summed)
    return flat


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.lists(updates(), min_size=1, max_size=4))
def test_what_is_named_is_applied_once(seed: int, rounds: list[tuple[int, int, Decision, list[Parts]]]) -> None:
    asyncio.run(play(seed, rounds))
