"""Shows on stderr how a run goes: a picture on a terminal, lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.live import Live
from rich.text import Text

from encephalon.api.training.v1.training_pb2 import RunStatus
from encephalon.cli.training.events import events
from encephalon.cli.training.picture import Picture

__all__ = ["Screen", "shown"]

REFRESHES_PER_SECOND = 8


class Screen:
    """`say` writes a line of what happens; `tell` takes a status."""

    def __init__(self, say: Callable[[str], None], draw: Callable[[RunStatus], None]) -> None:
        self.say = say
        self.last: RunStatus | None = None
        self._draw = draw

    def tell(self, status: RunStatus) -> None:
        for event in events(self.last, status):
            self.say(f"{timedelta(seconds=round(status.seconds))} {event}")
        self.last = status
        self._draw(status)


@contextmanager
def shown(run: str) -> Iterator[Screen]:
    console = Console(stderr=True, highlight=False)

    def say(line: str) -> None:
        console.print(Text(line), soft_wrap=True)

    if not console.is_terminal:
        say(f"Run '{run}' starts ...")
        yield Screen(say, lambda status: None)
        return
    picture = Picture()
    with Live(
        Text(f"Run '{run}' starts ..."), console=console, transient=True, refresh_per_second=REFRESHES_PER_SECOND
    ) as live:
        yield Screen(say, lambda status: live.update(picture.drawn(status)))
