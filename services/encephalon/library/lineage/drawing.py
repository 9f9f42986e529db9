"""A lineage as a picture: SVG that stands alone, for light and dark surroundings, without script or fonts of its own.

From left to right: what something was made from, and what was made of it. Edges with the same role arrive together
and are named once.
"""

from __future__ import annotations

import html
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from encephalon.library.lineage.graph import Edge, Graph, Node
from encephalon.library.lineage.layers import Layered, Place, layered, spread
from encephalon.library.lineage.letters import cut, width
from encephalon.library.lineage.style import STYLE
from encephalon.library.records import KINDS, Reference

__all__ = ["svg"]

TITLE_PX, DETAIL_PX, ROLE_PX = 13.0, 11.0, 10.5
MARGIN: Final = 28.0
HEADER: Final = 74.0
BOX: Final = 50.0
PORT: Final = 17.0
"""The distance of two roles that arrive at one box."""
PASSAGE: Final = 12.0
GAP: Final = 16.0
INSIDE: Final = 14.0
MAX_TEXT: Final = 250.0
BETWEEN: Final = 70.0
"""Between the layers, beside the names of the roles."""


def svg(graph: Graph) -> str:
    """The whole file as text."""
    return _Drawing(graph).document()


@dataclass(slots=True)
class _Box:
    node: Node
    roles: list[str]
    """Of what arrives, each once; from above."""
    title: str
    detail: str
    x: float = 0.0
    middle: float = 0.0
    width: float = 0.0

    @property
    def height(self) -> float:
        return max(BOX, PORT * len(self.roles) + 12)

    @property
    def right(self) -> float:
        return self.x + self.width

    def port(self, role: str) -> float:
        """Where a role arrives, from above."""
        return self.middle + (self.roles.index(role) - (len(self.roles) - 1) / 2) * PORT


@dataclass(slots=True)
class _Column:
    x: float = 0.0
    width: float = 0.0
    roles: float = field(default=0.0)
    """The width of the names of the roles that stand before it."""


