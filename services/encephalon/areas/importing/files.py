"""What a file to import is: by its name, and by its first bytes where names are ambiguous."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from encephalon.core.errors import InvalidInput, NotFound

__all__ = ["Format", "existing", "format_of"]

Format = Literal["safetensors", "torch", "darknet", "onnx"]

FORMATS: dict[str, Format] = {
    ".safetensors": "safetensors",
    ".pt": "torch",
    ".pth": "torch",
    ".ckpt": "torch",
    ".bin": "torch",
    ".tar": "torch",
    ".weights": "darknet",
    ".onnx": "onnx",
}


def existing(path: Path) -> Path:
    """NotFound unless it is a file that can be read."""
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror or error}", path=path) from None


def format_of(path: Path) -> Format:
    """InvalidInput for a file of another kind."""
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        known = ", ".join(FORMATS)
        raise InvalidInput(f"{path.name} has no name of a weights file; expected one that ends in {known}")
    return found
