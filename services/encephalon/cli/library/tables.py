"""Tables as all commands draw them: without lines, so that they fit 80 characters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.table import Table
from rich.text import Text

__all__ = ["facts", "titled"]


def titled(
    title: str, headings: Sequence[str], rows: Iterable[Sequence[str | Text]], right: Sequence[str] = ()
) -> Table:
    """A table; the columns named in `right` hold numbers."""
    found = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        found.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    for row in rows:
        found.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return found


def facts(found: Mapping[str, str]) -> Table:
    """Name and value, a line each; what is empty is left out."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, value in found.items():
        if value:
            table.add_row(name, Text(value))
    return table
