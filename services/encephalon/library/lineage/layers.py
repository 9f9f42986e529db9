"""Puts the nodes of a graph into layers, from what something was made from to what was made of it, so that few edges
cross and none runs through a node.

The way of Sugiyama, Tagawa and Toda (1981): the longest path gives the layer, an edge that spans several gets a place
in each, places are ordered by the mean of their neighbours, and then moved towards them.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from encephalon.library.records import Reference

__all__ = ["Layered", "Place", "layered", "spread"]

# More do not help: what is still crossed then stays so.
_SWEEPS: Final = 12


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node is, or where an edge passes through a layer that has none of its ends."""

    layer: int
    node: Reference | None
    edge: tuple[Reference, Reference] | None


@dataclass(frozen=True, slots=True)
class Layered:
    layers: Sequence[Sequence[Place]]
    """In order from above."""
    paths: Mapping[tuple[Reference, Reference], Sequence[Place]]
    """Of each edge, the places from its parent to its child; an edge that closes a circle is left out."""


def layered(nodes: Sequence[Reference], edges: Iterable[tuple[Reference, Reference]]) -> Layered:
    rank, forward = _ranks(nodes, list(dict.fromkeys(edges)))
    places = {node: Place(rank[node], node, None) for node in nodes}
    layers: list[list[Place]] = [[] for _ in range(max(rank.values(), default=-1) + 1)]
    for place in places.values():
        layers[place.layer].append(place)
    paths: dict[tuple[Reference, Reference], Sequence[Place]] = {}
    for edge in forward:
        passed = [Place(layer, None, edge) for layer in range(rank[edge[0]] + 1, rank[edge[1]])]
        for place in passed:
            layers[place.layer].append(place)
        paths[edge] = [places[edge[0]], *passed, places[edge[1]]]
    return Layered(_ordered(layers, _neighbours(paths.values())), paths)


def _ranks(
    nodes: Sequence[Reference], edges: Sequence[tuple[Reference, Reference]]
) -> tuple[Mapping[Reference, int], list[tuple[Reference, Reference]]]:
    """The layer of each node, and the edges that lead from a layer to a later one: all, unless some close a circle."""
    children, waiting = defaultdict[Reference, list[Reference]](list), dict.fromkeys(nodes, 0)
    for parent, child in edges:
        children[parent].append(child)
        waiting[child] += 1
    rank: dict[Reference, int] = {}
    ready = [node for node in nodes if not waiting[node]]
    reached = dict.fromkeys(nodes, 0)
    order: list[Reference] = []
    while len(rank) < len(nodes):
        # In a circle nothing is ever ready: it is opened at its first node.
        node = ready.pop() if ready else next(node for node in nodes if node not in rank)
        if node in rank:
            continue
        rank[node] = reached[node]
        order.append(node)
        for child in children[node]:
            reached[child] = max(reached[child], rank[node] + 1)
            waiting[child] -= 1
            if not waiting[child]:
                ready.append(child)
    forward = [(parent, child) for parent, child in edges if rank[parent] < rank[child]]
    _draw_near(order, forward, rank)
    return rank, forward


def _draw_near(
    order: Sequence[Reference], edges: Sequence[tuple[Reference, Reference]], rank: dict[Reference, int]
) -> None:
    """Moves what has more children than parents next to the first of its children: their edges become short."""
    children, parents = defaultdict[Reference, list[Reference]](list), defaultdict[Reference, int](int)
    for parent, child in edges:
        children[parent].append(child)
        parents[child] += 1
    for node in reversed(order):
        if children[node] and parents[node] < len(children[node]):
            rank[node] = max(rank[node], min(rank[child] for child in children[node]) - 1)


_Neighbours = Mapping[int, Mapping[Place, Sequence[Place]]]
"""By direction, -1 or 1: the neighbours of a place in the layer before it, or behind it."""


def _neighbours(paths: Iterable[Sequence[Place]]) -> _Neighbours:
    before, behind = defaultdict[Place, list[Place]](list), defaultdict[Place, list[Place]](list)
    for path in paths:
        for one, next_one in pairwise(path):
            before[next_one].append(one)
            behind[one].append(next_one)
    return {-1: before, 1: behind}


def _ordered(layers: list[list[Place]], neighbours: _Neighbours) -> list[list[Place]]:
    """Sweeps forth and back; the order with the fewest crossings is kept."""
    best, fewest = [list(layer) for layer in layers], _crossings(layers, neighbours)
    for sweep in range(_SWEEPS):
        if not fewest:
            break
        direction = -1 if sweep % 2 == 0 else 1
        for i in range(len(layers))[::-direction]:
            if 0 <= i + direction < len(layers):
                layers[i] = _by_mean(layers[i], layers[i + direction], neighbours[direction])
        crossings = _crossings(layers, neighbours)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in layers], crossings
    return best


def _by_mean(
    layer: Sequence[Place],
    other: Sequence[Place],
    neighbours: Mapping[Place, Sequence[Place]],
) -> list[Place]:
    """What has no neighbours stays where it is, as far as the others let it."""
    index = {place: i for i, place in enumerate(other)}
    scale = len(other) / max(1, len(layer))
    mean = {
        place: sum(index[one] for one in near) / len(near) if (near := neighbours.get(place, ())) else i * scale
        for i, place in enumerate(layer)
    }
    return sorted(layer, key=mean.__getitem__)


def _crossings(layers: Sequence[Sequence[Place]], neighbours: _Neighbours) -> int:
    count = 0
    for layer, following in pairwise(layers):
        index = {place: i for i, place in enumerate(following)}
        seen: list[int] = []
        for place in layer:
            ends = sorted(index[one] for one in neighbours[1].get(place, ()))
            count += sum(len(seen) - bisect.bisect_right(seen, end) for end in ends)
            for end in ends:
                bisect.insort(seen, end)
    return count


def spread(found: Layered, height: Callable[[Place], float], gap: float) -> Mapping[Place, float]:
    """The middle of each place, from above, so that none overlap and edges are as level as that allows."""
    neighbours = _neighbours(found.paths.values())
    middle: dict[Place, float] = {}
    for layer in found.layers:
        middle |= zip(layer, _separated([0.0] * len(layer), [height(place) for place in layer], gap), strict=True)
    for sweep in range(2 * _SWEEPS):
        layers = found.layers if sweep % 2 == 0 else found.layers[::-1]
        for layer in layers:
            wanted = [_wanted(place, neighbours, middle) for place in layer]
            middle |= zip(layer, _separated(wanted, [height(place) for place in layer], gap), strict=True)
    return middle


def _wanted(place: Place, neighbours: _Neighbours, middle: Mapping[Place, float]) -> float:
    near = [middle[one] for direction in (-1, 1) for one in neighbours[direction].get(place, ())]
    return sum(near) / len(near) if near else middle[place]


def _separated(wanted: Sequence[float], heights: Sequence[float], gap: float) -> list[float]:
    """The positions nearest to those wanted, in their order, that keep their distance: least squares by pooling
    adjacent violators.
    """
    offsets, offset = list[float](), 0.0
    for i, height in enumerate(heights):
        offset += (heights[i - 1] + height) / 2 + gap if i else 0.0
        offsets.append(offset)
    blocks: list[tuple[float, int]] = []
    for position, shift in zip(wanted, offsets, strict=True):
        blocks.append((position - shift, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (low, few), (high, many) = blocks.pop(), blocks.pop()
            blocks.append(((low * few + high * many) / (few + many), few + many))
    free = [mean for mean, count in blocks for _ in range(count)]
    return [position + shift for position, shift in zip(free, offsets, strict=True)]
