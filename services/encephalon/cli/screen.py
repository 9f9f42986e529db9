"""The terminal: results go to stdout, everything about how things go to stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

__all__ = ["bar", "can_draw", "output", "starting"]

PAGE = 120  # characters in a line of a file


def output() -> Console:
    """Where results go. Off a terminal it is as wide as a page, so that no table is cut in a file."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=console.width if columns_set() else PAGE)


def columns_set() -> bool:
    import os

    return os.environ.get("COLUMNS", "").isdecimal()


def can_draw(console: Console) -> bool:
    """Whether the terminal's encoding has blocks and ticks."""
    return console.encoding.lower().replace("-", "").startswith("utf")


@contextmanager
def bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr that goes away; off a terminal a line at the beginning and one at the end.

    Yields what is to be told how many are done.
    """
    console = Console(stderr=True, highlight=False)
    began = time.monotonic()
    if not console.is_terminal:
        console.print(f"{title} ...", soft_wrap=True)
        yield lambda done: None
        console.print(f"{title}: done after {time.monotonic() - began:.1f} s", soft_wrap=True)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.update(task, completed=done)


@contextmanager
def starting(brain: str, regions: int) -> Iterator[Callable[[frozenset[str]], None]]:
    """Shows how many regions are ready; yields what `local.supervised` calls."""
    with bar(f"Starting '{brain}'", regions) as update:
        yield lambda ready: update(min(regions, len(ready)))
