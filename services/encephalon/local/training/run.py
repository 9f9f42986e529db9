"""A training run on this machine: its processes are started, kept running, and stopped, and none is left behind."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import structlog

from encephalon.api.training.v1.training_pb2 import RunState, RunStatus
from encephalon.core.errors import EncephalonError, FailedPrecondition, Retryable, Unavailable
from encephalon.local.folders import Folders
from encephalon.local.process import Command
from encephalon.local.training import watching
from encephalon.local.training.commands import commands
from encephalon.local.training.crew import Crew, why
from encephalon.local.training.kept import OVER, Runs
from encephalon.local.training.options import TrainingOptions
from encephalon.state import open_key_value
from encephalon.state.embedded import unwritable
from encephalon.training.runs import RunSettings

__all__ = ["Training", "training"]

LOG = structlog.get_logger(__name__)

POLL_S: Final = 0.1
LAST_WORDS_S: Final = 1.0
"""For what a control node that has ended has sent before."""
LEASE_S: Final = 6.0
"""A control node that was killed is announced no longer than this."""


class Training:
    """A run while it goes. Made by `training`."""

    def __init__(
        self,
        runs: Runs,
        settings: RunSettings,
        options: TrainingOptions,
        planned: Mapping[str, Sequence[Command]],
        revision: int,
    ) -> None:
        """`revision` is that of the state in which an earlier control node left the run."""
        self.settings = settings
        self.run = settings.run
        self.folder = options.folder(settings.run)
        self._runs, self._options, self._revision = runs, options, revision
        self._crew = Crew(planned, self._has_ended)

    @property
    def processes(self) -> dict[str, int | None]:
        """The process ids by name (`control-node`, `shard-0`, `worker-0`, `worker-0.visual`); None for one that ended,
        or waits to be started again.
        """
        return self._crew.pids

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    async def address(self) -> str:
        """host:port of the control node; Unavailable when it does not announce itself in time."""
        deadline = asyncio.get_running_loop().time() + self._options.start_timeout_s
        while not self._crew.over and asyncio.get_running_loop().time() < deadline:
            for address in await watching.addresses(self._runs.store, self._runs.namespace, self.run):
                return address
            await asyncio.sleep(POLL_S)
        raise Unavailable(f"the control node of run '{self.run}' is not there; its logs are in {self.logs}")

    async def watch(self) -> AsyncGenerator[RunStatus, None]:
        """How the run goes, whenever that changes and at least once a second, to its end. FailedPrecondition when it
        cannot go on.
        """
        store, namespace = self._runs.store, self._runs.namespace
        async with aclosing(watching.watched(store, namespace, self.run, lambda: self._crew.over)) as statuses:
            while (status := await self._unless_over(statuses)) is not None:
                yield status

    async def wait(self) -> RunState:
        """Waits until the run is over, well or not, and says how. FailedPrecondition when it cannot go on: a process
        was refused, or the control node ended before the run did. It can be resumed then.
        """
        await self._crew.until_over()
        return await self._end()

    async def stop(self) -> RunState:
        """Ends the run at its next step with a checkpoint, and waits for that. Unavailable when it takes longer than
        `stop_s`; then nothing was stopped, and leaving the block loses what came after the last checkpoint.
        """
        try:
            await self._runs.ask_to_stop(self.run)
        except Retryable as error:
            LOG.warning("the wish to stop cannot be kept", run=self.run, cause=error.message)
        try:
            async with asyncio.timeout(self._options.stop_s):
                await self._tell_to_stop()
                await self._crew.until_controller_ended()
        except TimeoutError:
            raise Unavailable(
                f"run '{self.run}' did not stop within {self._options.stop_s:.0f} s; what came after its last "
                "checkpoint is lost"
            ) from None
        return await self._end()

    def kill(self) -> None:
        """Ends every process at once; what came after the last checkpoint is lost."""
        self._crew.kill()

    # The block of `training`

    def start(self) -> None:
        self._crew.start()
        self._beginning = asyncio.create_task(self._begun(), name=f"look whether {self.run} has begun")

    async def close(self) -> None:
        """A run that goes on is stopped with a checkpoint first."""
        try:
            if self._crew.answered and not self._crew.killed and self._crew.controller.pid is not None:
                await self.stop()
        except EncephalonError as error:
            LOG.warning("the run was not stopped with a checkpoint", run=self.run, cause=error.message)
        finally:
            self._beginning.cancel()
            await asyncio.wait([self._beginning])
            await self._crew.stop(self._options.drain_s)

    async def _begun(self) -> None:
        try:
            await self.address()
        except Unavailable as error:
            if not self._crew.over:  # else it is said why it ended
                self._crew.fail(error.message)
        else:
            self._crew.answered = True

    async def _tell_to_stop(self) -> None:
        """Until a control node has heard it, or is gone; the key in the store is read by one that comes back."""
        while self._crew.controller.state != "stopped":
            if await watching.ask_to_stop(self._runs.store, self._runs.namespace, self.run):
                return
            await asyncio.sleep(POLL_S)

    async def _has_ended(self) -> bool:
        """Whether a control node has written so; one that was killed just behind that need not come back."""
        try:
            state, revision = await self._runs.state(self.run)
        except Retryable as error:
            LOG.warning("the state of the run cannot be read", run=self.run, cause=error.message)
            return False
        return revision != self._revision and state.state in OVER

    async def _end(self) -> RunState:
        state, revision = await self._runs.state(self.run)
        if revision == self._revision or state.state not in OVER:
            how = "it was killed" if self._crew.killed else f"the control node {why(self._crew.controller)}"
            raise FailedPrecondition(f"run '{self.run}' was broken off: {how}", run=self.run)
        return state

    async def _unless_over(self, statuses: AsyncGenerator[RunStatus, None]) -> RunStatus | None:
        """The next status; None when the run has ended and there is none."""
        coming = asyncio.ensure_future(anext(statuses, None))
        try:
            await self._crew.until_over(coming)
            await asyncio.wait([coming], timeout=LAST_WORDS_S)
            return coming.result() if coming.done() else None
        finally:
            coming.cancel()
            await asyncio.wait([coming])


@asynccontextmanager
async def training(
    settings: RunSettings, options: TrainingOptions, regions: Sequence[str] = (), *, resume: bool = False
) -> AsyncIterator[Training]:
    """Runs a run until the block ends; when the run is not over then, it is stopped with a checkpoint.

    `regions` are those of the brain that live in processes of their own when the run is a pipeline. resume: go on with
    a run that rests, under these settings; else AlreadyExists when there is one of this name. Raises FailedPrecondition
    when the run is running, Unavailable when a store does not answer.
    """
    folders = Folders(options.state_dir)
    folders.prepare()
    async with AsyncExitStack() as stack:
        runs = Runs(await stack.enter_async_context(open_key_value(options.state_url)), options.namespace)
        stack.enter_context(locked(options.folder(settings.run), settings.run, options.state_dir))
        revision = 0
        if resume:
            await until_gone(runs, settings.run)
            revision = (await runs.state(settings.run))[1]
            await runs.begin_again(settings)
        else:
            await runs.begin(settings)
        run = Training(runs, settings, options, commands(settings, options, regions), revision)
        run.start()
        try:
            yield run
        finally:
            await run.close()


async def until_gone(runs: Runs, run: str) -> None:
    """FailedPrecondition while a control node answers; the announcement of one that was killed is waited for."""
    deadline = asyncio.get_running_loop().time() + LEASE_S
    while await watching.controllers(runs.store, runs.namespace, run):
        if await watching.living(runs.store, runs.namespace, run) is not None:
            raise running_already(run)
        if asyncio.get_running_loop().time() > deadline:
            return  # a store that was away keeps leases a while longer; nobody answers there
        await asyncio.sleep(POLL_S)


@contextmanager
def locked(folder: Path, run: str, state_dir: Path) -> Iterator[None]:
    """One supervisor per run and state folder. The kernel gives the lock back however its holder ends."""
    try:
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise unwritable(state_dir, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise running_already(run) from None
        yield


def running_already(run: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"run '{run}' is running; `encephalon runs show {run}` shows it, `encephalon runs stop {run}` ends it",
        run=run,
    )
