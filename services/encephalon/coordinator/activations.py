"""What regions answer: the tensors that steps hand on, and whether they are what was promised."""

from __future__ import annotations

from encephalon.coordinator.plan import Step
from encephalon.core.errors import EncephalonError, Internal
from encephalon.core.wire import InferResponse, Tensor

__all__ = ["naming", "tensor_of", "unfit"]


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


def naming(region: str, error: EncephalonError) -> EncephalonError:
    """The same error, saying which region it is about."""
    if f"'{region}'" in error.message:
        return error
    named = type(error)(f"region '{region}': {error.message}")
    named.details.update(error.details, region=region)
    return named
