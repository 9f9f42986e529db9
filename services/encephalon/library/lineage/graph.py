"""Records and what connects them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.library.records import Reference

__all__ = ["Edge", "Graph", "Node"]


@dataclass(frozen=True, slots=True)
class Node:
    reference: Reference
    """With kind and number."""
    summary: pb.Summary | None
    """None where another record names it and it is not there, which `library verify` explains."""


@dataclass(frozen=True, slots=True)
class Edge:
    parent: Reference
    child: Reference
    role: str
    """What the parent was to the child, for example "data_set"."""


@dataclass(frozen=True, slots=True)
class Graph:
    root: Reference
    """Whose lineage it is."""
    nodes: Mapping[Reference, Node]
    """The root first, then by their distance from it."""
    edges: Sequence[Edge]
    """All that connect two of the nodes, each once."""
    truncated: bool
    """There are more records than the depth or the limit allowed."""
