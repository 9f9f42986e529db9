"""Whether a network may take the place of another: whoever calls the region must not notice but by the answers."""

from __future__ import annotations

from collections.abc import Sequence

from encephalon.core.contract import Contract, TensorSpec
from encephalon.core.errors import FailedPrecondition

__all__ = ["check_contract"]


def check_contract(new: Contract, base: Contract) -> None:
    """FailedPrecondition, naming the tensor, unless `new` takes what `base` takes and gives what `base` gives.

    A size may be narrowed (-1 to a number), and an input may become optional.
    """
    for spec in base.inputs:
        check_tensor("input", spec, find(new.inputs, spec))
    for spec in base.outputs:
        check_tensor("output", spec, find(new.outputs, spec))
    for spec in new.inputs:
        if not spec.optional and find(base.inputs, spec) is None:
            raise FailedPrecondition(f"it needs an input '{spec.name}' that the region does not have", tensor=spec.name)


def find(specs: Sequence[TensorSpec], wanted: TensorSpec) -> TensorSpec | None:
    return next((spec for spec in specs if spec.name == wanted.name), None)


def check_tensor(kind: str, base: TensorSpec, new: TensorSpec | None) -> None:
    if new is None:
        raise FailedPrecondition(f"it has no {kind} '{base.name}'", tensor=base.name)
    if new.datatype != base.datatype:
        raise FailedPrecondition(
            f"its {kind} '{base.name}' is {new.datatype}, expected {base.datatype}", tensor=base.name
        )
    if not narrows(new.shape, base.shape):
        raise FailedPrecondition(
            f"its {kind} '{base.name}' has shape {list(new.shape)}, expected {list(base.shape)}", tensor=base.name
        )
    if kind == "input" and base.optional and not new.optional:
        raise FailedPrecondition(f"its input '{base.name}' is required, expected optional", tensor=base.name)


def narrows(new: Sequence[int], base: Sequence[int]) -> bool:
    return len(new) == len(base) and all(want in (-1, got) for got, want in zip(new, base, strict=True))
