"""Deals whole things out by weight, so that nothing is lost and nobody gets more than fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from encephalon.core.errors import InvalidInput

__all__ = ["apportioned"]

SCALE: Final = 1 << 40
"""Weights become whole numbers up to it. All that follows is exact, so that what order they come in changes nothing."""


def apportioned(total: int, weights: Mapping[str, float], most: Mapping[str, int]) -> dict[str, int]:
    """The total by weight, by largest remainder (Hamilton's method); equal remainders by name.

    Everybody has at least 1; where the total is too small for that, the heaviest have 1 and the others 0. Nobody has
    more than `most`; what that cuts off goes to the others, by weight. A name with `most` 0 gets nothing. Weights are
    finite and above 0. InvalidInput when all `most` together are less than the total.
    """
    room = {name: most[name] for name in weights if most[name] > 0}
    if total > sum(room.values()):
        raise InvalidInput(f"{total} cannot be dealt out to {len(weights)} that hold {sum(room.values())} together")
    top = max(weights.values(), default=1.0)
    whole = {name: max(1, round(weights[name] / top * SCALE)) for name in room}
    dealt = dict.fromkeys(weights, 0)
    if total <= len(room):
        return dealt | dict.fromkeys(sorted(room, key=lambda name: (-whole[name], name))[:total], 1)
    return dealt | _rounded(total, whole, room)


def _rounded(total: int, weights: Mapping[str, int], most: Mapping[str, int]) -> dict[str, int]:
    bound = _bound(total, weights, most)
    free = {name: weight for name, weight in weights.items() if name not in bound}
    rest, weight = total - sum(bound.values()), sum(free.values())
    dealt = bound | {name: free[name] * rest // weight for name in free}
    left = total - sum(dealt.values())
    for name in sorted(free, key=lambda name: (-(free[name] * rest % weight), name))[:left]:
        dealt[name] += 1
    return dealt


def _bound(total: int, weights: Mapping[str, int], most: Mapping[str, int]) -> dict[str, int]:
    """Who has exactly 1 or exactly its most, when quotas go up or down together until they fill the total.

    In each round the side that would take more is settled: its members stay there in whatever the rest comes to.
    """
    bound: dict[str, int] = {}
    while free := [name for name in weights if name not in bound]:
        rest, weight = total - sum(bound.values()), sum(weights[name] for name in free)
        # Quotas are weights[name] * rest / weight; multiplied by the weight, all stays whole.
        over = _above({name: weights[name] * rest - most[name] * weight for name in free})
        under = _above({name: weight - weights[name] * rest for name in free})
        if not over and not under:
            break
        if sum(over.values()) >= sum(under.values()):
            bound |= {name: most[name] for name in over}
        if sum(under.values()) >= sum(over.values()):
            bound |= dict.fromkeys(under, 1)
    return bound


def _above(excess: Mapping[str, int]) -> dict[str, int]:
    return {name: amount for name, amount in excess.items() if amount > 0}
