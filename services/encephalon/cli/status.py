"""`encephalon status`: which brains run here, and how their regions fare."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from encephalon.cli import screen
from encephalon.client import BrainDescription, PendingVersion, RegionDescription, ReplicaDescription, connect
from encephalon.core.errors import EncephalonError
from encephalon.local import Folders, ProcessEntry, RunFile, default_state_dir, running_brains

__all__ = ["run"]

PATIENCE_S = 3.0
STYLES = {"ready": "green", "restarting": "yellow", "starting": "yellow", "draining": "yellow", "ejected": "red"}


def run(state_dir: Path | None, *, as_json: bool) -> None:
    folder = state_dir or default_state_dir()
    brains = asyncio.run(look(running_brains(Folders(folder))))
    if as_json:
        sys.stdout.write(json.dumps({"brains": [plain(record, found) for record, found in brains]}, indent=2) + "\n")
    elif not brains:
        sys.stdout.write(f"No brain runs here (state folder {folder}).\n")
    console = screen.output()
    for record, found in brains if not as_json else []:
        console.print(table(record, found))
        if found is not None and found.pending is not None:
            console.print(next_version(found.pending), markup=False, soft_wrap=True)


async def look(records: list[RunFile]) -> list[tuple[RunFile, BrainDescription | None]]:
    return list(zip(records, await asyncio.gather(*(describe(record) for record in records)), strict=True))


async def describe(record: RunFile) -> BrainDescription | None:
    """None while the coordinator does not answer, for example because it is being started again."""
    try:
        async with connect(record.address, timeout=PATIENCE_S) as brains:
            return await brains.describe(record.brain)
    except EncephalonError:
        return None


def plain(record: RunFile, found: BrainDescription | None) -> dict[str, Any]:
    regions = [asdict(region) for region in found.regions] if found else []
    version = {"version": found.version, "pending": found.pending and asdict(found.pending)} if found else {}
    return {**asdict(record), "answering": found is not None, **version, "regions": regions}


def next_version(pending: PendingVersion) -> str:
    how = "cannot be served" if pending.failed else "is next"
    return f"Version {pending.version} {how}: {pending.waits_for}."


def title_of(record: RunFile, found: BrainDescription | None) -> str:
    state = ("ready" if record.ready else "starting") if found else "not answering"
    version = f"version {found.version} of {record.follows}, " if found and record.follows else ""
    return f"Brain '{record.brain}' on {record.address}, {version}process {record.pid}, {state}"


def table(record: RunFile, found: BrainDescription | None) -> Table:
    # Without lines and with one space between columns it fits 80 characters.
    drawn = Table(title=title_of(record, found), title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("region", "state", "pid", "address", "breaker"):
        drawn.add_column(heading, overflow="fold", no_wrap=heading == "address")
    for heading in ("p50/p99 ms", "requests", "restarts"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    processes = {entry.socket: entry for entry in record.processes}
    coordinator = next((entry for entry in record.processes if not entry.region), None)
    for region in found.regions if found else ():
        for replica in region.replicas:
            entry = processes.pop(replica.local_address.removeprefix("unix:"), None)
            drawn.add_row(*replica_row(region, replica, entry or coordinator))
        if not region.replicas:
            drawn.add_row(region.name, "absent", "", "", region.breaker, *figures(region), "")
    for entry in processes.values():
        if entry.region:
            drawn.add_row(entry.region, styled(entry.state), str(entry.pid or ""), *[""] * 4, str(entry.restarts))
    if coordinator:
        shown = (styled(coordinator.state), str(coordinator.pid or ""), record.address)
        drawn.add_row("coordinator", *shown, *[""] * 3, str(coordinator.restarts))
    return drawn


def replica_row(region: RegionDescription, replica: ReplicaDescription, entry: ProcessEntry | None) -> list[str]:
    state = "ejected" if replica.ejected else replica.state
    pid, restarts = (str(entry.pid or ""), str(entry.restarts)) if entry else ("", "")
    return [
        region.name,
        styled(state),
        pid,
        replica.address,
        region.breaker,
        *figures(region),
        restarts,
    ]


def figures(region: RegionDescription) -> list[str]:
    return [f"{region.p50_ms:.1f}/{region.p99_ms:.1f}", str(region.requests)]


def styled(state: str) -> str:
    style = STYLES.get(state)
    return f"[{style}]{state}[/{style}]" if style else state
