"""One record that is to be added: checked before the library is opened, done when it is open."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from encephalon.api.library.v1 import library_pb2 as pb

if TYPE_CHECKING:
    from encephalon.library.library import Library

__all__ = ["Added", "Options", "Plan"]

Options = Mapping[str, Any]
"""What was typed that belongs to one kind only; None, empty or False for what was not."""


class Added(NamedTuple):
    """The new version, or the one there is that says the same; and what is to be said about the source."""

    record: pb.Record
    notes: list[str]


@dataclass(frozen=True, slots=True)
class Plan:
    kind: str
    name: str
    add: Callable[[Library], Awaitable[Added]]
