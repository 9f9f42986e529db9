"""`encephalon library watch`: what changes, as it happens."""

from __future__ import annotations

import contextlib
import sys
from datetime import datetime
from typing import TYPE_CHECKING

from encephalon.cli.library.place import Place, run
from encephalon.cli.library.printing import print_line
from encephalon.library.records import kind_named

if TYPE_CHECKING:
    from encephalon.library.library import Library
    from encephalon.library.store.watching import LibraryEvent

__all__ = ["watched"]


def watched(place: Place, kind: str | None, *, as_json: bool) -> None:
    """Ends by a signal, which is the expected end and no failure."""
    wanted = kind_named(kind) if kind is not None else None

    async def work(library: Library) -> None:
        async with contextlib.aclosing(library.watch(wanted)) as events:
            async for event in events:
                tell(event, as_json=as_json)

    with contextlib.suppress(KeyboardInterrupt):
        run(place, work)


def tell(event: LibraryEvent, *, as_json: bool) -> None:
    now = datetime.now().astimezone()
    if as_json:
        facts = {"kind": event.kind, "name": event.name, "version": event.version, "alias": event.alias}
        said = {name: value for name, value in facts.items() if value}
        print_line({"time": now.isoformat(timespec="milliseconds"), "what": event.what, **said})
    elif event.what == "watching":
        sys.stderr.write("Watching; Ctrl-C ends it.\n")
    else:
        sys.stdout.write(f"{now:%H:%M:%S}  {event.what:<13}  {sentence(event)}\n")
        sys.stdout.flush()


def sentence(event: LibraryEvent) -> str:
    where = f" -> {event.kind}:{event.name}@{event.version}" if event.alias and event.version else ""
    return f"{event.reference}{where}"
