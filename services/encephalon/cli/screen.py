"""The terminal: results go to stdout, everything about how things go to stderr."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.text import Text

__all__ = ["Steps", "Told", "bar", "can_draw", "counter", "output", "starting", "steps", "transfer"]

Told = Callable[[int, int | None], None]
"""How much is done, and of how much; None while that is unknown."""

Steps = Callable[[str, int, int | None], None]
"""What is being done, how much of it is done, and of how much."""

PAGE = 120  # characters in a line of a file


def output() -> Console:
    """Where results go. Off a terminal it is as wide as a page, so that no table is cut in a file."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=console.width if columns_set() else PAGE)


def columns_set() -> bool:
    return os.environ.get("COLUMNS", "").isdecimal()


def can_draw(console: Console) -> bool:
    """Whether the terminal's encoding has blocks and ticks."""
    return console.encoding.lower().replace("-", "").startswith("utf")


@contextmanager
def bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr that goes away; off a terminal a line at the beginning and one at the end.

    Yields what is to be told how many are done.
    """
    with drawn(title, total, MofNCompleteColumn()) as told:
        yield lambda done: told(done, total)


@contextmanager
def transfer(title: str) -> Iterator[Told]:
    """The same for bytes that move: how many, and how fast."""
    with drawn(title, None, DownloadColumn(binary_units=True), TransferSpeedColumn()) as told:
        yield told


@contextmanager
def counter(title: str) -> Iterator[Told]:
    """The same for things that are counted while they are found."""
    with drawn(title, None, MofNCompleteColumn()) as told:
        yield told


@contextmanager
def steps(title: str) -> Iterator[Steps]:
    """A bar for every thing that a long job says it does; may be told from other threads."""
    with drawing(title, AmountColumn()) as progress:
        tasks: dict[str, TaskID] = {}

        def told(what: str, done: int, total: int | None) -> None:
            if progress is not None:
                if what not in tasks:
                    tasks[what] = progress.add_task(what, total=total)
                progress.update(tasks[what], completed=done, total=total)

        yield told


class AmountColumn(MofNCompleteColumn):
    """A number of whatever is done, and bytes of what is downloaded."""

    def __init__(self) -> None:
        super().__init__()
        self._bytes = DownloadColumn(binary_units=True)

    def render(self, task: Task) -> Text:
        downloading = task.description.startswith("downloading ")
        return self._bytes.render(task) if downloading else super().render(task)


@contextmanager
def drawn(title: str, total: int | None, *amounts: ProgressColumn) -> Iterator[Told]:
    """One bar."""
    with drawing(title, *amounts) as progress:
        task = progress.add_task(title, total=total) if progress is not None else None

        def told(done: int, total: int | None) -> None:
            if progress is not None and task is not None:
                progress.update(task, completed=done, total=total)

        yield told


@contextmanager
def drawing(title: str, *amounts: ProgressColumn) -> Iterator[Progress | None]:
    """Where bars are drawn; None off a terminal, where two lines must do."""
    console = Console(stderr=True, highlight=False)
    began = time.monotonic()
    if not console.is_terminal:
        console.print(f"{title} ...", soft_wrap=True, markup=False)
        yield None
        console.print(f"{title}: done after {time.monotonic() - began:.1f} s", soft_wrap=True, markup=False)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *amounts,
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield progress


@contextmanager
def starting(brain: str, regions: int) -> Iterator[Callable[[frozenset[str]], None]]:
    """Shows how many regions are ready; yields what `local.supervised` calls."""
    with bar(f"Starting '{brain}'", regions) as update:
        yield lambda ready: update(min(regions, len(ready)))
