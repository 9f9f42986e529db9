"""Where the files lie that ship with the package: weights, what is known of them, and the examples."""

from __future__ import annotations

from pathlib import Path

from encephalon.core.errors import NotFound

__all__ = ["NETWORKS", "WEIGHTS", "example", "packaged_weights"]

HERE = Path(__file__).resolve().parent

WEIGHTS = HERE / "weights"
NETWORKS = HERE / "networks.json"
"""What the weights are; `python -m encephalon.areas.packaged` writes it."""

# In an installed package the examples lie beside this file; in a checkout they are where its reader looks for them.
EXAMPLES = (HERE / "examples", HERE.parents[3] / "deploy" / "examples")


def packaged_weights(area: str, code: str) -> Path:
    """The file of the weights that ship with the package. Raises `NotFound` when there are none for this network."""
    path = WEIGHTS / f"{area}-{code}.safetensors"
    if not path.is_file():
        raise NotFound(
            f"no weights of {area}/{code} ship with the package; name a weights file", area=area, network=code
        )
    return path


def example(name: str) -> Path:
    """The manifest of an example, by its file name without the end; NotFound when there is none of this name."""
    for folder in EXAMPLES:
        path = folder / f"{name}.yaml"
        if path.is_file():
            return path
    raise NotFound(f"there is no example '{name}'; this installation is not complete", example=name)
