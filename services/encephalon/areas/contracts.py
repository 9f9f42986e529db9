"""Narrows an area's contract to the sizes of one network, so that two regions that do not fit are found before they
meet."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from encephalon.core.contract import Contract, TensorSpec

__all__ = ["narrowed"]


def narrowed(contract: Contract, columns: Mapping[str, int]) -> Contract:
    """The contract with the last dimension of the named tensors set."""

    def narrow(spec: TensorSpec) -> TensorSpec:
        if spec.name not in columns:
            return spec
        return dataclasses.replace(spec, shape=(*spec.shape[:-1], columns[spec.name]))

    return Contract(tuple(map(narrow, contract.inputs)), tuple(map(narrow, contract.outputs)))
