"""Narrows an area's contract to the sizes of one network, so that two regions that do not fit are found before they
meet, and checks one contract against another."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from encephalon.core.contract import Contract, TensorSpec
from encephalon.core.errors import InvalidInput

__all__ = ["check_fulfils", "narrowed"]


def narrowed(contract: Contract, columns: Mapping[str, int]) -> Contract:
    """The contract with the last dimension of the named tensors set."""

    def narrow(spec: TensorSpec) -> TensorSpec:
        if spec.name not in columns:
            return spec
        return dataclasses.replace(spec, shape=(*spec.shape[:-1], columns[spec.name]))

    return Contract(tuple(map(narrow, contract.inputs)), tuple(map(narrow, contract.outputs)))


def check_fulfils(found: Contract, wanted: Contract, sentence: str) -> None:
    """Raises `InvalidInput`, which begins with `sentence` and lists every difference, unless `found` takes what
    `wanted` takes and gives what it gives. A size of -1 may be narrowed; more outputs are harmless."""
    faults = faults_of("input", found.inputs, wanted.inputs) + faults_of("output", found.outputs, wanted.outputs)
    known = {spec.name for spec in wanted.inputs}
    faults += [
        f"it needs an input '{spec.name}' that is not in it"
        for spec in found.inputs
        if spec.name not in known and not spec.optional
    ]
    if faults:
        raise InvalidInput(f"{sentence}: {'; '.join(faults)}", faults=len(faults))


def faults_of(kind: str, found: Sequence[TensorSpec], wanted: Sequence[TensorSpec]) -> list[str]:
    there = {spec.name: spec for spec in found}
    return [fault for spec in wanted if (fault := fault_of(kind, there, spec))]


def fault_of(kind: str, there: Mapping[str, TensorSpec], wanted: TensorSpec) -> str:
    spec = there.get(wanted.name)
    if spec is None:
        names = ", ".join(f"'{name}'" for name in there) or "none"
        return f"{kind} '{wanted.name}' ({wanted.datatype} {list(wanted.shape)}) is missing; it has {names}"
    if spec.datatype != wanted.datatype:
        return f"{kind} '{wanted.name}' is {spec.datatype}, expected {wanted.datatype}"
    if len(spec.shape) != len(wanted.shape) or any(
        want not in (-1, size) for size, want in zip(spec.shape, wanted.shape, strict=True)
    ):
        return f"{kind} '{wanted.name}' has shape {list(spec.shape)}, expected {list(wanted.shape)}"
    if kind == "input" and wanted.optional and not spec.optional:
        return f"input '{wanted.name}' is required, expected optional (give the graph an input '{wanted.name}.present')"
    return ""
