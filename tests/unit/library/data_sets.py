"""Small data sets of many shards, and a library to put them into."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from encephalon.library.datasets import arrays, shards
from encephalon.library.library import Library
from encephalon.library.open import open_library

__all__ = ["columns_of", "opened", "save_picture", "stores", "tiny_shards"]


def stores(folder: Path) -> dict[str, Any]:
    """What `open_library` takes, for an embedded library below `folder`."""
    return {"state": f"sqlite://{folder}/state.db", "objects": f"folder://{folder}/objects", "cache_dir": folder / "c"}


@asynccontextmanager
async def opened(folder: Path, **more: Any) -> AsyncIterator[Library]:
    async with open_library(**{**stores(folder), "seed": False, **more}) as library:
        yield library


def tiny_shards(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Shards of `rows` samples, in record batches of half of that."""
    monkeypatch.setattr(shards, "SHARD_ROWS", rows)
    monkeypatch.setattr(arrays, "BATCH_ROWS", max(1, rows // 2))


def columns_of(count: int) -> dict[str, Any]:
    """Every kind of column; each value says which row it is."""
    return {
        "image": np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None], (count, 4, 3)),
        "sound": [np.full(1 + row % 5, row, np.int16) for row in range(count)],
        "caption": [f"row {row}" for row in range(count)],
        "flag": np.arange(count) % 2 == 0,
        "label": np.arange(count) % 10,
    }


def save_picture(path: Path, shade: int = 0, size: tuple[int, int] = (8, 6), mode: str = "L", **how: Any) -> Path:
    """A picture of one shade; `size` is width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, shade // 2, 255 - shade)).convert(mode).save(path, **how)
    return path
