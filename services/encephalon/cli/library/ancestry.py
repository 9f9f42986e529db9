"""`encephalon library lineage`: a tree in the terminal, or a picture in a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text
from rich.tree import Tree

from encephalon.cli import screen
from encephalon.cli.library.place import Place, run
from encephalon.cli.library.printing import print_json
from encephalon.cli.library.quantities import count
from encephalon.core.errors import InvalidInput
from encephalon.library.lineage import Branch, Graph, Trees, svg, tree

if TYPE_CHECKING:
    from encephalon.library.library import Library

__all__ = ["shown"]


def shown(place: Place, reference: str, *, depth: int, picture: Path | None, as_json: bool) -> None:
    async def work(library: Library) -> Graph:
        return await library.lineage(reference, depth=depth)

    graph = run(place, work)
    trees = tree(graph)
    if picture is not None:
        write(picture, svg(graph))
    if as_json:
        print_json(trees.document())
    elif picture is not None:
        sys.stdout.write(f"The lineage of {trees.root}, {count(len(graph.nodes), 'record')}, is drawn in {picture}.\n")
    else:
        screen.output().print(drawn(trees))
    if trees.truncated:
        sys.stderr.write(f"There is more behind --depth {depth}; a higher one shows it.\n")


def write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error.strerror}", path=path) from error


def drawn(trees: Trees) -> Tree:
    root = Tree(Text(str(trees.root), style="bold"), guide_style="dim")
    for title, branches in (("made from", trees.made_from), ("made into", trees.made_into)):
        if branches:
            grow(root.add(Text(title, style="dim")), branches)
    if not trees.made_from and not trees.made_into:
        root.add(Text("made from nothing and into nothing that the library knows", style="dim"))
    return root


def grow(tree: Tree, branches: Sequence[Branch]) -> None:
    for branch in branches:
        line = Text(str(branch.reference)).append(f"  {branch.role}", style="dim")
        if branch.missing:
            line.append("  not in the library", style="red")
        if branch.again:
            line.append("  (its branches stand elsewhere)", style="dim")
        grow(tree.add(line), branch.branches)
