"""A brain as one torch module that learns: its regions in the order of their pathways, in one process."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from encephalon.api.library.v1 import library_pb2 as library_pb
from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.core.errors import InvalidInput
from encephalon.learning.region import Learned, LearningRegion, learning_region
from encephalon.learning.routing import Routing
from encephalon.learning.settings import LearningSettings
from encephalon.library.brains import Brain, Region
from encephalon.library.brains.releases import brain_of
from encephalon.library.store import object_key

if TYPE_CHECKING:
    from encephalon.library.library import Library

__all__ = ["LearningBrain", "LearningRegion", "chosen", "learning_region", "load_brain", "weights_of"]

OBJECT = "object:sha256:"


class LearningBrain(nn.Module):
    """`regions` by name, in the order in which they compute: those that the targets draw on."""

    def __init__(self, routing: Routing, regions: Mapping[str, LearningRegion]) -> None:
        super().__init__()
        self.routing = routing
        self.brain = routing.brain
        self.regions = dict(regions)
        self._stages = nn.ModuleList(self.regions.values())

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs of the brain [rows, ...] by name, with `NAME.logits` and `NAME.present` as
        `routing.Activations.outputs` has them. Inputs are those of the brain, with `NAME.present`, bool [rows], when
        some rows lack one."""
        activations = self.routing.begin(inputs)
        for name, region in self.regions.items():
            given = activations.inputs_of(name)
            if given is not None:
                activations.give(name, region(given))
        return activations.outputs()

    @property
    def classes(self) -> dict[str, int]:
        """Columns of each target, as far as its network fixes them."""
        sources = {each.name: each.source for each in self.routing.outputs if each.name in self.routing.targets}
        shapes = {
            name: spec.shape
            for name, source in sources.items()
            for spec in self.regions[source.region].contract.outputs
            if spec.name == source.tensor
        }
        return {name: shape[-1] for name, shape in shapes.items() if len(shape) == 2 and shape[-1] > 0}

    def learned(self) -> list[Learned]:
        """Everything that travels to the parameter server and back, in forward order."""
        return [each for region in self.regions.values() for each in region.learned()]

    def tensors(self) -> list[pb.Tensor]:
        return [each.message() for each in self.learned()]

    def state(self) -> dict[str, Tensor]:
        """The live tensors by the names of `tensors`."""
        return {each.name: each.tensor for each in self.learned()}

    def digest(self, data: str) -> str:
        """Equal for two workers that compute the same: networks, arguments, pathways, what is frozen, and `data`."""
        regions = [
            [name, spec.network, dict(spec.arguments), region.trainable, region.autocast, region.fingerprint()]
            + ([] if region.passes else [spec.weights])
            for name, region in self.regions.items()
            for spec in [self.brain.region(name)]
        ]
        pathways = [[str(path.source), str(path.target)] for path in self.brain.pathways]
        outputs = [[output.name, str(output.source)] for output in self.brain.outputs]
        shapes = [[each.name, list(each.shape), each.kind] for each in self.tensors()]
        told = [regions, pathways, outputs, sorted(self.routing.targets.items()), shapes, data]
        return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


async def load_brain(library: Library, reference: str, settings: LearningSettings) -> LearningBrain:
    """A brain of the library, ready to learn what the settings say.

    Raises what `Library.show` and `load_network` raise, and InvalidInput, naming the region or the output, for settings
    that do not fit the brain.
    """
    brain = brain_of(await library.show(reference, "brain"))
    routing = Routing(brain, settings.targets)
    _check_names(brain, settings)
    bfloat16 = settings.precision == "bf16"
    regions: dict[str, LearningRegion] = {}
    for name in routing.regions:
        spec = brain.region(name)
        weights = await weights_of(library, spec)
        regions[name] = await asyncio.to_thread(learning_region, spec, weights, trainable=False, bfloat16=bfloat16)
    for name in chosen(routing, regions, settings):
        regions[name].learn(from_scratch=settings.from_scratch, seed=settings.seed)
    return LearningBrain(routing, regions)


def chosen(routing: Routing, regions: Mapping[str, LearningRegion], settings: LearningSettings) -> list[str]:
    """The regions that learn. InvalidInput for one that is told to and cannot, and when none is left."""
    reasons = {name: region.why_fixed() for name, region in regions.items()}
    reaching = _reaching(routing, regions)
    for name in regions:
        if not reasons[name] and name not in reaching:
            reasons[name] = "no gradient comes to it from a target, for what is behind it is no torch module"
    for name in settings.learn:
        if reason := reasons.get(name, f"the targets {', '.join(routing.targets)} do not draw on it"):
            raise InvalidInput(f"region '{name}' cannot learn: {reason}; freeze it", region=name)
    wanted = settings.learn or [name for name in regions if not reasons[name]]
    learn = [name for name in regions if name in wanted and name not in settings.freeze]
    if not learn:
        why = "; ".join(f"'{name}': {reason or 'it is frozen'}" for name, reason in reasons.items())
        raise InvalidInput(f"no region of brain '{routing.brain.name}' learns ({why})")
    return learn


async def weights_of(library: Library, region: Region) -> Path | None:
    """The file that a region's weights lie in, by their digest; None when its network brings its own."""
    if region.weights is None:
        return None
    if not region.weights.startswith(OBJECT):
        raise InvalidInput(
            f"the weights of region '{region.name}' are {region.weights}, expected {OBJECT} and a digest; add the "
            "brain to the library again",
            region=region.name,
        )
    sha256 = region.weights.removeprefix(OBJECT)
    size = (await library.objects.stat(object_key(sha256))).size
    return await library.fetch(library_pb.Object(sha256=sha256, size=size))


def _check_names(brain: Brain, settings: LearningSettings) -> None:
    known = [region.name for region in brain.regions]
    for name in (*settings.learn, *settings.freeze):
        if name not in known:
            raise InvalidInput(f"brain '{brain.name}' has no region '{name}'; it has {', '.join(known)}", region=name)


def _reaching(routing: Routing, regions: Mapping[str, LearningRegion]) -> set[str]:
    """From whose outputs gradients of a target come."""
    found = {each.source.region for each in routing.outputs if each.name in routing.targets}
    for name in reversed(routing.regions):
        if name in found and regions[name].passes:
            found |= {path.source.region for path in routing.incoming[name]}
    return found