class _Drawing:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._edges = list(graph.edges)
        self._layered: Layered = layered(list(graph.nodes), [(edge.parent, edge.child) for edge in graph.edges])
        self._boxes = {node.reference: _box(node) for node in graph.nodes.values()}
        self._middles = self._place()
        self._columns = self._arrange()

    def document(self) -> str:
        boxes = self._boxes.values()
        legend = list(self._legend())
        right = max([box.right for box in boxes] + [self._legend_width(), width(self._heading, 16.5)])
        bottom = max(box.middle + box.height / 2 for box in boxes)
        across, down = right + MARGIN, bottom + MARGIN
        name = _text(f"Lineage of {self._graph.root}")
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="lineage" role="img" width="{across:.0f}" '
            f'height="{down:.0f}" viewBox="0 0 {across:.0f} {down:.0f}">',
            f"<title>{name}</title><style>{STYLE}</style>",
            '<rect class="paper" width="100%" height="100%"/>',
            f'<text class="head" x="{MARGIN}" y="34">{_text(self._heading)}</text>',
            *legend,
            *self._lines(),
            *(self._drawn(box) for box in boxes),
            *self._roles(),
            "</svg>",
        ]
        return "\n".join(parts) + "\n"

    @property
    def _heading(self) -> str:
        return f"Lineage of {cut(str(self._graph.root), 600, 16.5)}"

    def _place(self) -> Mapping[Place, float]:
        """Places all from above, with the roles of each box in the order in which their parents lie."""
        for edge in self._edges:
            roles = self._boxes[edge.child].roles
            if edge.role not in roles:
                roles.append(edge.role)
        middles = spread(self._layered, self._height, GAP)
        top = min((middle - self._height(place) / 2 for place, middle in middles.items()), default=0.0)
        for place, middle in middles.items():
            if place.node is not None:
                self._boxes[place.node].middle = middle - top + HEADER
        means = defaultdict[tuple[Reference, str], list[float]](list)
        for edge in self._edges:
            means[edge.child, edge.role].append(self._boxes[edge.parent].middle)
        for reference, box in self._boxes.items():
            box.roles.sort(key=lambda role, of=reference: sum(means[of, role]) / len(means[of, role]))  # type: ignore[misc]
        return {place: middle - top + HEADER for place, middle in middles.items()}

    def _height(self, place: Place) -> float:
        return PASSAGE if place.node is None else self._boxes[place.node].height

    def _arrange(self) -> Sequence[_Column]:
        columns = [_Column() for _ in self._layered.layers]
        for layer, column in zip(self._layered.layers, columns, strict=True):
            inside = [self._boxes[place.node] for place in layer if place.node is not None]
            column.width = max((_box_width(box) for box in inside), default=0.0)
            column.roles = max((width(_words(role), ROLE_PX) for box in inside for role in box.roles), default=0.0)
        x = MARGIN
        for i, (layer, column) in enumerate(zip(self._layered.layers, columns, strict=True)):
            x += column.roles + BETWEEN if i else 0.0
            column.x = x
            for place in layer:
                if place.node is not None:
                    self._boxes[place.node].x, self._boxes[place.node].width = x, column.width
            x += column.width
        return columns

    def _lines(self) -> Iterator[str]:
        for edge in self._edges:
            path = self._layered.paths.get((edge.parent, edge.child))
            what = _text(f"{edge.parent} is the {edge.role.replace('_', ' ')} of {edge.child}")
            line = self._line(edge, path) if path else self._back(edge)
            yield f'<path class="edge {edge.parent.kind}-line" d="{line}"><title>{what}</title></path>'

    def _line(self, edge: Edge, path: Sequence[Place]) -> str:
        parent, child = self._boxes[edge.parent], self._boxes[edge.child]
        points = [(parent.right, parent.right, parent.middle)]
        for place in path[1:-1]:
            column = self._columns[place.layer]
            points.append((column.x, column.x + column.width, self._middles[place]))
        label = self._columns[path[-1].layer].roles + 14
        points.append((child.x - label, child.x - 5, child.port(edge.role)))
        line = f"M{points[0][1]:.1f} {points[0][2]:.1f}"
        for (_, from_x, from_y), (to_x, along_x, to_y) in pairwise(points):
            bend = (from_x + to_x) / 2
            line += f"C{bend:.1f} {from_y:.1f} {bend:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}H{along_x:.1f}"
        return line

    def _back(self, edge: Edge) -> str:
        """An edge that closes a circle, in a damaged library: around above both."""
        parent, child = self._boxes[edge.parent], self._boxes[edge.child]
        y, low = parent.middle, child.port(edge.role)
        return (
            f"M{parent.right:.1f} {y:.1f}C{parent.right + 60:.1f} {y - 70:.1f} {child.x - 60:.1f} {low - 70:.1f} "
            f"{child.x - 5:.1f} {low:.1f}"
        )

    def _roles(self) -> Iterator[str]:
        for box in self._boxes.values():
            for role in box.roles:
                y = box.port(role)
                yield f'<path class="tip" d="M{box.x - 1:.1f} {y:.1f}l-7 -3.8v7.6z"/>'
                word = _text(_words(role))
                yield f'<text class="role" x="{box.x - 12:.1f}" y="{y - 4:.1f}" text-anchor="end">{word}</text>'

    def _drawn(self, box: _Box) -> str:
        reference = box.node.reference
        classes = ["node"] + ["root"] * (reference == self._graph.root) + ["missing"] * (box.node.summary is None)
        top, down = box.middle - box.height / 2, box.height
        x, middle = box.x + INSIDE + 4, box.middle
        return (
            f'<g class="{" ".join(classes)}"><title>{_text(_hint(box.node))}</title>'
            f'<rect class="box {reference.kind}-line" x="{box.x:.1f}" y="{top:.1f}" width="{box.width:.1f}" '
            f'height="{down:.1f}" rx="7"/>'
            f'<rect class="{reference.kind}-fill" x="{box.x + 4:.1f}" y="{top + 7:.1f}" width="4" '
            f'height="{down - 14:.1f}" rx="2"/>'
            f'<text class="title" x="{x:.1f}" y="{middle - 3:.1f}">{_text(box.title)}</text>'
            f'<text class="detail" x="{x:.1f}" y="{middle + 14:.1f}">{_text(box.detail)}</text></g>'
        )

    def _legend(self) -> Iterator[str]:
        x = MARGIN
        for kind in self._kinds():
            word = kind.replace("_", " ")
            yield f'<rect class="{kind}-fill" x="{x:.1f}" y="47" width="10" height="10" rx="3"/>'
            yield f'<text class="detail" x="{x + 15:.1f}" y="56">{word}</text>'
            x += width(word, DETAIL_PX) + 33
        yield f'<text class="detail" x="{x:.1f}" y="56">{_text(self._note)}</text>'

    def _legend_width(self) -> float:
        words = sum(width(kind, DETAIL_PX) + 33 for kind in self._kinds())
        return MARGIN + words + width(self._note, DETAIL_PX)

    @property
    def _note(self) -> str:
        count = len(self._graph.nodes)
        records = "1 record" if count == 1 else f"{count} records"
        return f"{records}, and there are more that are not shown" if self._graph.truncated else records

    def _kinds(self) -> Iterable[str]:
        there = {reference.kind for reference in self._graph.nodes}
        return [kind for kind in KINDS if kind in there]


def _words(role: str) -> str:
    return cut(role.replace("_", " "), MAX_TEXT, ROLE_PX)


def _box(node: Node) -> _Box:
    reference, summary = node.reference, node.summary
    version = f"@{reference.selector}"
    title = cut(reference.name, MAX_TEXT - width(version, TITLE_PX, bold=True), TITLE_PX, bold=True) + version
    words = [(reference.kind or "").replace("_", " ")]
    if summary is None:
        words.append("not in the library")
    elif summary.code:
        words.append(f"{summary.area}/{summary.code}")
    if summary is not None and summary.HasField("created_time"):
        words.append(f"{summary.created_time.ToDatetime():%Y-%m-%d}")
    return _Box(node, [], title, cut(" · ".join(words), MAX_TEXT, DETAIL_PX))


def _box_width(box: _Box) -> float:
    text = max(width(box.title, TITLE_PX, bold=True), width(box.detail, DETAIL_PX))
    return text + 2 * INSIDE + 4


def _hint(node: Node) -> str:
    """What a pointer that rests on the node is told."""
    if node.summary is None:
        return f"{node.reference} is not in the library"
    lines = [str(node.reference), node.summary.description, f"by {node.summary.created_by}"]
    lines += [f"{name} {figure:g}" for name, figure in sorted(node.summary.metrics.items())[:12]]
    return "\n".join(line for line in lines if line.strip())


# What XML 1.0 has no way to write.
_UNWRITABLE: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _text(text: str) -> str:
    return html.escape(_UNWRITABLE.sub("\ufffd", text))
