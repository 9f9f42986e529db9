"""A lineage as two trees that start at the record: what a terminal can draw."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from encephalon.library.lineage.graph import Edge, Graph
from encephalon.library.records import Reference

__all__ = ["Branch", "Trees", "tree"]


@dataclass(frozen=True, slots=True)
class Branch:
    reference: Reference
    role: str
    """What the parent of the two was to its child."""
    missing: bool
    """Named by another record, and not in the library."""
    again: bool
    """It stands elsewhere in this tree, with its branches; here it has none."""
    branches: Sequence[Branch]

    def document(self) -> dict[str, object]:
        marks = {word: True for word, holds in (("missing", self.missing), ("again", self.again)) if holds}
        rest = {"branches": [branch.document() for branch in self.branches]} if self.branches else {}
        return {"record": str(self.reference), "role": self.role, **marks, **rest}


@dataclass(frozen=True, slots=True)
class Trees:
    root: Reference
    made_from: Sequence[Branch]
    made_into: Sequence[Branch]
    truncated: bool

    def document(self) -> dict[str, object]:
        """For JSON."""
        return {
            "record": str(self.root),
            "made_from": [branch.document() for branch in self.made_from],
            "made_into": [branch.document() for branch in self.made_into],
            "truncated": self.truncated,
        }


def tree(graph: Graph) -> Trees:
    """Every record's branches once, where it is nearest to the root: so no tree is deeper than the lineage, however
    long the chain of versions is, no graph grows, and no circle of a damaged library turns for ever.
    """
    above, below = defaultdict[Reference, list[Edge]](list), defaultdict[Reference, list[Edge]](list)
    for edge in graph.edges:
        above[edge.child].append(edge)
        below[edge.parent].append(edge)
    return Trees(
        graph.root,
        _grown(graph, above, upwards=True),
        _grown(graph, below, upwards=False),
        graph.truncated,
    )


def _grown(graph: Graph, edges: Mapping[Reference, Sequence[Edge]], *, upwards: bool) -> Sequence[Branch]:
    def end(edge: Edge) -> Reference:
        return edge.parent if upwards else edge.child

    nearest: dict[Reference, Edge | None] = {graph.root: None}
    pending = deque([graph.root])
    while pending:
        for edge in edges.get(pending.popleft(), ()):
            if end(edge) not in nearest:
                nearest[end(edge)] = edge
                pending.append(end(edge))

    def branches(reference: Reference) -> Sequence[Branch]:
        return [branch(end(edge), edge) for edge in edges.get(reference, ())]

    def branch(reference: Reference, edge: Edge) -> Branch:
        again = nearest[reference] is not edge
        missing = graph.nodes[reference].summary is None
        return Branch(reference, edge.role, missing, again, () if again else branches(reference))

    return branches(graph.root)
