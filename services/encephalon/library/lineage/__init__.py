"""What a record was made from and what was made from it: a graph, trees, a picture. Reads, never writes."""

from encephalon.library.lineage.drawing import svg
from encephalon.library.lineage.graph import Edge, Graph, Node
from encephalon.library.lineage.tree import Branch, Trees, tree
from encephalon.library.lineage.walk import lineage

__all__ = ["Branch", "Edge", "Graph", "Node", "Trees", "lineage", "svg", "tree"]
