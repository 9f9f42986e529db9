"""One process of a brain that is kept running: started, watched, started again when it ends, and stopped."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from encephalon.local.backoff import Backoff

__all__ = ["Command", "Process", "State"]

LOG = logging.getLogger(__name__)
State = Literal["running", "restarting", "stopped"]
LAST_WORDS_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: a module of ours with its arguments. `region` and `socket` are empty for the coordinator."""

    name: str
    module: str
    arguments: tuple[str, ...]
    log: Path
    region: str = ""
    socket: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


async def always(process: Process) -> bool:
    return True


class Process:
    """A command that is kept running until `stop`, or until it has ended and `again` says that this was its end."""

    def __init__(
        self,
        command: Command,
        changed: Callable[[], None],
        backoff: Backoff | None = None,
        again: Callable[[Process], Awaitable[bool]] = always,
    ) -> None:
        self.command = command
        self.state: State = "stopped"
        self.restarts = 0
        self.exit_code: int | None = None
        self._changed = changed
        self._again = again
        self._backoff = backoff or Backoff()
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """None while no process runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def keep(self) -> None:
        """Runs until `stop`: starts the process and starts it again, with back-off, whenever it ends and should not
        have.
        """
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                self.exit_code = await self._run()
            except OSError as error:  # no more processes or memory: that passes
                LOG.warning("a process could not be started", extra={"child": self.command.name}, exc_info=error)
            if self._stopping.is_set() or not await self._again(self):
                break
            delay = self._backoff.after(time.monotonic() - started)
            facts = {"child": self.command.name, "exit_code": self.exit_code, "delay_s": delay}
            LOG.warning("a process ended and will be started again", extra=facts)
            self._become("restarting")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
            self.restarts += 1
        self._become("stopped")

    async def stop(self, grace_s: float) -> None:
        """Asks the process to drain and end; kills it after `grace_s` seconds. Harmless when it is stopped already."""
        self._stopping.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), grace_s)
        except TimeoutError:
            self.kill()
            await process.wait()

    def kill(self) -> None:
        """Ends the process at once."""
        self._stopping.set()
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    def last_words(self) -> str:
        """The last line of its log, which says why it ended; empty when there is none."""
        with suppress(OSError), self.command.log.open("rb") as log:
            log.seek(max(0, self.command.log.stat().st_size - LAST_WORDS_BYTES))
            lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
            return lines[-1] if lines else ""
        return ""

    async def _run(self) -> int:
        command = self.command
        arguments = ["-m", "encephalon.local.child", str(os.getpid()), command.module, *command.arguments]
        with command.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **command.environment},
                start_new_session=True,  # Ctrl-C reaches the supervisor alone, which drains in order
            )
        self._become("running")
        if self._stopping.is_set():  # stopped while it was being started
            self.kill()
        return await self._process.wait()

    def _become(self, state: State) -> None:
        self.state = state
        self._changed()
