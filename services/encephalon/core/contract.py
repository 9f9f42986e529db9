"""What a network, an area or a brain takes and gives: named tensors with a datatype and a shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from encephalon.core.errors import InvalidInput

if TYPE_CHECKING:
    from encephalon.core.wire import Tensor

__all__ = ["Contract", "TensorSpec"]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named tensor.

    `datatype` is a name of the Open Inference Protocol ("FP32", "UINT8", "BYTES", ...). `shape` includes the batch as
    its first dimension; -1 means any size. `optional` inputs may be left out of a request.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False
    description: str = ""

    def check(self, tensor: Tensor) -> None:
        """InvalidInput unless the tensor has this datatype and fits this shape."""
        if tensor.datatype != self.datatype:
            raise InvalidInput(
                f"tensor '{self.name}' came as {tensor.datatype}, expected {self.datatype}; convert it before sending",
                tensor=self.name,
                got=tensor.datatype,
                expected=self.datatype,
            )
        if not fits(tensor.shape, self.shape):
            raise InvalidInput(
                f"tensor '{self.name}' came with shape {list(tensor.shape)}, expected {list(self.shape)} "
                "(-1 is any size)",
                tensor=self.name,
                got=list(tensor.shape),
                expected=list(self.shape),
            )


@dataclass(frozen=True, slots=True)
class Contract:
    """The inputs and outputs of a model, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def check_inputs(self, tensors: Sequence[Tensor]) -> int:
        """Checks a request's inputs and returns its number of rows (the common batch dimension, at least 1).

        InvalidInput for an unknown, repeated, missing or ill-shaped tensor, or when batch dimensions differ.
        """
        return plain_rows(tensors, self.inputs) or check(tensors, self.inputs)


def plain_rows(tensors: Sequence[Tensor], specs: Sequence[TensorSpec]) -> int:
    """The rows when the tensors are plainly right: all of them, in order. 0 asks for a closer look.

    Written without helpers: it runs for every request at every hop.
    """
    if len(tensors) != len(specs):
        return 0
    rows = 0
    for tensor, spec in zip(tensors, specs, strict=True):
        shape, pattern = tensor.shape, spec.shape
        if tensor.name != spec.name or tensor.datatype != spec.datatype or not shape or len(shape) != len(pattern):
            return 0
        for got, want in zip(shape, pattern, strict=True):
            if want != got and want != -1:
                return 0
        if rows not in (0, shape[0]):
            return 0
        rows = shape[0]
    return rows


def check(tensors: Sequence[Tensor], specs: Iterable[TensorSpec]) -> int:
    wanted: Mapping[str, TensorSpec] = {spec.name: spec for spec in specs}
    rows: dict[str, int] = {}
    for tensor in tensors:
        spec = wanted.get(tensor.name)
        if spec is None:
            expected = ", ".join(wanted) or "none"
            raise InvalidInput(
                f"unknown input '{tensor.name}'; expected {expected}", tensor=tensor.name, expected=expected
            )
        if tensor.name in rows:
            raise InvalidInput(f"input '{tensor.name}' came twice; send it once", tensor=tensor.name)
        spec.check(tensor)
        rows[tensor.name] = tensor.shape[0] if tensor.shape else 1
    for spec in wanted.values():
        if not spec.optional and spec.name not in rows:
            raise InvalidInput(
                f"input '{spec.name}' is missing; send it as {spec.datatype} {list(spec.shape)}",
                tensor=spec.name,
                expected=f"{spec.datatype} {list(spec.shape)}",
            )
    return common_rows(rows)


def common_rows(rows: Mapping[str, int]) -> int:
    if not rows:
        raise InvalidInput("no input came; send at least one")
    first = next(iter(rows.values()))
    if any(count != first for count in rows.values()):
        counts = ", ".join(f"'{name}' {count}" for name, count in rows.items())
        raise InvalidInput(f"the inputs have unequal batch sizes ({counts}); send the same number of rows in each")
    if first < 1:
        raise InvalidInput("the inputs have no rows; send at least one")
    return first


def fits(shape: Sequence[int], pattern: Sequence[int]) -> bool:
    """True when the rank is equal and each dimension equals the pattern's or the pattern's is -1."""
    if len(shape) != len(pattern):
        return False
    for got, want in zip(shape, pattern, strict=True):  # noqa: SIM110 -- no generator on the path of every activation
        if want not in (got, -1):
            return False
    return True
