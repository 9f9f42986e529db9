"""A system under test: how it is installed, started alone, and asked."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["Endpoint", "System"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and how the client asks; `protocol`, `model` and `metadata` as in `load.Order`."""

    protocol: str
    address: str
    model: str
    metadata: list[tuple[str, str]] = field(default_factory=list)


class System(Protocol):
    """One way to serve the graph."""

    name: str
    title: str

    def prepare(self) -> str:
        """Installs what is missing and returns the version, for the report."""
        ...

    def running(self) -> AbstractContextManager[Endpoint]:
        """Serves the graph, ready to be asked, until the block ends."""
        ...
