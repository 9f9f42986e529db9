"""Where the weights lie that ship with the package."""

from __future__ import annotations

from pathlib import Path

from encephalon.core.errors import NotFound

__all__ = ["WEIGHTS", "packaged_weights"]

WEIGHTS = Path(__file__).resolve().parent / "weights"


def packaged_weights(area: str, code: str) -> Path:
    """The file of the weights that ship with the package. Raises `NotFound` when there are none for this network."""
    path = WEIGHTS / f"{area}-{code}.safetensors"
    if not path.is_file():
        raise NotFound(
            f"no weights of {area}/{code} ship with the package; name a weights file", area=area, network=code
        )
    return path
