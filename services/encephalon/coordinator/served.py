"""A version of a brain in service: its plan, the links it uses, and how many requests are on their way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from encephalon.coordinator.link import Link
from encephalon.coordinator.metrics import BrainMetrics
from encephalon.coordinator.plan import BRAIN, Plan, Step
from encephalon.core.inference import ModelDescription, ModelStatistics
from encephalon.core.inference import Step as DescribedStep
from encephalon.library.brains import Brain

__all__ = ["Served"]


class Served:
    def __init__(self, brain: Brain, version: str, links: Mapping[str, Link], *, released: bool = False) -> None:
        """`released`: the version is one of the library, and not a count of manifests."""
        self.brain = brain
        self.version = version
        self.released = released
        self.links = links
        self.contract = brain.contract
        self.plan = Plan(brain)
        self._route = [links[step.region] for step in self.plan.steps]
        self.metrics = BrainMetrics(brain.name)
        self.statistics = ModelStatistics(brain.name, version)
        # Requests on their way; the links stay open until the last one of a replaced version is done.
        self.running = 0

    def route(self, plan: Plan) -> list[Link]:
        """Per step its link."""
        return self._route if plan is self.plan else [self.links[step.region] for step in plan.steps]

    def why_not_ready(self) -> str:
        """Empty when some request can be answered: every region that none can do without is there, and a way to it."""
        reasons: list[str] = []
        for step in self.plan.steps:
            reasons.append(self._reason(step, reasons))
        essential = [reasons[step.index] for step in self.plan.steps if step.essential]
        return next((reason for reason in essential if reason), "")

    def _reason(self, step: Step, reasons: Sequence[str]) -> str:
        if reason := self.links[step.region].why_not_ready():
            return reason
        sources = [source.step for source in step.sources if source.step != BRAIN]
        for source in sources:
            needs = any(feed.required for feed in self.plan.steps[source].feeds if feed.step == step.index)
            if needs and reasons[source]:
                return reasons[source]
        alone = sources and len(sources) == len(step.sources) and all(reasons[source] for source in sources)
        return reasons[sources[0]] if alone else ""

    def describe(self) -> ModelDescription:
        regions = [region for region in self.brain.regions if region.network]
        batched = all(spec.shape[:1] == (-1,) for spec in (*self.contract.inputs, *self.contract.outputs))
        return ModelDescription(
            name=self.brain.name,
            versions=(self.version,),
            platform="ensemble",
            contract=self.contract,
            max_batch=min((region.max_batch for region in regions), default=0) if batched else 0,
            parameters={"description": self.brain.description}
            | {f"region.{region.name}": region.network or region.address for region in self.brain.regions},
            steps=tuple(self._described(step) for step in self.plan.steps),
        )

    def _described(self, step: Step) -> DescribedStep:
        names = {(output.step, output.tensor): output.name for output in self.plan.outputs}

        def activation(index: int, tensor: str) -> str:
            region = self.plan.steps[index].region
            return names.get((index, tensor), f"{region}.{tensor}")

        return DescribedStep(
            step.region,
            {
                source.input: source.tensor if source.step == BRAIN else activation(source.step, source.tensor)
                for source in step.sources
            },
            {spec.name: activation(step.index, spec.name) for spec in step.wanted},
        )
