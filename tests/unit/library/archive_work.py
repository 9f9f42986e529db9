"""What the children of the archive's tests do, each a job of `tests.forks`."""

from __future__ import annotations

from pathlib import Path

import encephalon.library.archive
import encephalon.state.folder
import encephalon.state.sqlite  # noqa: F401
from encephalon.library.archive import import_
from tests.chaos.library_work import library_at
from tests.dying import Doom, When

__all__ = ["take_in"]


async def take_in(
    state: str, objects: str, path: str, call: int = 0, when: When = "before", doom: Doom | None = None
) -> None:
    async with library_at(state, objects, call, when, doom) as library:
        await import_(library, Path(path))
