"""The brains that come with Encephalon."""

from __future__ import annotations

from pathlib import Path

from encephalon.core.errors import NotFound

__all__ = ["example"]

HERE = Path(__file__).resolve()
# In an installed package the examples lie beside this file; in a checkout they are where its reader looks for them.
FOLDERS = (HERE.parent / "examples", HERE.parents[3] / "deploy" / "examples")


def example(name: str) -> Path:
    """The manifest of an example, by its file name without the end; NotFound when there is none of this name."""
    for folder in FOLDERS:
        path = folder / f"{name}.yaml"
        if path.is_file():
            return path
    raise NotFound(f"there is no example '{name}'; this installation is not complete", example=name)
