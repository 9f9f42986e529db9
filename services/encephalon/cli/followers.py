"""Brains that run here and follow the library: which one is meant, and waiting until it serves another version."""

from __future__ import annotations

import asyncio
from pathlib import Path

from encephalon.cli.library.place import Place
from encephalon.client import BrainDescription, connect
from encephalon.core.errors import EncephalonError, FailedPrecondition, NotFound
from encephalon.local import Folders, RunFile, default_state_dir, running_brains

__all__ = ["NotServed", "follower", "follower_named", "place_of", "until_served"]

LOOK_S = 0.1
ANSWER_S = 5.0


class NotServed(FailedPrecondition):
    """The version is not in service, and why."""


def running_here(state_dir: Path | None) -> list[RunFile]:
    return running_brains(Folders(state_dir or default_state_dir()))


def follower(brain: str | None, state_dir: Path | None) -> RunFile:
    """The brain of this name, or the only one. NotFound when there is none; FailedPrecondition when it follows none."""
    records = running_here(state_dir)
    chosen = [record for record in records if brain in (None, record.brain)]
    names = ", ".join(record.brain for record in records)
    if not chosen:
        what = f"brain '{brain}' does not run here" if brain else "no brain runs here"
        raise NotFound(f"{what}; {f'running: {names}' if names else 'start one with `encephalon up NAME`'}")
    if len(chosen) > 1:
        raise NotFound(f"several brains run here; say which with --brain: {names}")
    (record,) = chosen
    if not record.follows:
        raise FailedPrecondition(
            f"brain '{record.brain}' runs from the file {record.manifest}; "
            "add it with `encephalon library add`, and run it from the library"
        )
    return record


def follower_named(brain: str, follows: str, state_dir: Path | None) -> RunFile | None:
    """The brain that runs here and follows this reference, if there is one."""
    records = running_here(state_dir)
    return next((record for record in records if (record.brain, record.follows) == (brain, follows)), None)


def place_of(record: RunFile, place: Place) -> Place:
    """The library that a running brain follows. FailedPrecondition when its stores must be named."""
    if record.stores and not (place.etcd or place.minio):
        raise FailedPrecondition(
            f"brain '{record.brain}' runs on {record.stores}; give --etcd and --minio as it was started with"
        )
    return Place(place.state_dir, place.etcd, place.minio, record.library)


async def until_served(record: RunFile, version: int, timeout_s: float) -> None:
    """Returns when requests run on this version. NotServed, with the reason, when they cannot, or not in time."""
    reason = "its coordinator does not answer"
    try:
        async with asyncio.timeout(timeout_s), connect(record.address, timeout=ANSWER_S) as brains:
            while True:
                try:
                    found = await brains.describe(record.brain)
                except EncephalonError as error:
                    reason = error.message
                else:
                    reason = why_not(found, str(version))
                    if not reason:
                        return
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        raise NotServed(f"version {version} is not in service after {timeout_s:g} s: {reason}") from None


def why_not(found: BrainDescription, version: str) -> str:
    """Empty when the version is in service. NotServed when a region cannot load it."""
    if found.version == version:
        return ""
    pending = found.pending
    if pending is None or pending.version != version:
        return f"version {found.version} is in service"
    if pending.failed:
        raise NotServed(f"version {version} cannot be served: {pending.waits_for}")
    return pending.waits_for
