"""pyarrow, when it is there."""

from __future__ import annotations

import importlib
from typing import Any

from encephalon.core.errors import FailedPrecondition

__all__ = ["arrow"]


def arrow(module: str = "") -> Any:
    """The module `pyarrow`, or one below it ("csv", "parquet"). Raises `FailedPrecondition` when it is not
    installed."""
    try:
        return importlib.import_module(f"pyarrow.{module}" if module else "pyarrow")
    except ImportError as error:
        raise FailedPrecondition(
            "data sets are kept as Arrow files, which needs pyarrow; install it with `pip install 'encephalon[data]'`"
        ) from error
