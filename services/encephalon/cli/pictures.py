"""Draws grey pictures with characters: two pixels in each, as the upper and the lower half of a block."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.text import Text

__all__ = ["draw", "shrink"]

Picture = np.ndarray[Any, np.dtype[np.uint8]]

BLOCKS = " ░▒▓█"
LETTERS = " .:-=+*#%@"  # for terminals that know no blocks


def draw(picture: Picture, *, colour: bool, blocks: bool) -> Text:
    """A picture uint8 [height, width], 0 black to 255 white, as `height / 2` lines of `width` characters.

    With `colour` in grey levels, else in characters of rising weight, taken from `blocks` or from plain letters.
    """
    upper, lower = picture[0::2], picture[1::2]
    lower = np.pad(lower, ((0, len(upper) - len(lower)), (0, 0)))
    text = Text(no_wrap=True)
    for line, (top, bottom) in enumerate(zip(upper, lower, strict=True)):
        if line:
            text.append("\n")
        if colour and blocks:
            for above, below in zip(top.tolist(), bottom.tolist(), strict=True):
                text.append("▀", style=f"rgb({above},{above},{above}) on rgb({below},{below},{below})")
        else:
            text.append(shaded(top, bottom, BLOCKS if blocks else LETTERS))
    return text


def shaded(top: Picture, bottom: Picture, ramp: str) -> str:
    mean = (top.astype(int) + bottom) // 2
    return "".join(ramp[level] for level in (mean * len(ramp) // 256).tolist())


def shrink(picture: Picture, side: int) -> Picture:
    """Averages the picture down to at most `side` by `side` pixels, by a whole factor."""
    factor = max(1, -(-max(picture.shape) // side))
    height, width = (size // factor for size in picture.shape)
    cut = picture[: height * factor, : width * factor].astype(np.float32)
    mean = cut.reshape(height, factor, width, factor).mean(axis=(1, 3))
    # A thin stroke fades when it is averaged; what was brightest stays so.
    small: Picture = np.clip(mean * (picture.max() / max(1.0, float(mean.max()))), 0, 255).astype(np.uint8)
    return small
