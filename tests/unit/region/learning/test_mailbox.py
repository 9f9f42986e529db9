from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encephalon.core.errors import InvalidInput, Overloaded
from encephalon.region.learning.mailbox import AHEAD, Mailbox, Work


def forward(number: int) -> Work:
    return Work("forward", number, None)


def backward(number: int) -> Work:
    return Work("backward", number, None)


@settings(max_examples=40)
@given(st.integers(1, 9), st.integers(1, 4), st.data())
def test_whatever_comes_when_everything_is_computed_in_order_and_little_is_held(
    micro_batches: int, in_flight: int, data: st.DataObject
) -> None:
    mailbox = Mailbox(micro_batches, in_flight, backward=True)
    sent = {"forward": 0, "backward": 0}
    taken: dict[str, list[int]] = {"forward": [], "backward": []}
    while not mailbox.finished:
        may = []
        if sent["forward"] < micro_batches and sent["forward"] - len(taken["backward"]) < in_flight + AHEAD:
            may.append("forward")
        if sent["backward"] < len(taken["forward"]):
            may.append("backward")
        choice = data.draw(st.sampled_from([*may, "take"]))
        if choice == "take":
            waits = sent["backward"] > len(taken["backward"])
            if (work := mailbox.next()) is None:
                continue
            assert work.direction == "backward" or not waits
            taken[work.direction].append(work.micro_batch)
        else:
            mailbox.put(forward(sent[choice]) if choice == "forward" else backward(sent[choice]))
            sent[choice] += 1
        assert mailbox.held <= in_flight
    assert taken == {"forward": list(range(micro_batches)), "backward": list(range(micro_batches))}
    assert mailbox.most_held <= in_flight


@pytest.mark.parametrize(
    ("works", "sentence"),
    [
        ([forward(1)], "expected 0"),
        ([forward(0), forward(0)], "expected 1"),
        ([backward(0)], "before its forward pass"),
        ([forward(0), backward(0)], "before its forward pass"),
    ],
)
def test_what_is_out_of_order_is_refused(works: list[Work], sentence: str) -> None:
    mailbox = Mailbox(4, 2, backward=True)
    for work in works[:-1]:
        mailbox.put(work)
    with pytest.raises(InvalidInput, match=sentence):
        mailbox.put(works[-1])


def test_more_than_may_wait_is_refused() -> None:
    mailbox = Mailbox(9, 1, backward=True)
    for number in range(1 + AHEAD):
        mailbox.put(forward(number))
    with pytest.raises(Overloaded, match="2 forward passes wait"):
        mailbox.put(forward(1 + AHEAD))


def test_a_region_that_only_goes_forward_holds_nothing() -> None:
    mailbox = Mailbox(3, 1, backward=False)
    for number in range(3):
        mailbox.put(forward(number))
        assert mailbox.next() == forward(number)
    assert mailbox.finished
    assert mailbox.most_held == 0
    with pytest.raises(InvalidInput, match="only goes forward"):
        mailbox.put(backward(0))


async def test_whoever_takes_is_told_of_a_failure() -> None:
    mailbox = Mailbox(1, 1, backward=True)
    taking = asyncio.create_task(mailbox.take())
    await asyncio.sleep(0)
    mailbox.fail(InvalidInput("bad"))
    with pytest.raises(InvalidInput, match="bad"):
        await taking
