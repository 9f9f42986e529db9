"""What a share of a brain asks of each of its regions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from encephalon.learning.routing import Routing

__all__ = ["Learns", "StagePlan", "planned_stages"]


class Learns(Protocol):
    """What of `learning.region.LearningRegion` decides it."""

    @property
    def trainable(self) -> bool: ...

    @property
    def passes(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class StagePlan:
    name: str
    in_flight: int
    """Micro-batches that may have gone forward and not yet backward: regions from here to the end of the brain on the
    longest way, this one included (1F1B)."""
    sources: tuple[str, ...]
    """Regions whose outputs it takes."""
    consumers: tuple[str, ...]
    input_gradients: tuple[str, ...]
    """Inputs behind which something learns."""
    backward: bool
    """In training it also goes backward: it learns, or passes gradients on."""


def planned_stages(routing: Routing, regions: Mapping[str, Learns]) -> dict[str, StagePlan]:
    """By region, in running order."""
    consumers: dict[str, list[str]] = {name: [] for name in routing.regions}
    backward: dict[str, bool] = {}
    gradients: dict[str, tuple[str, ...]] = {}
    for name in routing.regions:
        region = regions[name]
        paths = [path for path in routing.incoming[name] if path.source.region]
        for path in paths:
            if name not in consumers[path.source.region]:
                consumers[path.source.region].append(name)
        wanted = tuple(path.target.tensor for path in paths if backward[path.source.region])
        gradients[name] = wanted if region.passes else ()
        backward[name] = region.trainable or bool(gradients[name])
    depth: dict[str, int] = {}
    for name in reversed(routing.regions):
        depth[name] = 1 + max((depth[consumer] for consumer in consumers[name]), default=0)
    return {
        name: StagePlan(
            name,
            depth[name],
            tuple(dict.fromkeys(path.source.region for path in routing.incoming[name] if path.source.region)),
            tuple(consumers[name]),
            gradients[name],
            backward[name],
        )
        for name in routing.regions
    }
