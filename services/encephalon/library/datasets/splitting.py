"""Which samples go to which split, and how classes are numbered."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

__all__ = ["drawn_splits", "ordered", "split_rows"]


def ordered(names: Iterable[str]) -> list[str]:
    """Distinct names in the order in which classes are numbered: as numbers when all are, else by their letters."""
    found = set(names)
    numbers = all(name.isascii() and name.isdigit() for name in found)
    return sorted(found, key=lambda name: (int(name), name)) if numbers else sorted(found)


def split_rows(names: Iterable[str]) -> dict[str, NDArray[np.int64]]:
    """Rows of each split, given the split of each row; `train` comes first."""
    found: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        found.setdefault(name, []).append(row)
    first = sorted(found, key=lambda name: (name != "train", name))
    return {name: np.array(found[name], np.int64) for name in first}


def drawn_splits(
    labels: NDArray[np.int64], share: float, seed: int, identity: Callable[[int], str]
) -> Mapping[str, NDArray[np.int64]]:
    """`train` and `test` with `share` of each class in the first.

    Who is drawn follows from a digest of seed and `identity(row)` (the path): a file that is added later moves at most
    one other across the border, and rows of one file and class stay together. A class of two files or more is in both.
    """
    draws = np.array([_draw(f"{seed}\0{identity(row)}") for row in range(len(labels))], np.uint64)
    train: list[NDArray[np.int64]] = []
    test: list[NDArray[np.int64]] = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        rows = rows[np.argsort(draws[rows], kind="stable")]
        border = _border(draws[rows], len(rows) * share)
        train.append(rows[:border])
        test.append(rows[border:])
    return {"train": np.sort(np.concatenate(train)), "test": np.sort(np.concatenate(test))}


def _border(draws: NDArray[np.uint64], wanted: float) -> int:
    """The place nearest to `wanted` at which ascending draws change; behind them all when they are all the same."""
    changes = np.flatnonzero(draws[1:] != draws[:-1]) + 1
    return int(changes[np.abs(changes - wanted).argmin()]) if len(changes) else len(draws)


def _draw(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest(), "big")
