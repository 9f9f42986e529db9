"""Which processes of a run are started again, and when it cannot go on; their ends are scripted here."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from encephalon.core.errors import FailedPrecondition
from encephalon.local.process import Command, Process
from encephalon.local.training import crew as crews
from encephalon.local.training.crew import Crew
from tests.waiting import until

KILLED, FINISHED, FAILED, REFUSED = -9, 0, 1, 2


@asynccontextmanager
async def working(
    patch: pytest.MonkeyPatch, folder: Path, ends: Mapping[str, Sequence[int]], *, workers: int = 1, over: bool = False
) -> AsyncIterator[tuple[Crew, Counter[str]]]:
    """`ends` are the codes with which processes end, one after the other; then they go on until they are stopped.
    Counts how often each was started.
    """
    codes = {name: list(of) for name, of in ends.items()}
    started: Counter[str] = Counter()

    async def run(process: Process) -> int:
        name = process.command.name
        started[name] += 1
        if codes.get(name):
            return codes[name].pop(0)
        await process._stopping.wait()
        return FINISHED

    async def ended() -> bool:
        return over

    def command(name: str) -> Command:
        log = folder / f"{name}.log"
        log.write_text(f"the last words of {name}.\n")
        return Command(name, "no.module", (), log)

    patch.setattr(Process, "_run", run)
    planned = {
        "controller": [command("control-node")],
        "shard": [command("shard-0")],
        "worker": [command(f"worker-{number}") for number in range(workers)],
        "region": [command(f"worker-{number}.visual") for number in range(workers)],
    }
    crew = Crew(planned, ended)
    crew.answered = True
    crew.start()
    try:
        yield crew, started
    finally:
        crew.kill()
        await crew.stop(0.0)


async def test_who_crashes_comes_back_and_who_has_finished_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = {"worker-0": [FINISHED], "worker-1": [KILLED, FAILED], "shard-0": [KILLED], "control-node": [FAILED]}
    async with working(monkeypatch, tmp_path, ends, workers=2) as (crew, started):
        await until(lambda: started["worker-1"] == 3 and started["shard-0"] == started["control-node"] == 2)
        assert started["worker-0"] == 1
        assert not crew.over


@pytest.mark.parametrize(
    ("ends", "sentence"),
    [
        ({"worker-0": [REFUSED], "worker-1": [REFUSED]}, r"worker-0 cannot run: the last words of worker-0 \(log: "),
        ({"worker-0.visual": [REFUSED], "worker-1": [REFUSED]}, r"worker-0.visual cannot run: the last words of "),
        ({"shard-0": [KILLED, REFUSED]}, "shard-0 cannot run: the last words of shard-0"),
    ],
)
async def test_a_run_without_anybody_who_can_work_cannot_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: dict[str, list[int]], sentence: str
) -> None:
    async with working(monkeypatch, tmp_path, ends, workers=2) as (crew, _):
        with pytest.raises(FailedPrecondition, match=sentence):
            await crew.until_over()
        assert crew.over


async def test_one_worker_that_can_work_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with working(monkeypatch, tmp_path, {"worker-0": [REFUSED]}, workers=2) as (crew, started):
        await until(lambda: started["worker-1"])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(crew.until_over(), 0.1)


async def test_a_worker_that_fails_again_and_again_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crews, "MOST_FAILURES", 3)
    async with working(monkeypatch, tmp_path, {"worker-0": [FAILED] * 9}) as (crew, started):
        with pytest.raises(FailedPrecondition, match="worker-0 cannot run"):
            await crew.until_over()
        assert started["worker-0"] == 3


@pytest.mark.parametrize(("code", "over"), [(FINISHED, False), (REFUSED, False), (KILLED, True)])
async def test_the_end_of_the_control_node_is_that_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, over: bool
) -> None:
    async with working(monkeypatch, tmp_path, {"control-node": [code]}, over=over) as (crew, started):
        await crew.until_over()
        assert crew.over
        assert started["control-node"] == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("there is no cake", "there is no cake"),
        ('{"event": "it ended", "cause": "there is no cake"}', "it ended: there is no cake"),
        (
            '{"event": "it ended", "exception": [{"exc_type": "NameError", "exc_value": "no cake"}]}',
            "it ended: NameError: no cake",
        ),
        ('{"event": "it ended"}', "it ended"),
        ("[1]", "[1]"),
        ('{"exception": 3}', '{"exception": 3}'),
    ],
)
def test_what_a_log_says_last_is_said_in_words(line: str, words: str) -> None:
    assert crews.in_words(line) == words
