"""Runs the processes of one brain: starts them, waits until they answer, keeps them running, and leaves none behind."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from encephalon.client import Brains, connect
from encephalon.core.errors import FailedPrecondition, NotFound, Unavailable
from encephalon.core.tasks import spawn
from encephalon.library.brains import Brain, load_manifest
from encephalon.local.decisions import decided
from encephalon.local.folders import Folders, runtime_folder
from encephalon.local.options import Options
from encephalon.local.plan import Site, commands
from encephalon.local.ports import free_address
from encephalon.local.process import Command, Process
from encephalon.local.runfile import ProcessEntry, RunFile, started_at
from encephalon.local.stores import check_key_value, forget, with_stored_weights

if TYPE_CHECKING:
    from encephalon.local.followed import FollowedBrain

__all__ = ["Supervisor", "supervised"]

POLL_S = 0.05
STOP_AFTER_S = 15.0  # longer than a coordinator whose lease ran out needs to be back
REFUSED_CODES = (1, 2)  # what our processes end with when they cannot run as they are told; anything else is a crash

Progress = Callable[[frozenset[str]], None]


class Supervisor:
    """The processes of a running brain. Made by `supervised`."""

    def __init__(self, record: RunFile, folder: Path, planned: list[Command], options: Options) -> None:
        self.record = record
        self._folder = folder
        self._start_timeout_s, self._drain_s = options.start_timeout_s, options.drain_s
        self.processes = [Process(command, self._write) for command in planned]
        self._keepers: dict[Process, asyncio.Task[None]] = {}
        self._needed: dict[str, Command] = {}
        self._unneeded: dict[str, asyncio.TimerHandle] = {}
        self._ending: set[str] = set()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def address(self) -> str:
        """host:port of the coordinator."""
        return self.record.address

    @property
    def brain(self) -> str:
        return self.record.brain

    @property
    def regions(self) -> int:
        """How many regions have processes."""
        return len({process.command.region for process in self.processes} - {""})

    def start(self) -> None:
        for process in self.processes:
            self._keep(process)

    def _keep(self, process: Process) -> None:
        keeper = asyncio.create_task(process.keep(), name=f"keep {process.command.name}")
        self._keepers[process] = keeper
        keeper.add_done_callback(self._kept)

    def _kept(self, keeper: asyncio.Task[None]) -> None:
        error = None if keeper.cancelled() else keeper.exception()
        if error is not None and not self._failed.done():
            self._failed.set_exception(error)

    def need(self, planned: Iterable[Command]) -> None:
        """From now on these processes of regions are needed: those that are missing are started at once, those that
        are too many are stopped after a while, in which a coordinator that was out of sight may still use them.
        """
        self._needed = commands = {command.name: command for command in planned}
        running = {process.command.name: process for process in self.processes if process.command.region}
        for name in commands:
            if timer := self._unneeded.pop(name, None):
                timer.cancel()
            if name not in running and name not in self._ending:
                self.processes.append(Process(commands[name], self._write))
                self._keep(self.processes[-1])
        for name, process in running.items():
            if name not in commands and name not in self._unneeded:
                timer = asyncio.get_running_loop().call_later(STOP_AFTER_S, self._end, process)
                self._unneeded[name] = timer

    def _end(self, process: Process) -> None:
        self._unneeded.pop(process.command.name, None)
        self._ending.add(process.command.name)
        self.processes.remove(process)
        spawn(f"stop {process.command.name}", self._stopped(process))

    async def _stopped(self, process: Process) -> None:
        await process.stop(self._drain_s)
        await self._keepers.pop(process)
        self._ending.discard(process.command.name)
        if process.command.name in self._needed:  # again, and now its socket is free
            self.need(self._needed.values())
        self._write()

    async def until_ready(self, progress: Progress = lambda ready: None) -> None:
        """Returns when the brain answers; raises what a process said when it refused to run.

        `progress` is told the names of the regions that are ready, whenever they are looked at.
        """
        within_s = self._start_timeout_s
        try:
            async with asyncio.timeout(within_s):
                await self._until_listening()
                async with connect(self.address) as brains:
                    await self._until_answering(brains, progress)
        except TimeoutError as error:
            raise Unavailable(
                f"brain '{self.brain}' was not ready within {within_s:.0f} s; its logs are in {self._folder / 'logs'}"
            ) from error
        self.record = self.record.updated(ready=True)
        self._write()

    async def forever(self) -> None:
        """Waits for what never comes, except for a failure of ours in keeping a process."""
        await asyncio.shield(self._failed)

    async def stop(self, grace_s: float) -> None:
        """From the outside in: the coordinator takes nothing new and finishes, then the regions do."""
        self._needed = {}
        for timer in self._unneeded.values():
            timer.cancel()
        outer, inner = self.processes[:1], self.processes[1:]
        for group in (outer, inner):
            await asyncio.gather(*(process.stop(grace_s) for process in group))
        await asyncio.gather(*self._keepers.values())

    def kill(self) -> None:
        """Ends every process at once."""
        for process in self._keepers:
            process.kill()

    async def _until_listening(self) -> None:
        host, _, port = self.address.rpartition(":")
        while True:
            self._raise_refusal()
            try:
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            except OSError:
                await asyncio.sleep(POLL_S)
            else:
                writer.close()
                return

    async def _until_answering(self, brains: Brains, progress: Progress) -> None:
        """A brain can answer without its optional senses; it is ready when all regions that are started here are."""
        while True:
            wanted = {process.command.region for process in self.processes} - {""}  # others, when the alias moves
            ready = await ready_regions(brains, self.brain)
            progress(ready)
            if wanted <= ready and await answers(brains, self.brain):
                return
            self._raise_refusal()
            await asyncio.sleep(POLL_S)

    def _raise_refusal(self) -> None:
        for process in self.processes:
            if process.exit_code in REFUSED_CODES:
                reason = process.last_words() or f"exit code {process.exit_code}"
                raise FailedPrecondition(f"{process.command.name} did not start: {reason} (log: {process.command.log})")

    def _write(self) -> None:
        entries = tuple(
            ProcessEntry(
                name=process.command.name,
                region=process.command.region,
                pid=process.pid,
                state=process.state,
                restarts=process.restarts,
                log=str(process.command.log),
                socket=process.command.socket,
            )
            for process in self.processes
        )
        self.record = self.record.updated(processes=entries)
        self.record.write(self._folder)


@asynccontextmanager
async def supervised(source: Path | str, options: Options) -> AsyncIterator[Supervisor]:
    """Runs a brain until the block ends: that of a manifest (a path), or one of the library (as NAME@ALIAS), which it
    follows then. `until_ready` of what it yields says when it answers.

    Raises the errors of `core.errors`, each a sentence that says what to do.
    """
    folders = Folders(options.state_dir)
    async with AsyncExitStack() as stack:
        if isinstance(source, Path):
            brain, followed = decided(load_manifest(source), options, source.parent), None
        else:
            from encephalon.local.followed import opened  # a manifest needs no library

            folders.prepare()
            followed = await stack.enter_async_context(opened(source, options, folders))
            brain = followed.first
        folders.prepare(brain.name)
        folder = folders.brain(brain.name)
        stack.enter_context(locked(folder, brain.name))
        runtime = stack.enter_context(runtime_folder())
        site = await prepared(brain, options, folders, runtime, followed)
        supervisor = Supervisor(record(brain, source, site, options), folder, commands(brain, site), options)
        supervisor.start()
        try:
            async with followed.keeping(supervisor.need, site) if followed is not None else nullcontext():
                yield supervisor
        finally:
            try:
                await supervisor.stop(options.drain_s)
            finally:
                RunFile.remove(folder)
            if not options.namespace:
                await forget(site.state, site.namespace)


async def prepared(
    brain: Brain, options: Options, folders: Folders, runtime: Path, followed: FollowedBrain | None
) -> Site:
    """Looks that the ports are free and the stores answer, and writes the manifest that the processes will read."""
    folder = folders.brain(brain.name)
    site = Site(
        manifest=folder / "brain.yaml",
        address=free_address(options.listen),
        metrics_port=options.metrics_port,
        state=options.state or folders.state_url,
        objects=options.objects or folders.objects_url,
        namespace=options.namespace or f"local-{secrets.token_hex(4)}",
        runtime=runtime,
        logs=folder / "logs",
        follow=followed.follows if followed is not None else "",
        library=options.library,
        options=followed.arguments if followed is not None else (),
    )
    await check_key_value(site.state)
    placed = await with_stored_weights(brain, site.objects) if options.objects and followed is None else brain
    site.manifest.write_text(placed.to_json() + "\n", encoding="utf-8")
    for log in site.logs.glob("*.log"):  # of the previous run
        log.unlink()
    return site


@contextmanager
def locked(folder: Path, brain: str) -> Iterator[None]:
    """One supervisor per brain and state folder. The kernel gives the lock back however its holder ends."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            record = RunFile.read(folder)
            where = f" as process {record.pid} on {record.address}" if record else ""
            raise FailedPrecondition(
                f"brain '{brain}' runs already{where}; `encephalon down {brain}` stops it; or use another --state-dir"
            ) from error
        yield


def record(brain: Brain, source: Path | str, site: Site, options: Options) -> RunFile:
    pid = os.getpid()
    return RunFile(
        brain=brain.name,
        pid=pid,
        started=started_at(pid) or 0.0,
        address=site.address,
        manifest=str(source.resolve() if isinstance(source, Path) else site.manifest),
        namespace=site.namespace,
        follows=site.follow,
        library=site.library if site.follow else "",
        stores=", ".join(without_secret(url) for url in (options.state, options.objects) if url),
    )


def without_secret(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


async def answers(brains: Brains, brain: str) -> bool:
    try:
        return await brains.ready(brain)
    except (NotFound, Unavailable):  # listening already, but not loaded yet
        return False


async def ready_regions(brains: Brains, brain: str) -> frozenset[str]:
    try:
        description = await brains.describe(brain)
    except (NotFound, Unavailable):  # listening already, but not loaded yet
        return frozenset()
    return frozenset(region.name for region in description.regions if region.ready)
