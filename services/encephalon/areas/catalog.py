"""From an area and a three-digit code to a network that is ready to run."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from encephalon.areas.network import Network
from encephalon.core.errors import EncephalonError, FailedPrecondition, Internal
from encephalon.library.area import ONNX, OWN
from encephalon.library.areas import find_area
from encephalon.library.builtins import packaged_weights

__all__ = ["load_network", "packaged_weights"]

Load = Callable[[str, Path | bytes | None, Mapping[str, Any]], Network]


def load_network(
    area: str, code: str, weights: Path | bytes | None = None, arguments: Mapping[str, Any] | None = None
) -> Network:
    """Builds `area/code` with the given `weights` (a file or its bytes; safetensors, or ONNX for a graph), by default
    those that ship with the package.

    `arguments` go to the network's constructor and override those that the weights were saved with. Raises `NotFound`
    for an unknown area, code or file, `InvalidInput` for unknown arguments or weights that do not fit, listed tensor
    by tensor, and `FailedPrecondition` or `Internal` when the package that brings the network is
    broken.
    """
    found = find_area(area)
    package = found.package_of(code)
    load = loader(found.load_of(code), package)
    given = dict(arguments or {})
    if code == ONNX:  # the one network that is in several areas
        given["area"] = area
    try:
        return load(code, weights, given)
    except EncephalonError:
        raise
    except Exception as error:
        if package == OWN:
            raise
        raise Internal(
            f"package {package} failed to load {area}/{code}: {type(error).__name__}: {error}", package=package
        ) from error


def loader(name: str, package: str) -> Load:
    """The function that `package.module:function` names."""
    module, _, function = name.partition(":")
    try:
        load: Load = getattr(importlib.import_module(module), function)
    except Exception as error:
        needed = "pip install 'encephalon[region]'" if package == OWN else "install the package and all it needs"
        raise FailedPrecondition(
            f"the loader {name} of package {package} cannot be imported: {error}; {needed}",
            load=name,
            package=package,
        ) from error
    return load
