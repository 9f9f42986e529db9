"""A process of a run that only pretends: which one follows from its arguments, what it does from `PRETENDED_<ROLE>`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path


def once(folder: Path) -> bool:
    """True in the first life of a process."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        (folder / "lived").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def main() -> int:
    reader = argparse.ArgumentParser()
    for name in ("run", "listen", "folder", "metrics-port", "shard", "worker", "region", "grace-s"):
        reader.add_argument(f"--{name}")
    given = reader.parse_args()
    role = "region" if given.region else "worker" if given.worker else "shard" if given.shard else "controller"
    how = os.environ.get(f"PRETENDED_{role.upper()}", "succeed")
    if how == "refuse":
        sys.stderr.write(f"this {role} has another world in mind\n")
        return 2
    if how == "crash-once" and once(Path(given.folder)):
        os.kill(os.getpid(), signal.SIGKILL)
    if role == "controller":
        import asyncio  # the others need nothing that takes long to import

        from tests.unit.local.training.controlling import control

        asyncio.run(control(given.run, how))
    elif how != "finish":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
