"""From nothing, or from a folder of raw files, to a built data set: what `encephalon data get avmnist` does."""

from __future__ import annotations

from pathlib import Path

import platformdirs

from encephalon.library.avmnist import digests
from encephalon.library.avmnist.builder import build
from encephalon.library.avmnist.origins import fetch_raw
from encephalon.library.avmnist.parameters import Parameters
from encephalon.library.avmnist.progress import Progress, silent

__all__ = ["get"]


def get(
    source: Path | None,
    destination: Path,
    parameters: Parameters | None = None,
    progress: Progress = silent,
    cache: Path | None = None,
) -> Path:
    """Builds AV-MNIST at `destination` and returns it.

    `source` holds `mnist/`, `fsdd/recordings/` and `esc10/`; None downloads them (about 90 MB) to `cache`, by default
    a folder of the user's cache, where a second call finds them. Every raw file is compared with its digest first.
    Raises `NotFound` or `Corrupt` naming a missing or damaged file, `Unavailable` when a home cannot be reached,
    `InvalidInput` for parameters out of range, `AlreadyExists` for a destination that holds something else,
    `FailedPrecondition` when disk space or scipy is missing.
    """
    raw = (
        fetch_raw(cache or platformdirs.user_cache_path("encephalon") / "avmnist", progress)
        if source is None
        else source
    )
    expected = digests.packaged()
    digests.verify(raw, expected, progress)
    return build(raw, list(expected), destination, parameters or Parameters(), progress)
