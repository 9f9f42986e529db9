"""`encephalon up`: a brain in the foreground, or one that stays when the command has returned."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from encephalon.cli import interrupts, screen
from encephalon.cli.addresses import etcd_address, minio_address
from encephalon.cli.interrupts import Interrupts
from encephalon.core.errors import EncephalonError, FailedPrecondition, InvalidInput
from encephalon.library.brains import load_manifest
from encephalon.library.brains.manifest import NAME
from encephalon.library.records import Reference
from encephalon.local import Folders, Options, Placement, RunFile, default_state_dir, supervised

__all__ = ["detached", "foreground", "options"]

POLL_S = 0.1
MANIFESTS = (".yaml", ".yml", ".json")


def options(
    *,
    listen: str,
    colocated: bool,
    distributed: bool,
    replicas: Sequence[str],
    etcd: str | None,
    minio: str | None,
    namespace: str | None,
    state_dir: Path | None,
    metrics_port: int,
    start_timeout_s: float,
) -> Options:
    """From what was typed; InvalidInput for what cannot be meant."""
    if colocated and distributed:
        raise InvalidInput(
            "--colocated and --distributed exclude each other; give one, or neither to follow the manifest"
        )
    placement: Placement | None = "colocated" if colocated else "distributed" if distributed else None
    return Options(
        listen=listen,
        placement=placement,
        replicas=dict(replica_count(item) for item in replicas),
        state=etcd_address(etcd) if etcd else "",
        objects=minio_address(minio) if minio else "",
        namespace=namespace or "",
        state_dir=state_dir or default_state_dir(),
        metrics_port=metrics_port,
        start_timeout_s=start_timeout_s,
        library=namespace or "default",
    )


def replica_count(item: str) -> tuple[str, int]:
    region, separator, count = item.partition("=")
    if not region or not separator or not count.isdecimal():
        raise InvalidInput(f"--replicas {item} cannot be read; write it as --replicas visual=2")
    return region, int(count)


def source_of(brain: str) -> Path | str:
    """A manifest, if there is such a file or it is called like one; else a brain of the library."""
    path = Path(brain)
    written_as_file = path.suffix.lower() in MANIFESTS or (os.sep in brain and path.exists())
    return path if path.is_file() or written_as_file else brain


def runnable(name: str) -> str:
    """The name of a folder and of processes as well; a library allows more."""
    if not re.fullmatch(NAME, name):
        raise InvalidInput(f"'{name}' is no name of a brain that can run; add it to the library under a plain one")
    return name


def foreground(brain: str, chosen: Options) -> None:
    """Runs until Ctrl-C or SIGTERM, which is the expected end and no failure."""
    from encephalon.core import logs

    logs.configure(level="ERROR")  # until it is up, what hinders is said in one sentence
    up = False

    async def command(interrupted: Interrupts) -> None:
        nonlocal up
        async with supervised(source_of(brain), chosen) as supervisor:
            interrupted.hurry = supervisor.kill
            with screen.starting(supervisor.brain, supervisor.regions) as progress:
                await supervisor.until_ready(progress)
            up = True
            logs.configure(level="WARNING")
            announce(supervisor.record)
            await supervisor.forever()

    try:
        interrupts.run(command)
    except KeyboardInterrupt:
        if not up:
            raise


def announce(record: RunFile) -> None:
    sys.stdout.write(f"{named(record)} answers on {record.address}; Ctrl-C stops it.\n")
    sys.stdout.flush()


def named(record: RunFile) -> str:
    follows = f", which follows {record.follows} of the library," if record.follows else ""
    return f"Brain '{record.brain}'{follows}"


def detached(brain: str, chosen: Options, arguments: Sequence[str]) -> None:
    """Starts this command again as a session of its own and returns when its brain is ready."""
    source = source_of(brain)
    name = load_manifest(source).name if isinstance(source, Path) else runnable(Reference.parse(source, "brain").name)
    folders = Folders(chosen.state_dir)
    folders.prepare(name)
    folder = folders.brain(name)
    output = folder / "supervisor.log"
    with output.open("ab") as log:  # should one run already, its log stays
        before = log.tell()
        child = subprocess.Popen(
            [sys.executable, "-m", "encephalon.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        with screen.bar(f"Starting '{name}'", None):
            record = asyncio.run(until_ready(child, folder))
    except KeyboardInterrupt:
        child.terminate()
        raise
    if record is None:
        raise refusal(child.wait(), output.read_bytes()[before:])
    where = f"{record.address} (process {record.pid})"
    sys.stdout.write(f"{named(record)} answers on {where}; `encephalon down {record.brain}` stops it.\n")


async def until_ready(child: subprocess.Popen[bytes], folder: Path) -> RunFile | None:
    """Waits for the record that the child writes; None when it has ended. The child bounds its own start."""
    while child.poll() is None:
        record = RunFile.read(folder)
        if record is not None and record.pid == child.pid and record.ready:
            return record
        await asyncio.sleep(POLL_S)
    return None


def refusal(code: int, output: bytes) -> EncephalonError:
    """What the child said when it ended."""
    said = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
    reason = said[-1].removeprefix("encephalon: ") if said else f"it ended with code {code}"
    return InvalidInput(reason) if code == 2 else FailedPrecondition(reason)
