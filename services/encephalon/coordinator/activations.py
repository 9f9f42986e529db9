"""What regions answer: the tensors that steps hand on, and whether they are what was promised."""

from __future__ import annotations

from collections.abc import Iterable

from encephalon.coordinator.plan import Step
from encephalon.core.errors import EncephalonError, Internal
from encephalon.core.wire import InferResponse, Tensor

__all__ = ["nbytes_of", "tensor_of", "unfit"]


def nbytes_of(tensors: Iterable[Tensor]) -> int:
    nbytes = 0
    for tensor in tensors:
        nbytes += tensor.nbytes
    return nbytes


def tensor_of(response: InferResponse | None, tensor: str, name: str) -> Tensor | None:
    """The output `tensor` under another name; None when there is none."""
    if response is not None:
        for output in response.outputs:
            if output.name == tensor:
                return output if tensor == name else output.renamed(name)
    return None


def unfit(step: Step, response: InferResponse) -> EncephalonError | None:
    """What a region answered must be what its contract says, or it would fail the next region in its stead."""
    for spec in step.wanted:
        tensor = tensor_of(response, spec.name, spec.name)
        if tensor is None:
            return Internal(f"the answer lacks the output '{spec.name}'", region=step.region)
        if tensor.datatype != spec.datatype or len(tensor.shape) != len(spec.shape):
            got, expected = f"{tensor.datatype} {list(tensor.shape)}", f"{spec.datatype} {list(spec.shape)}"
            return Internal(f"output '{spec.name}' came as {got}, expected {expected}", region=step.region)
    return None
