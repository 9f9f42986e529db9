"""From an area and a three-digit code to a network that is ready to run."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from encephalon.areas.network import Network
from encephalon.library.areas import find_network
from encephalon.library.builtins import packaged_weights

__all__ = ["load_network", "packaged_weights"]

Load = Callable[[str, Path | bytes | None, Mapping[str, Any]], Network]


def load_network(
    area: str, code: str, weights: Path | bytes | None = None, arguments: Mapping[str, Any] | None = None
) -> Network:
    """Builds `area/code` with the given safetensors `weights` (a file or its bytes), by default those that ship with
    the package.

    `arguments` go to the network's constructor and override those that the weights were saved with. Raises `NotFound`
    for an unknown area, code or file, and `InvalidInput` for unknown arguments or weights that do not fit, listed
    tensor by tensor.
    """
    find_network(area, code)
    load: Load = importlib.import_module(f"encephalon.areas.{area}").load
    return load(code, weights, dict(arguments or {}))
