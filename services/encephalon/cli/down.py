"""`encephalon down`: stops brains that run on this machine."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from encephalon.core.errors import NotFound
from encephalon.local import Folders, default_state_dir, running_brains, stop

__all__ = ["run"]

PATIENCE_S = 60.0  # the coordinator and then the regions may drain for 10 s each; a slow machine needs more


def run(brain: str | None, state_dir: Path | None) -> None:
    """Stops the brain, or all of them; NotFound when the one that was named does not run."""
    records = running_brains(Folders(state_dir or default_state_dir()))
    chosen = [record for record in records if brain in (None, record.brain)]
    if brain is not None and not chosen:
        names = ", ".join(record.brain for record in records)
        raise NotFound(f"brain '{brain}' does not run here; {f'running: {names}' if names else 'no brain does'}")
    for record in chosen:
        asyncio.run(stop(record, PATIENCE_S))
        sys.stdout.write(f"Brain '{record.brain}' has stopped.\n")
    if not chosen:
        sys.stdout.write("No brain runs here.\n")
