"""Between a caller's arrays and the tensors that a brain's contract names.

The rules are few, so that a result can be predicted: an array has the contract's rank, or one less and then stands for
one row; a datatype is widened where no value can change and never narrowed; plain Python numbers and lists take the
contract's datatype when every value fits it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from encephalon.core.contract import Contract, TensorSpec
from encephalon.core.errors import InvalidInput
from encephalon.core.wire import Tensor, dtype_of

__all__ = ["to_tensors"]

Array = np.ndarray[Any, Any]


def to_tensors(contract: Contract, inputs: Mapping[str, ArrayLike | None]) -> tuple[list[Tensor], bool]:
    """Returns the tensors, batch first, and True when one row came without a batch dimension.

    Inputs that are None count as not sent. InvalidInput names the input, what came and what was expected.
    """
    sent = {name: value for name, value in inputs.items() if value is not None}
    specs = {spec.name: spec for spec in contract.inputs}
    unknown = [name for name in sent if name not in specs]
    if unknown:
        expected = ", ".join(specs) or "none"
        raise InvalidInput(f"unknown input '{unknown[0]}'; expected {expected}", tensor=unknown[0], expected=expected)
    arrays = {name: to_array(specs[name], value) for name, value in sent.items()}
    rows = {name: array.ndim == len(specs[name].shape) - 1 for name, array in arrays.items()}
    single = any(rows.values())
    if single and not all(rows.values()):
        alone = ", ".join(f"'{name}'" for name, row in rows.items() if row)
        raise InvalidInput(f"{alone} came as one row and the other inputs as batches; send all of them in the same way")
    tensors = [
        Tensor.of(name, array[np.newaxis] if single else array, specs[name].datatype) for name, array in arrays.items()
    ]
    contract.check_inputs(tensors)
    return tensors, single


def to_array(spec: TensorSpec, value: ArrayLike) -> Array:
    array = cast(spec, value)
    rank = len(spec.shape)
    if array.ndim not in (rank, rank - 1):
        raise InvalidInput(
            f"input '{spec.name}' came with shape {list(array.shape)}, expected {list(spec.shape)} "
            f"or one row {list(spec.shape[1:])} (-1 is any size)",
            tensor=spec.name,
            got=list(array.shape),
            expected=list(spec.shape),
        )
    return array


def cast(spec: TensorSpec, value: ArrayLike) -> Array:
    if spec.datatype == "BYTES":
        return np.asarray(value, dtype=np.object_)
    wanted = dtype_of(spec.datatype)
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        if array.dtype == wanted or np.can_cast(array.dtype, wanted, "safe"):
            return np.ascontiguousarray(array, dtype=wanted)
        raise InvalidInput(
            f"input '{spec.name}' came as {array.dtype}, expected {wanted.name} ({spec.datatype}); "
            f"convert it first, for example with .astype(numpy.{wanted.name})",
            tensor=spec.name,
            got=array.dtype,
            expected=spec.datatype,
        )
    return from_python(spec, value, wanted)


def from_python(spec: TensorSpec, value: ArrayLike, wanted: np.dtype[Any]) -> Array:
    """Numbers and lists have no datatype of their own: they take the contract's, unless a value would change."""
    try:
        given = np.asarray(value)
        exact = given.dtype.kind in "biuf" and (wanted.kind not in "iub" or given.dtype.kind != "f")
        array = given.astype(wanted)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(
            f"input '{spec.name}' cannot be read as {wanted.name}: {error}", tensor=spec.name, expected=spec.datatype
        ) from error
    if not exact or (wanted.kind in "iub" and not np.array_equal(array, given)):
        raise InvalidInput(
            f"input '{spec.name}' has values that are no {wanted.name} ({spec.datatype})",
            tensor=spec.name,
            expected=spec.datatype,
        )
    return array
