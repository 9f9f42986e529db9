"""The processes of a run: which of them are started again when they end, and which end means that it cannot go on."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from encephalon.core.errors import FailedPrecondition
from encephalon.local.backoff import Backoff
from encephalon.local.process import Command, Process

__all__ = ["Crew"]

FINISHED, FAILED, REFUSED = 0, 1, 2
"""What our processes end with: REFUSED when they were asked for what cannot be, so that starting them again is no use.
Anything else is a crash.
"""
MOST_FAILURES: Final = 20
"""That a process ends by itself with FAILED, one soon after the other, before it is given up: with the back-off below
a minute and more, in which a store may come back.
"""
SOON_S: Final = 20.0


def backoff() -> Backoff:
    """Short, because everybody waits for who is lost, and is not to be lost for good himself meanwhile."""
    return Backoff(first_s=0.1, longest_s=2.0, steady_s=5.0)


class Crew:
    """Roles are those of `commands`. `over` says whether the run has ended, so that a control node that is gone need
    not come back.
    """

    def __init__(self, planned: Mapping[str, Sequence[Command]], over: Callable[[], Awaitable[bool]]) -> None:
        self.answered = False
        """Whether the control node ever did; one that fails before that is not started again."""
        self.killed = False
        self._run_over = over
        again = {"controller": self._controller_again, "shard": self._shard_again}
        self._roles = {
            role: [Process(command, lambda: None, backoff(), again.get(role, self._worker_again)) for command in group]
            for role, group in planned.items()
        }
        self._keepers: dict[Process, asyncio.Task[None]] = {}
        self._failures: dict[Process, tuple[int, float]] = {}
        self._refused: dict[str, str] = {}
        """Workers to why they cannot work."""
        self._impossible: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def pids(self) -> dict[str, int | None]:
        return {process.command.name: process.pid for process in self._all}

    @property
    def controller(self) -> Process:
        return self._roles["controller"][0]

    @property
    def over(self) -> bool:
        """Whether there will be no control node any more, or nobody for it to control."""
        return self.killed or self._impossible.done() or self._keepers[self.controller].done()

    def start(self) -> None:
        for process in self._all:
            self._keepers[process] = asyncio.create_task(process.keep(), name=f"keep {process.command.name}")

    async def until_over(self, *others: asyncio.Future[Any]) -> None:
        """Returns then, or when one of the others is done; FailedPrecondition says why the run cannot go on."""
        ends = [self._keepers[self.controller], self._impossible, *others]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if self._impossible.done():
            self._impossible.result()

    async def until_controller_ended(self) -> None:
        await asyncio.wait([self._keepers[self.controller]])

    async def stop(self, grace_s: float) -> None:
        """From the outside in: workers, what they drive, the control node, the shards. When the control node has ended
        before, nobody needs anybody any more.
        """
        order = ["worker", "region", "controller", "shard"]
        for roles in [order] if self._keepers[self.controller].done() else [[role] for role in order]:
            group = [process for role in roles for process in self._roles.get(role, ())]
            await asyncio.gather(*(process.stop(grace_s) for process in group))
        await asyncio.gather(*self._keepers.values())
        if self._impossible.done():
            self._impossible.exception()  # whoever asked was told

    def kill(self) -> None:
        self.killed = True
        for process in self._all:
            process.kill()

    def fail(self, sentence: str) -> None:
        """Ends the waiting with FailedPrecondition."""
        if not self._impossible.done():
            self._impossible.set_exception(FailedPrecondition(sentence))

    @property
    def _all(self) -> list[Process]:
        return [process for group in self._roles.values() for process in group]

    # Whether to start again

    async def _controller_again(self, process: Process) -> bool:
        if process.exit_code in (FINISHED, REFUSED) or (process.exit_code == FAILED and not self.answered):
            return False
        return not self._given_up(process) and not await self._run_over()

    async def _shard_again(self, process: Process) -> bool:
        if process.exit_code != REFUSED:
            return True
        self.fail(f"{process.command.name} {why(process)}")
        return False

    async def _worker_again(self, process: Process) -> bool:
        """Of a worker, or of a region that a worker drives. Without a single worker the run cannot go on."""
        if process.exit_code == FINISHED:
            return False
        if process.exit_code != REFUSED and not self._given_up(process):
            return True
        name = process.command.name
        self._refused[name.partition(".")[0]] = f"{name} {why(process)}"
        workers = [worker.command.name for worker in self._roles["worker"]]
        if set(workers) <= set(self._refused):
            self.fail(self._refused[workers[0]])
        return False

    def _given_up(self, process: Process) -> bool:
        """Whether it has failed by itself too often."""
        before, at = self._failures.get(process, (0, 0.0))
        now = time.monotonic()
        count = (before if now - at < SOON_S else 0) + (process.exit_code == FAILED)
        self._failures[process] = (count, now)
        return count >= MOST_FAILURES


def why(process: Process) -> str:
    """What a process said when it ended, and where the rest of it stands."""
    said = in_words(process.last_words()) or f"exit code {process.exit_code}"
    return f"cannot run: {said.rstrip('.')} (log: {process.command.log})"


def in_words(line: str) -> str:
    """A line of a log as a person would say it; others stay as they are."""
    try:
        fields = json.loads(line)
        cause = fields.get("cause") or ", ".join(
            f"{error['exc_type']}: {error['exc_value']}" for error in fields.get("exception", [])
        )
        return f"{fields['event']}: {cause}" if cause else str(fields["event"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return line
