"""From what a driver asks for to a stage: the manifest is checked, weights come from the object store."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from encephalon.api.learning.v1 import learning_pb2 as pb
from encephalon.api.parameter_server.v1 import parameter_server_pb2 as parameter_pb
from encephalon.core.errors import FailedPrecondition, InvalidInput, NotFound
from encephalon.learning.parameters import ParameterClient
from encephalon.learning.region import learning_region
from encephalon.library.brains import Region, parse_manifest
from encephalon.library.store.below import objects_of
from encephalon.region.learning.stage import Stage
from encephalon.region.source import Config, Source
from encephalon.state import Objects

__all__ = ["Loading"]


class Loading:
    """`region`: the one that this process is for."""

    def __init__(self, region: str, objects: Objects, *, share_memory: bool = True) -> None:
        self._region, self._objects, self._share_memory = region, objects, share_memory

    async def __call__(self, request: pb.PrepareRequest) -> Callable[[], Stage]:
        """NotFound for a region that is not in the manifest, InvalidInput for another region than this one, and what
        reading manifests and objects raises."""
        if request.region != self._region:
            raise InvalidInput(f"this process is for region '{self._region}', not for '{request.region[:100]}'")
        brain = parse_manifest(request.manifest)
        spec = next((each for each in brain.regions if each.name == self._region), None)
        if spec is None:
            raise NotFound(f"brain '{brain.name}' has no region '{self._region}'", region=self._region)
        return partial(self._made, request, spec, await self._weights(request.library, spec))

    async def _weights(self, library: str, spec: Region) -> bytes | None:
        source = Source(objects_of(self._objects, library or "default"))
        found = await source.weights(Config(spec.network, spec.weights, spec.arguments))
        return found if isinstance(found, bytes) else None

    def _made(self, request: pb.PrepareRequest, spec: Region, weights: bytes | None) -> Stage:
        """Raises as `learning_region`, and FailedPrecondition when the run's layout is of another model."""
        region = learning_region(
            spec,
            weights,
            trainable=request.trainable,
            from_scratch=request.from_scratch,
            seed=request.seed,
            bfloat16=request.bfloat16,
        )
        tensors = region.tensors()
        check_layout(request.layout, tensors)
        client = None
        if tensors:
            client = ParameterClient(
                request.layout,
                wire=request.wire or "fp32",
                top_k=request.top_k,
                share_memory=self._share_memory,
                names=[each.name for each in tensors],
            )
        return Stage(region, client, recompute=request.recompute)


def check_layout(layout: parameter_pb.Layout, tensors: list[parameter_pb.Tensor]) -> None:
    known = {tensor.name: tensor for tensor in layout.tensors}
    for tensor in tensors:
        if known.get(tensor.name) != tensor:
            raise FailedPrecondition(
                f"tensor '{tensor.name}' with shape {list(tensor.shape)} is not in the layout of the run; this is "
                "another version of the model",
                tensor=tensor.name,
            )
