"""Gives a foreign file's tensors the names that a network has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from encephalon.core.errors import InvalidInput

__all__ = ["renamed"]

T = TypeVar("T")


def renamed(tensors: Mapping[str, T], rules: Mapping[str, str]) -> dict[str, T]:
    """Each name that begins with a rule's key begins with its value instead; the longest key counts, and only once.

    InvalidInput for a rule that no name follows, and when two names become one.
    """
    followed: set[str] = set()
    found: dict[str, T] = {}
    origins: dict[str, str] = {}
    for name, tensor in tensors.items():
        rule = longest(name, rules)
        if rule is not None:
            followed.add(rule)
        new = name if rule is None else rules[rule] + name[len(rule) :]
        if new in found:
            raise InvalidInput(f"'{origins[new]}' and '{name}' would both be named '{new}'; change the rename rules")
        found[new], origins[new] = tensor, name
    for rule in rules:
        if rule not in followed:
            raise InvalidInput(f"no tensor's name begins with '{rule}'; there are {some(sorted(tensors))}")
    return found


def longest(name: str, rules: Iterable[str]) -> str | None:
    return max((rule for rule in rules if name.startswith(rule)), key=len, default=None)


def some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:10]) + (f" and {len(listed) - 10} more" if len(listed) > 10 else "")
