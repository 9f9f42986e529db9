"""A brain compiled for running: who feeds whom, by number, so that a request looks up no name that it need not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from encephalon.core.contract import TensorSpec
from encephalon.core.errors import FailedPrecondition, InvalidInput
from encephalon.library.brains import Brain, Pathway

__all__ = ["BRAIN", "Feed", "Plan", "PlanOutput", "Source", "Step"]

BRAIN = -1
"""The number of the brain itself among the sources of a step."""

# A replica that dies takes its requests with it; two more tries survive that it was one of two that die together.
DEFAULT_RETRIES = 2
# Plans for other choices of outputs are kept; a client that makes up more than these recompiles.
MAX_PRUNED = 64


@dataclass(frozen=True, slots=True)
class Source:
    """Where one input of a step comes from. `needed`: without it the step cannot run."""

    input: str
    step: int
    tensor: str
    needed: bool


@dataclass(frozen=True, slots=True)
class Feed:
    """A pathway seen from its source: the step, the place among its inputs that it fills, and that input's name."""

    step: int
    place: int
    input: str
    tensor: str
    required: bool
    timeout_s: float | None


@dataclass(frozen=True, slots=True)
class Step:
    """One region of the plan.

    `essential`: nothing carries on without it, so its failure is the request's. `waits`: pathways from other steps.
    `timeouts`: the distinct times after which a receiver gives up; `patience_s`: when the last one does (None: never).
    """

    index: int
    region: str
    model: str
    sources: tuple[Source, ...]
    feeds: tuple[Feed, ...]
    wanted: tuple[TensorSpec, ...]
    waits: int
    essential: bool
    timeouts: tuple[float, ...]
    patience_s: float | None
    retries: int
    hedge_s: float | None
    region_ms: str
    queue_ms: str
    version: str


@dataclass(frozen=True, slots=True)
class PlanOutput:
    name: str
    step: int
    tensor: str


class Plan:
    """The steps of a brain in running order, and its outputs."""

    def __init__(self, brain: Brain, outputs: frozenset[str] | None = None) -> None:
        self.brain = brain
        chosen = [output for output in brain.outputs if outputs is None or output.name in outputs]
        names = needed_regions(brain, {output.source.region for output in chosen})
        index = {name: number for number, name in enumerate(names)}
        self.steps = tuple(compile_step(brain, index, name) for name in names)
        self.outputs = tuple(
            PlanOutput(output.name, index[output.source.region], output.source.tensor) for output in chosen
        )
        self._pruned: dict[frozenset[str], Plan] = {}

    def only(self, names: Iterable[str]) -> Plan:
        """The plan for some outputs: regions that they do not need are not asked. InvalidInput for an unknown one."""
        chosen = frozenset(names)
        plan = self._pruned.get(chosen)
        if plan is None:
            known = [output.name for output in self.brain.outputs]
            for name in sorted(chosen.difference(known)):
                raise InvalidInput(f"unknown output '{name}'; there are {', '.join(known)}", tensor=name)
            plan = Plan(self.brain, chosen)
            if len(self._pruned) >= MAX_PRUNED:
                self._pruned.clear()
            self._pruned[chosen] = plan
        return plan


def needed_regions(brain: Brain, wanted: set[str]) -> list[str]:
    """The names of these regions and of all that they draw on, in running order."""
    needed = set(wanted)
    for region in reversed(brain.regions):
        if region.name in needed:
            needed.update(path.source.region for path in brain.pathways if path.target.region == region.name)
    return [region.name for region in brain.regions if region.name in needed]


def compile_step(brain: Brain, index: Mapping[str, int], name: str) -> Step:
    region = brain.region(name)
    contract = region.contract
    if contract is None:
        raise FailedPrecondition(f"the contract of region '{name}' is not known", region=name)
    optional = {spec.name for spec in contract.inputs if spec.optional}
    sources = tuple(
        Source(
            path.target.tensor,
            index.get(path.source.region, BRAIN),
            path.source.tensor,
            path.target.tensor not in optional,
        )
        for path in incoming(brain, name)
    )
    feeding = [path for path in brain.pathways if path.source.region == name and path.target.region in index]
    timeouts = [path.timeout_s for path in feeding if path.timeout_s is not None]
    retries = [path.retries for path in feeding if path.retries is not None]
    hedges = [path.hedge_s for path in feeding if path.hedge_s is not None]
    return Step(
        index=index[name],
        region=name,
        model=region.model if region.address else name,
        sources=sources,
        feeds=tuple(feed_of(brain, index, path) for path in feeding),
        wanted=wanted_outputs(brain, name, contract.outputs),
        waits=sum(source.step != BRAIN for source in sources),
        essential=not feeding or any(not path.optional for path in feeding),
        timeouts=tuple(sorted(set(timeouts))),
        patience_s=max(timeouts) if timeouts and len(timeouts) == len(feeding) else None,
        retries=max(retries, default=DEFAULT_RETRIES),
        hedge_s=min(hedges, default=None),
        region_ms=f"region_ms.{name}",
        queue_ms=f"queue_ms.{name}",
        version=f"version.{name}",
    )


def incoming(brain: Brain, region: str) -> list[Pathway]:
    return [path for path in brain.pathways if path.target.region == region]


def feed_of(brain: Brain, index: Mapping[str, int], path: Pathway) -> Feed:
    place = incoming(brain, path.target.region).index(path)
    target, source = path.target, path.source
    return Feed(index[target.region], place, target.tensor, source.tensor, not path.optional, path.timeout_s)


def wanted_outputs(brain: Brain, region: str, outputs: Iterable[TensorSpec]) -> tuple[TensorSpec, ...]:
    """Those outputs of a region that somebody uses."""
    used = {path.source.tensor for path in brain.pathways if path.source.region == region}
    used |= {output.source.tensor for output in brain.outputs if output.source.region == region}
    return tuple(spec for spec in outputs if spec.name in used)
