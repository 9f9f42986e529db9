"""Four times what a region can do: what is admitted keeps its deadline, the rest hears so soon, memory stays flat."""

from __future__ import annotations

import asyncio

import pytest

from encephalon.core.errors import Overloaded
from tests.overload import CAPACITY, DEADLINE_S, ROW_MS, overloaded, steady
from tests.regions import infer, manifest, region_process

MAX_BATCH = 4
SECONDS = 6.0
MORE_MEMORY = 16 * 2**20


@pytest.mark.slow  # by default a whole brain is, in test_brain_limits
async def test_four_times_the_capacity() -> None:
    text = manifest(
        "diagnostics/003",
        arguments={"delay_ms": ROW_MS, "per": "row"},
        max_batch=MAX_BATCH,
        mailbox=256,
    )
    async with region_process(text) as region, region.client() as client:
        await steady(lambda: infer(client, timeout_s=DEADLINE_S), CAPACITY * 4, 1.0)
        before = region.rss
        tally = await overloaded(lambda: infer(client, timeout_s=DEADLINE_S), CAPACITY * 4, SECONDS, CAPACITY * SECONDS)
        more = region.rss - before
    print(tally.report(), f"memory {more / 2**20:+.1f} MiB")
    assert more < MORE_MEMORY


async def test_a_mailbox_of_patient_requests_refuses_when_it_is_full() -> None:
    """Without a deadline that matters only the bound of the mailbox counts."""
    text = manifest("diagnostics/003", arguments={"delay_ms": 20.0}, max_batch=1, mailbox=8)
    async with region_process(text) as region, region.client() as client:
        answers = await asyncio.gather(*(infer(client) for _ in range(100)), return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, Overloaded)]
        assert len(answers) - len(refused) == len([answer for answer in answers if not isinstance(answer, Exception)])
        assert 8 <= len(answers) - len(refused) <= 20
        assert "the mailbox is full (8 messages wait)" in refused[0].message
