"""`encephalon data`: builds data sets."""

from __future__ import annotations

import sys
from pathlib import Path

from encephalon.cli import screen
from encephalon.library.avmnist import Parameters, get

__all__ = ["avmnist"]


def avmnist(source: Path | None, destination: Path, parameters: Parameters) -> None:
    with screen.steps("Building AV-MNIST") as told:
        built = get(source, destination, parameters, told)
    sys.stdout.write(f"{built}\n")
