"""Which processes of a run are started again, and when it cannot go on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from encephalon.core.errors import FailedPrecondition
from encephalon.local.process import Command
from encephalon.local.training.crew import Crew
from tests.unit.local.training.pretending import ROOT
from tests.waiting import until


def command(folder: Path, name: str, role: str, how: str) -> Command:
    return Command(
        name=name,
        module="tests.unit.local.training.pretended",
        arguments=("--run", "first", f"--{role}", "it", "--folder", str(folder / name)),
        log=folder / f"{name}.log",
        environment={"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'services'}", f"PRETENDED_{role.upper()}": how},
    )


@asynccontextmanager
async def working(
    folder: Path, *, shard: str = "obey", workers: tuple[str, ...] = (), over: bool = False
) -> AsyncIterator[Crew]:
    """A process that obeys is in the place of the control node."""

    async def ended() -> bool:
        return over

    planned = {
        "controller": [command(folder, "control-node", "shard", "obey")],
        "shard": [command(folder, "shard-0", "shard", shard)],
        "worker": [command(folder, f"worker-{number}", "worker", how) for number, how in enumerate(workers)],
    }
    crew = Crew(planned, ended)
    crew.start()
    try:
        yield crew
    finally:
        crew.kill()
        await crew.stop(0.0)


async def test_a_run_without_a_worker_that_can_work_cannot_go_on(tmp_path: Path) -> None:
    async with working(tmp_path, workers=("refuse", "crash-once", "finish")) as crew:
        await until(lambda: crew.pids["worker-0"] is None and crew.pids["worker-1"] and crew.pids["worker-2"] is None)
        assert not crew.over
    async with working(tmp_path, workers=("refuse", "refuse")) as crew:
        with pytest.raises(
            FailedPrecondition, match=r"worker-0 cannot run: this worker has another world in mind \(log"
        ):
            await crew.until_over()
        assert crew.over


async def test_a_run_without_a_shard_cannot_go_on(tmp_path: Path) -> None:
    async with working(tmp_path, shard="refuse") as crew:
        with pytest.raises(FailedPrecondition, match="shard-0 cannot run: this shard has another world in mind"):
            await crew.until_over()


@pytest.mark.parametrize("over", [False, True])
async def test_a_control_node_comes_back_unless_the_run_is_over(tmp_path: Path, over: bool) -> None:
    async with working(tmp_path, over=over) as crew:
        pid = await until(lambda: crew.pids["control-node"])
        assert isinstance(pid, int)
        os.kill(pid, signal.SIGKILL)
        if over:
            await asyncio.wait_for(crew.until_over(), 10)
            assert crew.over
        else:
            await until(lambda: crew.pids["control-node"] not in (None, pid))
