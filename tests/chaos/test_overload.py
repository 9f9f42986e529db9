"""Four times what a region can do: what is admitted keeps its deadline, the rest hears so soon, memory stays flat."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from encephalon.core.errors import DeadlineExceeded, Overloaded
from encephalon.core.inference import InferenceClient

from tests.regions import infer, manifest, region_process

ROW_MS, MAX_BATCH = 10.0, 4
CAPACITY = 1000 / ROW_MS
"""Requests per second."""
DEADLINE_S = 0.3
SECONDS = 6.0
REFUSED_WITHIN_S = 0.05
MORE_MEMORY = 16 * 2**20


@dataclass
class Tally:
    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    late: int = 0


async def ask(client: InferenceClient, tally: Tally) -> None:
    began = time.monotonic()
    try:
        await infer(client, timeout_s=DEADLINE_S)
        tally.answered.append(time.monotonic() - began)
    except Overloaded:
        tally.refused.append(time.monotonic() - began)
    except DeadlineExceeded:
        tally.late += 1


async def load(client: InferenceClient, rate: float, seconds: float) -> Tally:
    """Sends at a steady rate, whatever becomes of the requests."""
    tally = Tally()
    began = time.monotonic()
    tasks: list[asyncio.Task[None]] = []
    while (passed := time.monotonic() - began) < seconds:
        while len(tasks) < passed * rate:
            tasks.append(asyncio.create_task(ask(client, tally)))
        await asyncio.sleep(1 / rate)
    await asyncio.gather(*tasks)
    return tally


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def test_four_times_the_capacity() -> None:
    text = manifest(
        "diagnostics/003",
        arguments={"delay_ms": ROW_MS, "per": "row"},
        max_batch=MAX_BATCH,
        mailbox=256,
    )
    async with region_process(text) as region, region.client() as client:
        await load(client, CAPACITY * 4, 1.0)
        before = region.rss
        tally = await load(client, CAPACITY * 4, SECONDS)
        after = region.rss
    total = len(tally.answered) + len(tally.refused) + tally.late
    report = (
        f"{total} sent, {len(tally.answered)} answered (p99 {percentile(tally.answered, 0.99) * 1e3:.0f} ms), "
        f"{len(tally.refused)} refused (p99 {percentile(tally.refused, 0.99) * 1e3:.1f} ms), {tally.late} late, "
        f"memory {(after - before) / 2**20:+.1f} MiB"
    )
    print(report)
    assert tally.late <= 0.01 * (len(tally.answered) + tally.late), report
    assert percentile(tally.refused, 0.99) < REFUSED_WITHIN_S, report
    assert len(tally.answered) > 0.7 * CAPACITY * SECONDS, report
    assert len(tally.refused) > 0.5 * total, report
    assert after - before < MORE_MEMORY, report


async def test_a_mailbox_of_patient_requests_refuses_when_it_is_full() -> None:
    """Without a deadline that matters only the bound of the mailbox counts."""
    text = manifest("diagnostics/003", arguments={"delay_ms": 20.0}, max_batch=1, mailbox=8)
    async with region_process(text) as region, region.client() as client:
        answers = await asyncio.gather(*(infer(client) for _ in range(100)), return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, Overloaded)]
        assert len(answers) - len(refused) == len([answer for answer in answers if not isinstance(answer, Exception)])
        assert 8 <= len(answers) - len(refused) <= 20
        assert "the mailbox is full (8 messages wait)" in refused[0].message
