"""A run of real processes, held by a test that may hurt them.

place = Place.of(tmp_path)
settings = await place.settings(SMALL, samples=960, workers=2, shards=2)
async with place.running(settings) as run:
    await run.reached(20)
    run.kill("shard-0")
    await run.recovered()
    weights = await run.weights()       # of its end
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from encephalon.api.training.v1.training_pb2 import RunState, RunStatus
from encephalon.learning.checkpoint import read_tensors
from encephalon.library.library import Library
from encephalon.library.open import open_library
from encephalon.local.process import Command
from encephalon.local.training import Training, TrainingOptions
from encephalon.local.training import run as starting
from encephalon.state import open_objects
from encephalon.training.recording.history import History
from encephalon.training.runs import RunSettings
from tests.training.brains import Dense, add_brain, add_data
from tests.waiting import until

__all__ = ["HeldRun", "Place"]

START_S = 60.0
"""Until the first update, on a busy machine: five processes import torch."""


class HeldRun:
    """Watches a run from its beginning: `statuses` are all that were told, with the time of this process."""

    def __init__(self, training: Training, objects: str) -> None:
        self.training = training
        self.statuses: list[tuple[float, RunStatus]] = []
        self._objects = objects
        self._hurt: tuple[str, int] | None = None
        self._watching = asyncio.create_task(self._watch())

    @property
    def pids(self) -> Mapping[str, int | None]:
        return self.training.processes

    @property
    def version(self) -> int:
        return self.statuses[-1][1].version if self.statuses else 0

    @property
    def over(self) -> bool:
        return self._watching.done()

    @property
    def logs(self) -> str:
        """The last lines of every process."""
        paths = sorted(self.training.logs.glob("*.log"))
        return "\n".join(f"{path.stem}:\n{path.read_text(errors='replace')[-2000:]}" for path in paths)

    async def reached(self, version: int, within: float = START_S) -> None:
        """Until so many updates were decided, or the run is over."""
        await self._until(lambda: self.version >= version or self.over, within, f"version {version}")

    # Faults

    def kill(self, name: str) -> None:
        """SIGKILL."""
        self._signal(name, signal.SIGKILL)

    def freeze(self, name: str) -> None:
        self._signal(name, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        os.kill(self._pid(name), signal.SIGCONT)

    async def recovered(self, within: float = 60.0) -> float:
        """Seconds until the run goes on without the process that was killed; a worker's share is given to another, for
        all others a new process is waited for."""
        assert self._hurt is not None, "nothing was hurt"
        name, before = self._hurt
        began = time.monotonic()
        if not name.startswith("worker"):
            await self._until(lambda: self.pids[name] not in (before, None) or self.over, within, f"another {name}")
        await self.goes_on(within)
        return time.monotonic() - began

    async def goes_on(self, within: float = 60.0) -> None:
        """Until three updates were decided from now on, or the run is over. After a loss the version goes back first;
        and what was decided before may be told a little later."""
        at, lowest = len(self.statuses), 1 << 62

        def on() -> bool:
            nonlocal at, lowest
            lowest = min([lowest, *(status.version for _, status in self.statuses[at:])])
            at = len(self.statuses)
            return self.over or self.version >= lowest + 3

        await self._until(on, within, "the run goes on")

    # The end

    async def ended(self, within: float = 120.0) -> RunState:
        async with asyncio.timeout(within):
            return await self.training.wait()

    async def succeeded(self, within: float = 120.0) -> RunState:
        state = await self.ended(within)
        assert state.state == RunState.STATE_SUCCEEDED, f"{state.sentence}\n{self.logs}"
        return state

    async def weights(self, within: float = 120.0) -> dict[str, torch.Tensor]:
        """Whole tensors by name, as the run has left them in its last checkpoint."""
        state = await self.succeeded(within)
        with tempfile.TemporaryDirectory(prefix="enc-") as folder:
            async with open_objects(self._objects) as objects:
                return await read_tensors(objects, state.checkpoint, Path(folder))

    async def history(self, within: float = 300.0) -> History:
        """Steps and evaluations of the whole run."""
        state = await self.succeeded(within)
        async with open_objects(self._objects) as objects:
            return History.read(b"".join([chunk async for chunk in objects.get(state.history_key)]))

    def close(self) -> None:
        self._watching.cancel()

    async def _watch(self) -> None:
        async for status in self.training.watch():
            self.statuses.append((time.monotonic(), status))

    def _signal(self, name: str, sign: signal.Signals) -> None:
        pid = self._pid(name)
        self._hurt = (name, pid)
        os.kill(pid, sign)

    def _pid(self, name: str) -> int:
        pid = self.pids[name]
        assert pid is not None, f"{name} is not running"
        return pid

    async def _until(self, predicate: Callable[[], bool | Awaitable[bool]], within: float, what: str) -> None:
        try:
            await until(predicate, within, what)
        except AssertionError as error:
            last = self.statuses[-1][1] if self.statuses else "no status"
            raise AssertionError(f"{error}\n{last}\n{self.logs}") from None


@dataclass(frozen=True)
class Place:
    """Stores of a run and the folder of its processes. Change `command` to start processes otherwise."""

    options: TrainingOptions
    command: Callable[[Command], Command] = field(default=lambda command: command)

    @classmethod
    def of(cls, folder: Path, **options: Any) -> Place:
        """Embedded stores below the folder, or those that `options` (`state`, `objects`) name."""
        folder.mkdir(parents=True, exist_ok=True)
        return cls(TrainingOptions(state_dir=folder, cache_dir=folder / "cache", **options))

    def library(self, *, seed: bool = False) -> contextlib.AbstractAsyncContextManager[Library]:
        options = self.options
        return open_library(options.state_url, options.objects_url, cache_dir=options.cache_dir, seed=seed)

    async def settings(
        self, brain: Dense, samples: int, *, test: int = 0, run: str = "run", **more: Any
    ) -> RunSettings:
        """Of a run on new data for the brain; as quiet as can be, unless told otherwise."""
        async with self.library() as opened:
            reference = await add_brain(opened, brain, self.options.state_dir)
            data = await add_data(opened, brain, samples, test=test)
        quiet: dict[str, Any] = {"plan": "fixed", "validation": "", "test": "" if test else "none", "seed": 7}
        return RunSettings.checked(**{"run": run, "brain": reference, "data": data, **quiet, **more})

    @contextlib.asynccontextmanager
    async def running(self, settings: RunSettings, *, resume: bool = False) -> AsyncIterator[HeldRun]:
        async with self._started(settings, resume) as training:
            run = HeldRun(training, self.options.objects_url)
            try:
                yield run
            finally:
                run.close()
                for name, pid in training.processes.items():
                    if pid is not None:
                        with contextlib.suppress(ProcessLookupError):
                            run.thaw(name)

    @contextlib.asynccontextmanager
    async def _started(self, settings: RunSettings, resume: bool) -> AsyncIterator[Training]:
        before = starting.commands

        def changed(*arguments: Any) -> dict[str, list[Command]]:
            return {role: [self.command(each) for each in group] for role, group in before(*arguments).items()}

        starting.commands = changed
        try:
            async with starting.training(settings, self.options, resume=resume) as training:
                starting.commands = before
                yield training
        finally:
            starting.commands = before

    def otherwise(self, command: Callable[[Command], Command]) -> Place:
        return replace(self, command=command)
