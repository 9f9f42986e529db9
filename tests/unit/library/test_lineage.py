"""Lineage out of a real library, whole and damaged, and what is drawn of it."""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import InvalidInput, NotFound
from encephalon.library.library import Library
from encephalon.library.lineage import Branch, Edge, Graph, Node, lineage, svg, tree
from encephalon.library.lineage.layers import layered, spread
from encephalon.library.records import Reference
from tests.unit.library.family import add_family, embedded_library


@pytest.fixture
async def library(tmp_path: Path) -> AsyncIterator[Library]:
    async with embedded_library(tmp_path) as library:
        await add_family(library)
        yield library


def parsed(drawn: str) -> ElementTree.Element:
    return ElementTree.fromstring(drawn)  # noqa: S314 - it is our own


def said(graph: Graph) -> set[tuple[str, str, str]]:
    return {(edge.parent.name, edge.role, edge.child.name) for edge in graph.edges}


async def test_both_directions(library: Library) -> None:
    graph = await lineage(library, "seeing")
    assert str(next(iter(graph.nodes))) == "network:seeing@1"
    assert {reference.name for reference in graph.nodes} == {
        "seeing", "digits-search", "digits-data", "digits-scene", "digits",
    }  # fmt: skip
    assert said(graph) == {
        ("digits-data", "data_set", "digits-scene"),
        ("digits-data", "data_set", "digits-search"),
        ("digits-scene", "scene", "digits-search"),
        ("digits-search", "run", "seeing"),
        ("digits-data", "data_set", "seeing"),
        ("seeing", "network", "digits"),
        ("digits-scene", "scene", "digits"),
    }
    assert not graph.truncated
    assert graph.nodes[Reference("seeing", 1, "network")].summary is not None


async def test_depth_and_limit_keep_the_nearest(library: Library) -> None:
    near = await lineage(library, "seeing", depth=1)
    assert {reference.name for reference in near.nodes} == {"seeing", "digits-search", "digits-data", "digits"}
    assert near.truncated
    assert not (await lineage(library, "digits-data", depth=8)).truncated
    few = await lineage(library, "digits-data", limit=2)
    assert len(few.nodes) == 2
    assert few.truncated
    alone = await lineage(library, "seeing", depth=0)
    assert list(alone.nodes) == [alone.root]
    assert alone.truncated
    assert not alone.edges


async def test_bounds_and_names_are_checked(library: Library) -> None:
    for wrong in ({"depth": -1}, {"depth": 101}, {"limit": 0}, {"limit": 10_001}):
        with pytest.raises(InvalidInput, match="a lineage goes 0 to 100 steps"):
            await lineage(library, "seeing", **wrong)
    with pytest.raises(NotFound, match="seeing"):
        await lineage(library, "seeng")


async def test_damaged_records_are_shown_as_missing_and_circles_end(library: Library) -> None:
    keys = library.stores.keys
    seeing = await library.show("seeing")
    scene = await library.show("digits-scene")
    scene.parents.add(role="circle").record.CopyFrom(seeing.id)
    scene.parents.add(role="nothing")
    await library.key_value.put(keys.record(scene.id), scene.SerializeToString())
    await library.key_value.put(keys.child(seeing.id, scene.id), pb.Edge(role="circle").SerializeToString())
    await library.key_value.put(keys.children(seeing.id) + "rubbish", b"\xff")
    data = await library.show("digits-data")
    await library.key_value.put(keys.record(data.id), b"\xff\xff")
    graph = await lineage(library, "seeing")
    assert len(graph.nodes) == 5
    assert graph.nodes[Reference.of(data.id)].summary is None
    assert ("seeing", "circle", "digits-scene") in said(graph)
    drawn = parsed(svg(graph))
    assert "not in the library" in "".join(drawn.itertext())
    assert [branch.reference.name for branch in tree(graph).made_into] == ["digits", "digits-scene"]


async def test_trees_name_each_record_and_grow_once(library: Library) -> None:
    trees = tree(await lineage(library, "seeing"))
    assert flat(trees.made_from) == [
        "run digits-search",
        "  data_set digits-data again",
        "  scene digits-scene",
        "    data_set digits-data again",
        "data_set digits-data",
    ]
    assert flat(trees.made_into) == ["network digits"]
    document = trees.document()
    assert document["record"] == "network:seeing@1"
    assert document["made_into"] == [{"record": "brain:digits@1", "role": "network"}]


