"""Which modality of a data set feeds which input of a brain, and what its outputs should be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.contract import TensorSpec
from encephalon.core.errors import InvalidInput
from encephalon.core.wire import dtype_of
from encephalon.learning.routing import Routing
from encephalon.learning.settings import LearningSettings
from encephalon.library.datasets import Batched

__all__ = ["Binding", "bound"]

LABEL = "label"


@dataclass(frozen=True)
class Binding:
    """`inputs`: spec of each brain input that is fed, and its modality. `label`: the modality of what outputs should
    be. `classes`: whether that is a number of a class."""

    inputs: tuple[tuple[TensorSpec, str], ...]
    label: str
    classes: bool

    @property
    def droppable(self) -> tuple[str, ...]:
        """Inputs that a sample may lack; none when nothing would be left."""
        optional = tuple(spec.name for spec, _ in self.inputs if spec.optional)
        return optional if len(self.inputs) > 1 else ()

    def tensors(self, split: str, columns: Batched) -> tuple[dict[str, Tensor], Tensor]:
        """The brain's inputs [rows, ...] of their datatypes, and labels: int64 [rows], or float32 [rows, ...]. The
        tensors may be written to. InvalidInput, naming split and modality, for samples of unlike shapes."""
        inputs = {
            spec.name: _tensor(_stacked(split, modality, columns[modality]), spec.datatype)
            for spec, modality in self.inputs
        }
        labels = _tensor(_stacked(split, self.label, columns[self.label]), "INT64" if self.classes else "FP32")
        if self.classes and len(labels) and int(labels.min()) < 0:
            raise InvalidInput(
                f"split '{split}' has label {int(labels.min())} in modality '{self.label}'; classes count from 0",
                split=split,
                modality=self.label,
            )
        return inputs, labels


def bound(
    record: pb.Record, routing: Routing, settings: LearningSettings, classes: Mapping[str, int] | None = None
) -> Binding:
    """`classes`: columns of each target, as far as they are known. InvalidInput, naming modality and input or output,
    for what does not fit."""
    modalities = {one.name: one for one in record.data_set.modalities}
    name = f"data set '{record.id.name}'"
    label = _label(name, modalities, settings)
    specs = {spec.name: spec for spec in routing.brain.inputs}
    for given in settings.inputs:
        if given not in specs:
            raise InvalidInput(f"the brain has no input '{given}'; it has {', '.join(specs)}", input=given)
    fed = [pair for spec in routing.inputs if (pair := _fed(name, spec, modalities, settings)) is not None]
    if not fed:
        raise InvalidInput(
            f"{name} feeds no input of the brain; it has {', '.join(modalities)}, the brain takes {', '.join(specs)}; "
            "say which feeds which"
        )
    is_class = settings.loss == "cross_entropy"
    if is_class:
        _check_classes(name, label, classes or {})
    return Binding(tuple(fed), label.name, is_class)


def _fed(
    name: str, spec: TensorSpec, modalities: Mapping[str, pb.Modality], settings: LearningSettings
) -> tuple[TensorSpec, str] | None:
    wanted = settings.inputs.get(spec.name, spec.name)
    modality = modalities.get(wanted)
    if modality is None:
        if spec.optional and spec.name not in settings.inputs:
            return None
        raise InvalidInput(
            f"{name} has no modality '{wanted}' for input '{spec.name}'; it has {', '.join(modalities)}; say which one "
            "feeds it",
            input=spec.name,
            modality=wanted,
        )
    if not _fits(modality, spec):
        raise InvalidInput(
            f"modality '{wanted}' of {name} is {modality.datatype} {[-1, *modality.shape]}, and input '{spec.name}' "
            f"takes {spec.datatype} {list(spec.shape)}",
            input=spec.name,
            modality=wanted,
        )
    return spec, wanted


def _fits(modality: pb.Modality, spec: TensorSpec) -> bool:
    if "BYTES" in (modality.datatype, spec.datatype) or len(modality.shape) != len(spec.shape) - 1:
        return False
    sizes = zip(modality.shape, spec.shape[1:], strict=True)
    if any(got != want and -1 not in (got, want) for got, want in sizes):
        return False
    there, wanted = dtype_of(modality.datatype), dtype_of(spec.datatype)
    # numpy knows nothing of bfloat16, which holds every small number.
    return there == wanted or "BF16" in (modality.datatype, spec.datatype) or np.can_cast(there, wanted, "same_kind")


def _label(name: str, modalities: Mapping[str, pb.Modality], settings: LearningSettings) -> pb.Modality:
    if settings.label:
        if settings.label not in modalities:
            raise InvalidInput(
                f"{name} has no modality '{settings.label}' to learn; it has {', '.join(modalities)}",
                modality=settings.label,
            )
        found = modalities[settings.label]
    else:
        labels = [one for one in modalities.values() if one.type == LABEL]
        if len(labels) != 1:
            there = ", ".join(one.name for one in labels) or "none"
            raise InvalidInput(f"{name} has labels {there}; name the modality that is to be learned")
        found = labels[0]
    whole = found.datatype.removeprefix("U").startswith("INT") and not found.shape
    if settings.loss == "cross_entropy" and not whole:
        raise InvalidInput(
            f"modality '{found.name}' of {name} is {found.datatype} {[-1, *found.shape]}, and cross_entropy needs the "
            "number of a class; name another label, or take the loss mse",
            modality=found.name,
        )
    if found.datatype == "BYTES":
        raise InvalidInput(f"modality '{found.name}' of {name} is text, which no output can be compared with")
    return found


def _check_classes(name: str, label: pb.Modality, columns: Mapping[str, int]) -> None:
    for output, count in columns.items():
        if 0 <= count < len(label.classes):
            raise InvalidInput(
                f"modality '{label.name}' of {name} has {len(label.classes)} classes, and output '{output}' has "
                f"{count}; build the brain with as many",
                output=output,
                modality=label.name,
            )


def _stacked(split: str, modality: str, values: Any) -> NDArray[Any]:
    if isinstance(values, np.ndarray):
        return values
    shapes = sorted({np.shape(each) for each in values})
    if len(shapes) > 1:
        raise InvalidInput(
            f"split '{split}' has samples of the shapes {_listed(shapes)} in modality '{modality}', which make no "
            "batch; add the data set with one shape",
            split=split,
            modality=modality,
        )
    return np.stack(values)


def _listed(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(str(list(shape)) for shape in shapes[:3]) + (", ..." if len(shapes) > 3 else "")


def _tensor(array: NDArray[Any], datatype: str) -> Tensor:
    if datatype == "BF16":
        return torch.from_numpy(array.astype(np.float32)).bfloat16()
    found = np.ascontiguousarray(array, dtype_of(datatype))
    return torch.from_numpy(found if found.flags.writeable else found.copy())
