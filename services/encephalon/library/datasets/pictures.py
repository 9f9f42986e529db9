"""Pictures from files: grey [H, W] or RGB [H, W, 3], unsigned bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.library.datasets.media import Facts, Unreadable

__all__ = ["PICTURES", "Pictures"]

PICTURES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")

FORMATS: Final = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
"""Pillow can do more, some of it by starting other programs."""

PLAIN: Final = {"1": 1, "L": 1, "RGB": 3, "P": 3}
"""Modes that lose nothing, and their channels."""

CONVERTED: Final = ("LA", "PA", "La", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
"""Modes of 8 bits that are converted when asked for; those of 16 bits would be cut off."""

ORIENTATION: Final = 0x0112
"""The Exif tag; from 5 on the picture lies on its side (Exif 2.3, 4.6.4)."""

SIXTEEN_BITS: Final = (";16B", ";16L", ";16N")
"""Ends of what Pillow calls pixels that it cuts down to 8 bits while it decodes them."""

TURNED: Final = ("JPEG", "MPO", "WEBP")
"""What cameras write; MPO is a JPEG with further pictures, such as a preview. Pillow turns TIFF itself."""


class Pictures:
    def __init__(self, size: tuple[int, int] | None = None, colour: str = "auto") -> None:
        self._size, self._colour = size, colour
        self._mode = "L"
        self._shape: tuple[int, ...] = ()

    def examine(self, path: Path) -> Facts:
        with _opened(path) as image:
            if image.mode not in PLAIN and not (self._colour != "auto" and image.mode in CONVERTED):
                hint = "; choose a colour (grey or rgb) to convert it" if image.mode in CONVERTED else ""
                raise Unreadable(f"has the channels {image.mode}, expected 8-bit grey or RGB{hint}")
            if any(_raw_mode(tile).endswith(SIXTEEN_BITS) for tile in getattr(image, "tile", ())):
                raise Unreadable("has 16 bits per channel, expected 8; they would be cut off")
            sideways = image.format in TURNED and image.getexif().get(ORIENTATION, 1) >= 5
            width, height = image.size[::-1] if sideways else image.size
            return height, width, PLAIN.get(image.mode, 3)

    def settle(self, name: str, facts: NDArray[np.int64]) -> pb.Modality:
        grey = self._colour == "grey" or (self._colour == "auto" and bool((facts[:, 2] == 1).all()))
        self._mode = "L" if grey else "RGB"
        size = [int(found[0]) if (found == found[0]).all() else -1 for found in facts[:, :2].T]
        shape = [*(self._size or size), *([] if grey else [3])]
        self._shape = tuple(shape)
        return pb.Modality(name=name, type="image", datatype="UINT8", shape=shape)

    def decode(self, path: Path) -> NDArray[Any]:
        with _opened(path) as image:
            turned = ImageOps.exif_transpose(image) if image.format in TURNED else image
            # A palette may have transparent colours, which Pillow takes away in two steps only.
            opaque = turned.convert("RGBA") if turned.mode == "P" else turned
            plain = opaque.convert(self._mode)
            if self._size is not None:
                plain = plain.resize(self._size[::-1], Image.Resampling.BILINEAR)
            pixels = np.asarray(plain, np.uint8)
        if any(want not in (-1, got) for got, want in zip(pixels.shape, self._shape, strict=True)):
            raise Unreadable(f"is {pixels.shape[0]} x {pixels.shape[1]} pixels, and was not when it was examined")
        return pixels

    def bytes_of(self, facts: NDArray[np.int64]) -> NDArray[np.int64]:
        pixels = facts[:, 0] * facts[:, 1]
        # What is decoded is there before what is made of it.
        return np.asarray(pixels * (1 if self._mode == "L" else 3), np.int64)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Every error of a damaged picture as `Unreadable`."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            _check_pixels(*image.size)
            yield image
    except Unreadable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Unreadable(f"has more than {_most_pixels()} pixels, which may be a decompression bomb") from None
    except UnidentifiedImageError:
        raise Unreadable(f"is no picture of the formats {', '.join(FORMATS)}") from None
    except Exception as error:  # noqa: BLE001 -- decoders raise whatever they stumble over
        raise Unreadable(f"cannot be decoded: {str(error) or type(error).__name__}") from None


def _raw_mode(tile: Any) -> str:
    """How the file has the pixels, as Pillow calls it."""
    args = tile[3]
    return str(args[0] if isinstance(args, tuple) and args else args)


def _check_pixels(width: int, height: int) -> None:
    if width < 1 or height < 1 or width * height > _most_pixels():
        raise Unreadable(f"has {width} x {height} pixels, at most {_most_pixels()} in all are taken")


def _most_pixels() -> int:
    """Pillow's own limit, which it warns of; a program may have raised it."""
    return Image.MAX_IMAGE_PIXELS or 1 << 31
