"""How wide text will be, near enough for boxes: nobody here knows the reader's font."""

from __future__ import annotations

from typing import Final

__all__ = ["cut", "width"]

# In parts of the font's size, of a wide sans serif (DejaVu Sans), so that other fonts need no more.
_NARROW: Final = frozenset("iljI.,:;'|!()[]/ ")
_WIDE: Final = frozenset("mwMW@%")


def width(text: str, size: float, *, bold: bool = False) -> float:
    """Pixels; `size` is the font's."""
    return sum(_width(character) for character in text) * size * (1.1 if bold else 1.0)


def _width(character: str) -> float:
    if character in _NARROW:
        return 0.36
    if character in _WIDE:
        return 0.96
    if character > "\u2e7f":
        return 1.0
    return 0.7 if character.isupper() else 0.62


def cut(text: str, most: float, size: float, *, bold: bool = False) -> str:
    """The text, or its start and its end with an ellipsis between them, so that it is not wider than `most`."""
    if width(text, size, bold=bold) <= most:
        return text
    for kept in range(len(text) - 1, 1, -1):
        shorter = f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
        if width(shorter, size, bold=bold) <= most:
            return shorter
    return "…"
