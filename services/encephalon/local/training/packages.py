"""Whether what training needs is installed."""

from __future__ import annotations

import importlib.util

from encephalon.core.errors import FailedPrecondition

__all__ = ["check_installed"]

NEEDED = ("torch", "safetensors", "pyarrow", "matplotlib", "tensorboard")
"""Of the extra `training`; what its own extras bring is not named again."""


def check_installed() -> None:
    """FailedPrecondition says what is missing and how to get it. Imports none of them."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise FailedPrecondition(
            f"training needs {' and '.join(missing)}, which this installation does not have; "
            "pip install 'encephalon[training]'"
        )