def test_a_long_chain_of_versions_makes_no_deep_tree() -> None:
    versions = [f"brain-{number:04d}" for number in range(600)]
    used = [("network", "network", version) for version in versions]
    trees = tree(graph_of([*used, *((one, "previous", other) for one, other in pairwise(versions))]))
    assert len(trees.made_into) == 600
    assert flat(trees.made_into)[:3] == ["network brain-0000", "  previous brain-0001 again", "network brain-0001"]


def flat(branches: Sequence[Branch], depth: int = 0) -> list[str]:
    lines: list[str] = []
    for branch in branches:
        lines.append(f"{'  ' * depth}{branch.role} {branch.reference.name}{' again' if branch.again else ''}")
        lines += flat(branch.branches, depth + 1)
    return lines


def graph_of(edges: Sequence[tuple[str, str, str]], summary: pb.Summary | None = None) -> Graph:
    references = {name: Reference(name, 1, "network") for one in edges for name in (one[0], one[2])}
    nodes = {reference: Node(reference, summary) for reference in references.values()}
    told = [Edge(references[parent], references[child], role) for parent, role, child in edges]
    return Graph(next(iter(nodes)), nodes, told, False)


def test_a_picture_escapes_what_people_write() -> None:
    summary = pb.Summary(description='<script>alert(1)</script> & "quoted" \x00 \ud7ff', created_by="a<b>@c")
    drawn = svg(graph_of([("a", "<&\">'", "b"), ("a", "x" * 100, "b")], summary))
    root = parsed(drawn)
    assert not [element for element in root.iter() if element.tag.rpartition("}")[2] == "script"]
    assert "<&\">'" in "".join(root.itertext())
    assert svg(graph_of([("a", "b", "c")])) == svg(graph_of([("a", "b", "c")]))


@pytest.mark.parametrize("seed", range(5))
def test_no_boxes_overlap_and_edges_run_to_the_right(seed: int) -> None:
    chance = random.Random(seed)
    names = [f"node-{number:02d}" for number in range(60)]
    pairs = {tuple(sorted(chance.sample(range(60), 2))) for _ in range(110)}
    graph = graph_of([(names[one], f"role {one % 3}", names[other]) for one, other in sorted(pairs)])
    boxes = drawn_boxes(svg(graph))
    assert len(boxes) == len(graph.nodes)
    for i, (x, y, wide, high) in enumerate(boxes):
        assert x >= 0
        assert y >= 60, "the heading is free"
        for other_x, other_y, other_wide, other_high in boxes[:i]:
            apart = x >= other_x + other_wide or other_x >= x + wide or y >= other_y + other_high or other_y >= y + high
            assert apart


def drawn_boxes(drawn: str) -> list[tuple[float, float, float, float]]:
    root = parsed(drawn)
    across, down = float(root.attrib["width"]), float(root.attrib["height"])
    found = []
    for element in root.iter():
        if element.attrib.get("class", "").startswith("box"):
            x, y, wide, high = (float(element.attrib[name]) for name in ("x", "y", "width", "height"))
            assert x + wide <= across
            assert y + high <= down
            found.append((x, y, wide, high))
    return found


def test_layers_go_from_parents_to_children() -> None:
    references = [Reference(name, 1, "network") for name in "abcdefgh"]
    a, b, c, d, e, f, g, h = references
    edges = [(a, b), (b, c), (c, d), (a, d), (e, d), (f, g), (g, f), (h, h)]
    found = layered(references, edges)
    rank = {place.node: number for number, layer in enumerate(found.layers) for place in layer if place.node}
    assert [rank[one] for one in (a, b, c, d)] == [0, 1, 2, 3]
    assert rank[e] == 2, "next to its only child"
    assert len(found.paths[a, d]) == 4
    assert len({(f, g), (g, f)} & set(found.paths)) == 1, "one of the circle's edges is left out"
    assert (h, h) not in found.paths
    middles = spread(found, lambda place: 10.0, 5.0)
    for layer in found.layers:
        rows = [middles[place] for place in layer]
        assert all(later - earlier >= 15 - 1e-9 for earlier, later in pairwise(rows))


def test_crossings_are_undone() -> None:
    names = [Reference(name, 1, "network") for name in "abcdef"]
    found = layered(names, [(names[0], names[5]), (names[1], names[4]), (names[2], names[3])])
    first, second = ([place.node for place in layer] for layer in found.layers)
    partner = {names[0]: names[5], names[1]: names[4], names[2]: names[3]}
    assert [partner[one] for one in first if one is not None] == second


def test_the_picture_follows_dark_surroundings_without_script() -> None:
    drawn = svg(graph_of([("a", "run", "b")]))
    assert "prefers-color-scheme:dark" in drawn
    assert not re.search(r"<script|href|url\(|@import", drawn)
