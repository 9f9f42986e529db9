"""How a long job tells what it does, without knowing who listens."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "silent"]


class Progress(Protocol):
    """Called often; must return quickly. `total` is None while the end is unknown; the units are those of `what`
    (files, pairs, bytes)."""

    def __call__(self, what: str, done: int, total: int | None, /) -> None: ...


def silent(what: str, done: int, total: int | None, /) -> None:
    """Tells nobody."""
